"""Mutated inputs: a clear line and an exit status that tells the truth, or the promised output; never a stack.

Every case is made from a seed, so a failing one can be run again: ``pytest tests/unit/cli/test_fuzz.py -k case12``.
The public reports that the mutations are modelled on are listed in ``test_failures.py``.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from helpers.checkpoint import make_checkpoint
from helpers.mutations import cases, mutated_bytes, mutated_tree, mutated_words

from prosparse.__main__ import main
from prosparse.inference.predictors import Predictor
from prosparse.inference.predictors import save as save_predictors

RECIPE = {
    "activation": "relu",
    "context_length": 16,
    "stages": [{"until": 1}, {"until": 2, "peak": 0.1, "shape": "sine"}],
    "training": {"learning_rate": 1e-3, "batch_size": 1, "micro_batch_size": 1},
}


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A checkpoint, text of three kinds and benchmark rows."""
    root = tmp_path_factory.mktemp("fuzz")
    make_checkpoint(root / "model", "relu")
    texts = [f"Paragraph number {index}, which is not the same as {index * index}. " * 3 for index in range(9)]
    (root / "book.txt").write_text("\n".join(texts))
    (root / "book.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    pq.write_table(pa.table({"text": texts}), root / "book.parquet")
    (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    generator = torch.Generator().manual_seed(0)
    layers = [Predictor.of(*(torch.randn(*shape, generator=generator) for shape in ((4, 32), (96, 4)))) for _ in "12"]
    save_predictors(layers, root / "predictors")
    (root / "rows").mkdir()
    row = {"goal": "To sit,", "sol1": "stand.", "sol2": "use a chair.", "label": 1}
    (root / "rows" / "piqa.jsonl").write_text(json.dumps(row) + "\n")
    return root


@pytest.fixture
def here(origin, tmp_path, monkeypatch):
    """Links to the files of ``origin``: a case replaces what it mutates."""
    for path in origin.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change_file(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file below this case's folder, in a copy of its own."""
    folder = path.parent
    if folder.is_symlink():
        source = folder.resolve()
        folder.unlink()
        shutil.copytree(source, folder, copy_function=os.link)
    content = change(path.read_bytes())
    path.unlink()
    path.write_bytes(content)


#: Of each command, a line that works and what it leaves.
LINES = {
    "substitute": ("substitute model --activation fatrelu-0.1 --output out", "config.json"),
    "sparsity": ("sparsity model --text book.txt --context-length 16 --sequences 1", None),
    "generate": ("generate model --prompt Paragraph --new-tokens 1 --precision float32", None),
    "export": ("export model --engine llama.cpp --activation silu --output out", ""),
    "evaluate": ("evaluate model --task piqa --rows rows --output out", ""),
    "sparsify": (
        "sparsify model --target-sparsity 0.7 --text book.txt --heldout-text book.jsonl --context-length 16 "
        "--tokens 320 --batch-size 1 --no-control --output out",
        "config.json",
    ),
    "train": ("train model --recipe recipe.yaml --text book.txt --output out", "stage1/config.json"),
    "predictors": (
        "predictors model --text book.jsonl --kind svd --rank 4 --tokens 32 --context-length 16 --output out",
        "svd/model_1.pt",
    ),
}


def judge(words: list[str], capsys: pytest.CaptureFixture[str], left: Path | None = None) -> int:
    """Run a command: a clear failure, or success with its output (the file ``left``, or else something printed)."""
    status = main(words)
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err, words
    if status == 0:
        asked = {"--help", "--version"} & set(words)
        assert said.out.strip(), (words, "printed nothing")
        assert asked or left is None or left.exists(), (words, "left nothing")
    else:
        assert status in (1, 2), (words, status, said.err)
        assert "prosparse: error: " in said.err, (words, said.err)
        lines = said.err[said.err.rindex("prosparse: error: ") :].strip().splitlines()
        # a recipe has a line per problem, and each names its key
        assert len(lines) <= 3 or all(re.match(r"[\w.]+: ", line) for line in lines[1:]), (words, said.err)
        assert len(lines[0]) > len("prosparse: error: ") + 10, (words, said.err)
    return status


@pytest.mark.parametrize("command", LINES)
def test_every_line_works_as_it_is(command, here, capsys):
    line, left = LINES[command]
    assert judge(line.split(), capsys, None if left is None else here / "out" / left) == 0


@cases(140)
def test_command_lines(seed, here, capsys):
    chance = random.Random(seed)
    command = chance.choice(list(LINES))
    line, left = LINES[command]
    words = mutated_words(line.split(), chance)
    output = words[words.index("--output") + 1] if "--output" in words[:-1] else "out"
    judge(words, capsys, None if left is None else Path(output) / left if left else Path(output))


@cases(60)
def test_recipes(seed, here, capsys):
    chance = random.Random(seed)
    text = yaml.safe_dump(mutated_tree(RECIPE, chance)).encode()
    change_file(here / "recipe.yaml", lambda _: mutated_bytes(text, chance) if seed % 3 == 0 else text)
    judge(LINES["train"][0].split(), capsys, here / "out")


@cases(60)
def test_text_files(seed, here, capsys):
    chance = random.Random(seed)
    name = ("book.txt", "book.jsonl", "book.parquet")[seed % 3]
    change_file(here / name, lambda content: mutated_bytes(content, chance))
    judge(LINES["sparsity"][0].replace("book.txt", name).split(), capsys)


@cases(120)
def test_json_of_a_checkpoint(seed, here, capsys):
    chance = random.Random(seed)
    name = ("config.json", "config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json")[seed % 5]

    def change(content: bytes) -> bytes:
        if chance.random() < 0.3:
            return mutated_bytes(content, chance)
        return json.dumps(mutated_tree(json.loads(content), chance)).encode()

    change_file(here / "model" / name, change)
    command = chance.choice(["substitute", "sparsity", "generate", "export"])
    line, left = LINES[command]
    judge(line.split(), capsys, None if left is None else here / "out" / left if left else here / "out")


@cases(40)
def test_weights_of_a_checkpoint(seed, here, capsys):
    """Of these, a flipped bit of a weight is the one that nobody can see."""
    chance = random.Random(seed)

    def change(content: bytes) -> bytes:
        length = 8 + int.from_bytes(content[:8], "little")
        if seed % 2:
            return mutated_bytes(content[:length], chance) + content[length:]
        return mutated_bytes(content, chance)

    change_file(here / "model" / "model.safetensors", change)
    judge(LINES["substitute"][0].split(), capsys, here / "out" / "config.json")


@cases(20)
def test_predictors(seed, here, capsys):
    chance = random.Random(seed)
    change_file(here / "predictors" / "model_1.pt", lambda content: mutated_bytes(content, chance))
    judge([*LINES["generate"][0].split(), "--predictors", "predictors"], capsys)
