"""What goes wrong with files, libraries and the machine ends in one line that names the file, never in a stack.

Public reports that these cases are modelled on, and what is done about each:

- "SafetensorError: HeaderTooLarge", https://github.com/deepseek-ai/DeepSeek-V3/issues/557,
  https://github.com/huggingface/transformers/issues/27923, https://github.com/microsoft/OmniParser/issues/34: a Git LFS
  pointer or a broken download in place of weights. Files are looked at first; a pointer is called one.
- turboderp/exllama, https://github.com/turboderp/exllama/issues/242: the same of ``tokenizer.model``.
- "Make it easier to know in which file we have bad JSON data", https://github.com/ml-explore/mlx-examples/pull/458, and
  "improve error message on jsonl parsing errors", https://github.com/openai/evals/pull/259 (the line number was the
  parser's, always 1): file and line of the file are named.
- "Extra data", two objects on a line, https://github.com/nianeyna/ao3downloader/issues/166; JSON in place of JSON
  lines, https://github.com/axolotl-ai-cloud/axolotl/issues/744 (it trained, and the model
  became incoherent): refused.
- No config.json in the folder to convert, https://github.com/ggml-org/llama.cpp/issues/8451; no tokenizer there,
  https://github.com/ggml-org/llama.cpp/issues/9673: said before weights are read.
- A folder that is no checkpoint, or lacks a part of one, https://github.com/Lightning-AI/litgpt/issues/861,
  https://github.com/Lightning-AI/litgpt/issues/1352, https://github.com/Lightning-AI/litgpt/pull/28: one line.
- An engine's format mistaken for another's, https://github.com/Tiiny-AI/PowerInfer/issues/100 (core dumped): export
  refuses what the engine would compute wrongly.
- A mistyped task, https://github.com/EleutherAI/lm-evaluation-harness/issues/1512 (one letter off, and no hint), and
  evaluations that answer nothing and end well, https://github.com/open-compass/opencompass/issues/1903: exit status 1.
"""

from __future__ import annotations

import builtins
import json
import os
import shutil
from pathlib import Path

import pytest
from helpers.checkpoint import make_checkpoint

from prosparse.__main__ import main
from prosparse.cli import exit
from prosparse.system.failures import damaged, explain

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69\nsize 4096\n"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def model(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "model"))


def said_of(capsys, *arguments: str) -> tuple[int, str]:
    status = main(list(arguments))
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return status, said


# ------------------------------------------------------------------------------- a checkpoint


def truncate(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def flip_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[12] ^= 0x80
    path.write_bytes(content)


def add_index(folder: Path, held: str) -> None:
    (folder / "model.safetensors.index.json").write_text(held)


DAMAGES = {
    "truncated weights": ("model.safetensors", lambda path: truncate(path, 0.5), "truncated"),
    "truncated header": ("model.safetensors", lambda path: truncate(path, 0.01), "truncated"),
    "weights longer than they say": ("model.safetensors", lambda path: path.open("ab").write(b"x" * 9), "damaged"),
    "a broken header": ("model.safetensors", flip_header, "header"),
    "empty weights": ("model.safetensors", lambda path: path.write_bytes(b""), "is empty"),
    "a web page for weights": ("model.safetensors", lambda path: path.write_text("<!DOCTYPE html><html>"), "truncated"),
    "weights by pointer": ("model.safetensors", lambda path: path.write_text(POINTER), "git lfs pull"),
    "a tokenizer by pointer": ("tokenizer.json", lambda path: path.write_text(POINTER), "git lfs pull"),
    "a pickle by pointer": ("pytorch_model.bin", lambda path: path.write_text(POINTER), "git lfs pull"),
    "an empty config": ("config.json", lambda path: path.write_text(""), "is empty"),
    "half a config": ("config.json", lambda path: truncate(path, 0.6), "line"),
    "a config that is a list": ("config.json", lambda path: path.write_text("[1]"), "JSON object"),
    "half a tokenizer": ("tokenizer.json", lambda path: truncate(path, 0.5), "not JSON"),
    "half a tokenizer's config": ("tokenizer_config.json", lambda path: truncate(path, 0.5), "not JSON"),
    "a generation config, not UTF-8": ("generation_config.json", lambda path: path.write_bytes(b'"\xe9"'), "byte 1"),
    "an index without a map": ("model.safetensors.index.json", lambda path: path.write_text("{}"), "weight_map"),
    "an index of shards not there": (
        "model.safetensors.index.json",
        lambda path: path.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "c"}}'),
        "which does not exist",
    ),
    "an index of numbers": ("model.safetensors.index.json", lambda path: path.write_text('{"weight_map": 1}'), "map"),
    "brackets without end": ("config.json", lambda path: path.write_text("[" * 100_000), "nested"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_checkpoint_is_named(damage, model, tmp_path, capsys):
    name, break_it, words = DAMAGES[damage]
    assert damaged(model) is None
    break_it(model / name)
    status, said = said_of(capsys, "substitute", str(model), "--activation", "relu", "--output", str(tmp_path / "relu"))
    assert status == 1
    assert said.startswith(f"prosparse: error: {model / name}")
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "relu").exists()


# ---------------------------------------------------------------------- libraries and machine


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("division by zero"), KeyError("x"), RuntimeError("mat1 and mat2 cannot be multiplied"),
     ModuleNotFoundError("No module named 'prosparse.nowhere'", name="prosparse.nowhere"), builtins.AssertionError()],
)  # fmt: skip
def test_a_fault_of_ours_is_never_taken_for_the_users(error, capsys):
    assert explain(error) is None
    assert exit.status(error, in_step=False, with_traceback=False) == exit.INTERNAL
    said = capsys.readouterr().err
    assert type(error).__name__ in said
    assert "--traceback" in said
    assert said.count("\n") == 1
    # the log of a step, which may have run for hours, has all of it
    with pytest.raises(type(error)) as caught:
        raise error
    assert exit.status(caught.value, in_step=True, with_traceback=False) == exit.INTERNAL
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("before", [True, False])
def test_traceback_shows_the_rest_before_or_after_the_command(before, tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    command = ["substitute", str(tmp_path), "--activation", "relu", "--output", str(tmp_path / "x")]
    assert main(["--traceback", *command] if before else [*command, "--traceback"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.splitlines()[-1].startswith("prosparse: error: ")
    assert main(command) == 1
    assert capsys.readouterr().err == said.splitlines()[-1] + "\n"


def test_a_rank_left_in_the_environment_does_not_silence_a_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    status, said = said_of(capsys, "substitute", str(tmp_path), "--activation", "relu", "--output", str(tmp_path / "x"))
    assert status == 1
    assert str(tmp_path) in said


# ------------------------------------------------------------------------- streams and signals


# --------------------------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bad.jsonl", b'{"text": "a"}\n\n{"text": "b"}{"text": "c"}\n', "bad.jsonl, line 3"),
        ("list.jsonl", json.dumps([{"text": "a"}], indent=1).encode(), "list.jsonl, line 1"),
        ("latin.txt", b"caf\xe9 " * 100, "latin.txt"),
        ("broken.parquet", b"PAR1 and no more", "broken.parquet"),
        ("utf16.txt", "text".encode("utf-16"), "utf16.txt"),
    ],
)
def test_a_malformed_text_file_is_named_with_the_place(name, content, words, model, tmp_path, capsys):
    (tmp_path / name).write_bytes(content)
    status, said = said_of(capsys, "sparsity", str(model), "--text", str(tmp_path / name), "--context-length", "16")
    assert status == 1
    assert words in said
    assert said.count("\n") == 1
