"""llama.cpp against transformers on small random models; skipped where it is not installed."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.engines import NEW_TOKENS, PROMPTS, TEXT, byte_level, compared, predictors, tiny

from prosparse.inference.decoding import prepare
from prosparse.inference.export import export_llama_cpp, export_powerinfer
from prosparse.inference.generation import Text
from prosparse.inference.gguf_file import precision
from prosparse.inference.gguf_model import open_gguf
from prosparse.measure import llamacpp
from prosparse.measure.llamacpp import INTERPRETER, LlamaCpp, LlamaCppText, interpreter
from prosparse.operators.quantized import FORMATS, Q8_0
from prosparse.system.errors import EngineMissing, UserError


@pytest.fixture(scope="module")
def llama_cpp():
    try:
        return interpreter()
    except EngineMissing as missing:
        pytest.skip(str(missing))


def written(path: Path) -> list[list[int]]:
    """Continuations of the prompts."""
    texts = []
    with LlamaCpp(path, 64, threads=1) as engine:
        for prompt in PROMPTS:
            text = LlamaCppText(engine, prompt)
            text.take_turn(NEW_TOKENS)
            texts.append(text.ids[len(prompt) :])
    return texts


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 0.02), (torch.float16, 0.02), (torch.bfloat16, 0.2)],  # keys and values are float16 in all three
)
@pytest.mark.parametrize("name", ["llama", "granite"])
def test_llama_cpp_generates_the_tokens_of_transformers(name, dtype, tolerance, llama_cpp, tmp_path):
    model = tiny(name)
    export_llama_cpp(model, None, tmp_path / "model.gguf", dtype)
    texts = written(tmp_path / "model.gguf")
    shortfall = compared(model, PROMPTS, texts)
    assert shortfall.max() < tolerance
    assert (shortfall == 0).float().mean() > 0.95
    assert {len(tokens) for tokens in texts} == {NEW_TOKENS}
    assert len(set(texts[0])) > 10, "a model that repeats itself would show little"


def test_llama_cpp_says_what_it_is(llama_cpp, tmp_path):
    export_llama_cpp(tiny(), None, tmp_path / "model.gguf", torch.bfloat16)
    with LlamaCpp(tmp_path / "model.gguf", 64, threads=1) as engine:
        about = engine.about()
    assert (about["precision"], about["threads"]) == ("bfloat16", 1)
    assert about["version"].startswith("llama-cpp-python ")
    assert "AVX" in about["build"] or "NEON" in about["build"]


def test_texts_of_several_turns_are_those_of_one(llama_cpp, tmp_path):
    export_llama_cpp(tiny(), None, tmp_path / "model.gguf", torch.float32)
    expected = written(tmp_path / "model.gguf")
    with LlamaCpp(tmp_path / "model.gguf", 64, threads=1) as engine:
        for prompt, tokens in zip(PROMPTS, expected, strict=True):
            text = LlamaCppText(engine, prompt)
            for new_tokens in (16, 3, NEW_TOKENS - 19):
                text.take_turn(new_tokens)
            assert text.ids == [*prompt, *tokens]
            assert len(text.turns) == 3


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_llama_cpp_chooses_the_tokens_of_our_quantized_decoder(form, tied, llama_cpp, tmp_path):
    """Of the same file: after each of its tokens, its choice is ours, or one that we rank beside ours.

    More often that of transformers, which reads the down projection as it is, where we round its transpose again.
    """
    path = tmp_path / "model.gguf"
    export_llama_cpp(tiny(tie_word_embeddings=tied), None, path, form.dtype)
    texts = written(path)
    found = open_gguf(path)
    of_file = compared(found.model, PROMPTS, texts)
    assert of_file.max() < 0.2
    assert (of_file == 0).float().mean() > 0.9
    decoder = prepare(found.model, form=found.rounding)
    shortfall = []
    for prompt, tokens in zip(PROMPTS, texts, strict=True):
        text = Text(decoder, len(prompt) + NEW_TOKENS)
        for token, read in zip(tokens, [prompt, *([token] for token in tokens)], strict=False):
            logits = text.read(read).clone()
            spread, logits[decoder.model.config.eos_token_id] = logits.std(), -torch.inf
            shortfall.append(float((logits.max() - logits[token]) / spread))
    assert precision(path) == form.name.upper()
    assert max(shortfall) < (0.1 if form is Q8_0 else 0.6)
    assert statistics.fmean(each == 0 for each in shortfall) > (0.9 if form is Q8_0 else 0.7)
    assert len({*texts[0]}) > 10, "a model that repeats itself would show little"


@pytest.mark.parametrize("digits", [True, False])
def test_llama_cpp_reads_the_tokenizer_as_transformers_does(digits, llama_cpp, tmp_path):
    tokenizer = byte_level(digits)
    export_llama_cpp(tiny(), tokenizer, tmp_path / "model.gguf", torch.float16)
    script = (
        "import json, sys, llama_cpp; path, text = json.load(sys.stdin)\n"
        "model = llama_cpp.Llama(path, vocab_only=True, verbose=False)\n"
        "print(json.dumps(model.tokenize(text.encode(), add_bos=False)))"
    )
    for sentence in (TEXT, "then 7 cats sat 12345 times\n\n  end", "'s €"):
        request = json.dumps([str(tmp_path / "model.gguf"), sentence])
        answer = subprocess.run([llama_cpp, "-c", script], input=request, capture_output=True, text=True, check=True)
        assert json.loads(answer.stdout) == tokenizer(sentence)["input_ids"]


def test_llama_cpp_says_which_file_it_cannot_load(llama_cpp, tmp_path):
    model = tiny(activation="relu")
    export_powerinfer(model, predictors(model), 0.5, None, tmp_path / "model")
    with pytest.raises(UserError, match=r"llama.cpp failed on .*model:\n(.*\n)*llama.cpp cannot load"):
        LlamaCpp(tmp_path / "model", 64, threads=1)


def test_llama_cpp_missing(monkeypatch, tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'llama_cpp'\" >&2; exit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv(INTERPRETER, str(fake))
    with pytest.raises(EngineMissing, match=r"No module named 'llama_cpp'\): pip install llama-cpp-python"):
        LlamaCpp(tmp_path / "model.gguf", 64, threads=1)
    monkeypatch.setenv(INTERPRETER, str(tmp_path / "nothing"))
    with pytest.raises(EngineMissing, match=r"PROSPARSE_LLAMA_CPP=.*nothing: .*No such file"):
        LlamaCpp(tmp_path / "model.gguf", 64, threads=1)


PROGRAM = """
import json, sys, time
print(json.dumps({"version": "1", "build": "none"}), flush=True); input()
for line in sys.stdin:
    now, request = time.perf_counter(), json.loads(line)
    print(json.dumps({"tokens": [1] * 4, "times": [now + 500 + 2 * i for i in range(4)]}), flush=True)
"""


def test_speeds_are_of_the_tokens_after_the_first(monkeypatch, tmp_path):
    """4 new tokens: the first after 500 s, 3 more in 6 s."""
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\n{PROGRAM}")
    fake.chmod(0o755)
    monkeypatch.setattr(llamacpp, "interpreter", lambda: str(fake))
    with LlamaCpp(tmp_path / "model.gguf", 64, threads=2) as engine:
        text = LlamaCppText(engine, [5, 6])
        assert text.take_turn(4) == pytest.approx(2)
    assert text.first_token == pytest.approx(500, abs=10)
    assert text.ids == [5, 6, 1, 1, 1, 1]
