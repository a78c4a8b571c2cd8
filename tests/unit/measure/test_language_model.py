"""Log-likelihoods and answers against lm-eval's own model and against passes without batches, cache or padding."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
import transformers.generation.utils
from helpers.tokenizer_kinds import KINDS, texts, tiny_for
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import nn
from transformers import GenerationConfig

from prosparse.experiment.model import Architecture
from prosparse.inference.text import continuation, decode
from prosparse.measure.language_model import LanguageModel
from prosparse.models.build import from_scratch
from prosparse.system.errors import UserError

torch.set_num_threads(1)  # more only slow a model this small
COMPARED = [name for name in KINDS if name != "nothing_special"]  # lm-eval needs an end-of-text token
ANSWERS = [" yes, certainly", " no", " 42!", "'t mind", " 你好", " the lazy dog jumps"]
PAIRS = [(context, answer) for n, context in enumerate(texts()) for answer in ANSWERS[n % 2 :: 2]]


def log_likelihoods(model: Any, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
    return model.loglikelihood([Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)])


def answers(model: Any, prompts: list[str], until: list[str], new_tokens: int = 8) -> list[str]:
    options = {"until": until, "max_gen_toks": new_tokens, "do_sample": False}
    requests = [Instance("generate_until", {}, (prompt, dict(options)), n) for n, prompt in enumerate(prompts)]
    return model.generate_until(requests)


def for_theirs(tokenizer: Any, context: str) -> str:
    """lm-eval cannot put a token before a context that the tokenizer does not, but heeds one that is spelled out."""
    begins = tokenizer.bos_token_id in tokenizer("a")["input_ids"]
    return context if begins or tokenizer.bos_token is None else tokenizer.bos_token + context


def theirs(model: nn.Module, tokenizer: Any, batch_size: int = 3) -> HFLM:
    return HFLM(
        pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size, backend="causal",
        add_bos_token=tokenizer.bos_token_id is not None,
    )  # fmt: skip


@pytest.mark.parametrize("kind", COMPARED)
def test_log_likelihoods_are_lm_evals_per_token(kind: str) -> None:
    tokenizer = KINDS[kind]()
    model = tiny_for(tokenizer, seed=1)
    ours = LanguageModel(model, tokenizer, batch_tokens=100)
    head = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    spelled = [(for_theirs(tokenizer, context), answer) for context, answer in PAIRS]
    for pair, (mean, greedy), (total, same) in zip(
        PAIRS, log_likelihoods(ours, PAIRS), log_likelihoods(theirs(model, tokenizer), spelled), strict=True
    ):
        context, answer = ours._encode_pair(*pair)
        assert context[: len(head)] == head
        assert mean == pytest.approx(total / len(answer), abs=1e-5)
        assert greedy == same


@pytest.mark.parametrize("kind", COMPARED)
@pytest.mark.parametrize("until", [["zzz"], ["e", "\n"]])
def test_answers_are_lm_evals(kind: str, until: list[str]) -> None:
    tokenizer, prompts = KINDS[kind](), list(texts())
    model = tiny_for(tokenizer, seed=2)
    expected = answers(theirs(model, tokenizer), [for_theirs(tokenizer, prompt) for prompt in prompts], until)
    found = answers(LanguageModel(model, tokenizer, batch_tokens=80), prompts, until)
    # decoded without its prompt, as in lm-eval, an answer has lost its first space, begins within a word by ##, or with
    # an apostrophe that the clean-up could not join to the prompt
    begun = [re.sub(r"^( |##)", "", text) for text in expected]
    assert [text.removeprefix(" ") for text in found] == [
        re.sub("^' ", "'", text) if kind == "word_piece" else text for text in begun
    ]
    assert any(found)


def test_a_tokenizer_without_any_special_token_is_asked() -> None:
    tokenizer = KINDS["nothing_special"]()
    model = tiny_for(tokenizer, seed=3)
    ours = LanguageModel(model, tokenizer, batch_tokens=50)
    ((mean, _),) = log_likelihoods(ours, [("The fox", " jumps")])
    prompt, answer = tokenizer.encode("The fox"), tokenizer.encode(" jumps")
    with torch.no_grad():
        scores = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    assert mean == pytest.approx(scores[range(len(answer)), answer].mean().item(), abs=1e-5)
    said = list(prompt)
    for _ in range(8):
        with torch.no_grad():
            said.append(int(model(torch.tensor([said])).logits[0, -1].argmax()))
    assert answers(ours, ["The fox"], [], 8) == [tokenizer.decode(said).removeprefix("The fox")]
    # nothing to go on from: the first token is given
    first, *rest = tokenizer.encode("over the dog")
    ((mean, _),) = log_likelihoods(ours, [("", "over the dog")])
    with torch.no_grad():
        scores = model(torch.tensor([[first, *rest]])).logits[0, :-1].log_softmax(-1)
    assert mean == pytest.approx(scores[range(len(rest)), rest].mean().item(), abs=1e-5)
    assert log_likelihoods(ours, [("", "")]) == [(0.0, True)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_explicit_add_bos_token_false_is_heeded(kind: str) -> None:
    tokenizer = copy.deepcopy(KINDS[kind]())
    tokenizer.init_kwargs["add_bos_token"] = False
    ours = LanguageModel(tiny_for(tokenizer), tokenizer, batch_tokens=50)
    assert ours._prompt("The fox", 8) == tokenizer.encode("The fox", add_special_tokens=False)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_what_decoding_everything_adds(kind: str) -> None:
    tokenizer = KINDS[kind]()
    model = tiny_for(tokenizer, seed=4)
    ours = LanguageModel(model, tokenizer, batch_tokens=60)
    for text, found in zip(texts(), answers(ours, list(texts()), []), strict=True):
        prompt = ours._prompt(text, 8)
        with torch.no_grad():
            ids = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0].tolist()
        if ids[-1] == tokenizer.eos_token_id:
            ids.pop()
        whole = decode(tokenizer, ids)
        # SentencePiece's incomplete characters make those right before them unreadable
        assert decode(tokenizer, prompt) + found == whole or not whole.startswith(decode(tokenizer, prompt))
        assert continuation(tokenizer, prompt, ids[len(prompt) :]) == found


# --------------------------------------------------------------------------------- batches

MINICPM = Architecture(
    type="minicpm", hidden_size=64, intermediate_size=128, layers=2, heads=4, kv_heads=2,
    scale_emb=12, scale_depth=1.4, dim_model_base=16,
)  # fmt: skip


@pytest.mark.parametrize("architecture", ["llama", "minicpm"])
def test_neither_scores_nor_answers_depend_on_the_batches(architecture: str) -> None:
    tokenizer = KINDS["byte_level_bos"]()
    model = tiny_for(tokenizer, seed=5) if architecture == "llama" else from_scratch(MINICPM, 300, 128, seed=5).eval()
    prompts = list(texts())
    one = LanguageModel(model, tokenizer, 1)
    exact = [log_likelihoods(one, [pair])[0] for pair in PAIRS]
    alone = [answers(one, [prompt], ["q"])[0] for prompt in prompts]
    for batch_tokens in (37, 90, 10_000):
        together = LanguageModel(model, tokenizer, batch_tokens)
        found = log_likelihoods(together, PAIRS)
        assert [mean for mean, _ in found] == pytest.approx([mean for mean, _ in exact], abs=1e-5)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in exact]
        assert answers(together, prompts, ["q"]) == alone


def recorded(model: nn.Module, monkeypatch: pytest.MonkeyPatch, most: int | None = None) -> list[tuple[int, int]]:
    """Shapes of what the model reads; above ``most`` tokens, keys and values included, its memory is full."""
    shapes: list[tuple[int, int]] = []
    forward = model.forward

    def read(input_ids: torch.Tensor, past_key_values: Any = None, **rest: Any) -> Any:
        held = past_key_values.get_seq_length() if past_key_values is not None else 0
        if most is not None and len(input_ids) * (held + input_ids.shape[1]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ...")
        shapes.append(tuple(input_ids.shape))
        return forward(input_ids=input_ids, past_key_values=past_key_values, **rest)

    monkeypatch.setattr(model, "forward", read)
    return shapes


def test_a_batch_holds_at_most_its_tokens_and_the_head_only_what_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = KINDS["byte_level_bos"]()
    model = tiny_for(tokenizer, seed=6)
    ours, headed = LanguageModel(model, tokenizer, batch_tokens=120), []
    shapes = recorded(model, monkeypatch)
    model.lm_head.register_forward_hook(lambda head, inputs, output: headed.append(inputs[0].shape[:-1].numel()))
    log_likelihoods(ours, PAIRS)
    assert all(rows * length <= 120 for rows, length in shapes)
    assert len(shapes) < len(PAIRS) / 2
    scored: dict[tuple[int, ...], int] = {}
    for pair in PAIRS:
        context, answer = ours._encode_pair(*pair)
        row = (*context, *answer[:-1])
        scored[row] = max(scored.get(row, 0), len(answer))
    assert sum(headed) == sum(scored.values())

    shapes.clear()
    answers(ours, list(texts()), [], new_tokens=10)
    prefills = [shape for shape in shapes if shape[1] > 1]
    assert all(rows * (length + 10) <= 120 or rows == 1 for rows, length in prefills)
    assert len(prefills) < len(list(texts()))


def test_out_of_memory_halves_the_batches_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = KINDS["byte_level_bos"]()
    model, prompts = tiny_for(tokenizer, seed=7), list(texts())
    expected = log_likelihoods(LanguageModel(model, tokenizer, 400), PAIRS)
    said = answers(LanguageModel(model, tokenizer, 400), prompts, [])
    with monkeypatch.context() as patch:
        shapes = recorded(model, patch, most=100)
        ours = LanguageModel(model, tokenizer, 400)
        found = log_likelihoods(ours, PAIRS)
        assert answers(ours, prompts, []) == said
    assert [mean for mean, _ in found] == pytest.approx([mean for mean, _ in expected], abs=1e-5)
    assert max(rows * length for rows, length in shapes) <= 100
    assert "out of memory: at most " in capsys.readouterr().out


def test_a_sequence_that_does_not_fit_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = KINDS["byte_level_bos"]()
    model = tiny_for(tokenizer)
    recorded(model, monkeypatch, most=3)
    with pytest.raises(UserError, match=r"^out of memory with a single sequence of \d+ tokens: CUDA out of memory"):
        log_likelihoods(LanguageModel(model, tokenizer, 400), PAIRS)


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = KINDS["byte_level_bos"]()
    model = tiny_for(tokenizer)
    monkeypatch.setattr(model, "forward", lambda **_: (_ for _ in ()).throw(RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        log_likelihoods(LanguageModel(model, tokenizer, 400), PAIRS)


# ---------------------------------------------------------------------------------- the rest


def test_log_likelihoods_of_a_bfloat16_model_are_taken_in_float32() -> None:
    tokenizer = KINDS["byte_level_bos"]()
    model, pairs = tiny_for(tokenizer, seed=8), PAIRS[:6]
    exact = [mean for mean, _ in log_likelihoods(LanguageModel(model, tokenizer, 100), pairs)]
    found = [mean for mean, _ in log_likelihoods(LanguageModel(model.to(torch.bfloat16), tokenizer, 100), pairs)]
    assert found == pytest.approx(exact, abs=0.1)  # bfloat16 has 8 bits
    assert all(mean != float(torch.tensor(mean).bfloat16()) for mean in found)


def test_contexts_cut_to_fit_keep_their_end_and_their_head() -> None:
    tokenizer = KINDS["byte_level_bos"]()
    model = tiny_for(tokenizer, context=32)
    ours, text = LanguageModel(model, tokenizer, 100), "0123456789" * 5
    context, answer = ours._encode_pair(text, " 4")
    assert len(context) + len(answer) == 33  # the last token of an answer is never read
    assert context[0] == tokenizer.bos_token_id
    assert tokenizer.decode(context[1:] + answer) == f"{text} 4"[-(33 - 1) :]
    prompt = ours._prompt(text, 4)
    assert len(prompt) == 28
    assert prompt == [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)[-27:]]
    assert ours.truncated == {text}


def test_generation_stops_at_the_first_stop_string_of_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, prompts = KINDS["byte_level_no_bos"](), ["The first", "Another, the second", "3"]
    model = tiny_for(tokenizer, seed=9)
    ours = LanguageModel(model, tokenizer, 1000)
    free = answers(ours, prompts, [], new_tokens=40)
    stops = [text[4 + 3 * row : 7 + 3 * row] for row, text in enumerate(free)]
    shapes = recorded(model, monkeypatch)
    found = answers(ours, prompts, stops, new_tokens=40)
    assert found == [min((text[: text.index(stop)] for stop in stops if stop in text), key=len) for text in free]
    assert len(shapes) < 40
    assert {length for _, length in shapes[1:]} == {1}, "a step reads one token: the others are in the cache"


@pytest.mark.parametrize(
    "settings", [{"repetition_penalty": 5.0}, {"min_new_tokens": 12}, {"suppress_tokens": [5, 6, 7]}, {"num_beams": 3}]
)
def test_greedy_is_greedy_whatever_the_checkpoint_generates_with(settings: dict[str, Any]) -> None:
    tokenizer = KINDS["byte_level_bos"]()
    model = tiny_for(tokenizer, seed=10)
    expected = answers(LanguageModel(model, tokenizer, 100), list(texts()), [])
    model.generation_config = GenerationConfig(**settings, do_sample=True, temperature=3.0, eos_token_id=1)
    assert answers(LanguageModel(model, tokenizer, 100), list(texts()), []) == expected


def test_transformers_warns_of_nothing_that_we_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("warning", "warning_once"):
        monkeypatch.setattr(transformers.generation.utils.logger, kind, pytest.fail)
    tokenizer = KINDS["byte_level_bos"]()
    assert answers(LanguageModel(tiny_for(tokenizer), tokenizer, 100), ["a"], ["."]) is not None


def test_every_end_token_of_the_settings_ends_an_answer() -> None:
    tokenizer = KINDS["byte_level_bos"]()
    model, prompts = tiny_for(tokenizer, seed=11), list(texts())
    ours = LanguageModel(model, tokenizer, 100)
    (ids,) = ours._generate([ours._prompt("x", 8)], 8, [])
    end = next(token for token in ids[3:] if token not in ids[:3])
    model.generation_config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id, end])
    cut = answers(LanguageModel(model, tokenizer, 100), prompts, [])
    assert cut[prompts.index("x")] == tokenizer.decode(ids[: ids.index(end)])


def test_a_special_token_beyond_the_models_rows_is_ordinary_text() -> None:
    tokenizer = copy.deepcopy(KINDS["byte_level_bos"]())
    model = tiny_for(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    while len(tokenizer) <= model.config.vocab_size:
        tokenizer.add_tokens([f"<extra{len(tokenizer)}>"], special_tokens=True)
    last = f"<extra{len(tokenizer) - 1}>"
    ours = LanguageModel(model, tokenizer, 100)
    ids = ours.tok_encode(f"a {last} b")
    assert max(ids) < model.config.vocab_size
    assert tokenizer.decode(ids) == f"a {last} b"
    assert answers(ours, [f"a {last} b"], [], 4)
