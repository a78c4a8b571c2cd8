"""Scores against loops over raw logits, prompts as the model sees them, and answers given by hand."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prosparse.experiment.measurement import Benchmarks
from prosparse.measure import benchmarks, sandbox, tasks
from prosparse.measure.benchmarks import evaluate, spread
from prosparse.measure.language_model import LanguageModel
from prosparse.system.errors import ConfigError

BEGIN = 256
torch.set_num_threads(1)  # more only slow a model this small


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, <s> 256 and </s> 257."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_only.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bytes_only, bos_token="<s>", eos_token="</s>")


def tiny(context: int = 256, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=258,
        max_position_embeddings=context,
        bos_token_id=BEGIN,
        eos_token_id=257,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def settings(*names: str, **options: Any) -> Benchmarks:
    return Benchmarks(rows="packages", tasks=list(names), batch_tokens=700, **options)


def write(directory: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


VERBS = ["open", "close", "bend", "fold", "paint", "wash", "carry", "break", "mend", "sell", "hide", "find"]
PIQA = [
    {
        "goal": f"to {verb} it",
        "sol1": verb * (n % 5 + 1),
        "sol2": "a much longer way, " * (n % 3) + verb,
        "label": n % 2,
    }
    for n, verb in enumerate(VERBS * 2)
]
LAMBADA = [{"text": f"{n} words and then the last {word}"} for n, word in enumerate(["x", "a", "!", "of"] * 12)]


def log_probabilities(model: LlamaForCausalLM, tokenizer: Any, context: str, answer: str) -> torch.Tensor:
    """log p of each token of ``answer`` after <s> and ``context``, one forward pass, no padding."""
    prompt, tokens = [BEGIN, *tokenizer.encode(context)], tokenizer.encode(answer)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + tokens])).logits[0].double()
    rows = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return rows[torch.arange(len(tokens)), torch.tensor(tokens)]


def test_multiple_choice_takes_the_candidate_of_highest_mean_log_likelihood(tokenizer: Any, tmp_path: Path) -> None:
    model = tiny()
    by_mean, by_sum, by_character = [], [], []
    for row in PIQA:
        scores = [
            log_probabilities(model, tokenizer, f"Question: {row['goal']}\nAnswer:", f" {row[candidate]}")
            for candidate in ("sol1", "sol2")
        ]
        means, sums = [float(s.mean()) for s in scores], [float(s.sum()) for s in scores]
        by_mean.append(means.index(max(means)) == row["label"])
        by_sum.append(sums.index(max(sums)) == row["label"])
        normed = [total / len(row[candidate]) for total, candidate in zip(sums, ("sol1", "sol2"), strict=True)]
        by_character.append(normed.index(max(normed)) == row["label"])
    assert len({tuple(by_mean), tuple(by_sum), tuple(by_character)}) == 3  # the rows tell the rules apart

    result = evaluate(model, tokenizer, settings("piqa"), write(tmp_path, "piqa", PIQA))
    score = sum(by_mean) / len(by_mean)
    assert result["missing"] == {}
    entry = result["benchmarks"]["piqa"]
    assert entry["score"] == pytest.approx(score)
    assert entry["standard_error"] == pytest.approx(math.sqrt(score * (1 - score) / (len(PIQA) - 1)))
    assert entry["lm_eval"] == {"acc": sum(by_sum) / 24, "acc_norm": sum(by_character) / 24}
    assert {key: entry[key] for key in ("n", "chance", "shots", "truncated", "stand_in")} == {
        "n": 24, "chance": 0.5, "shots": 0, "truncated": 0.0, "stand_in": None,
    }  # fmt: skip


def test_lambada_asks_for_the_greedy_last_word(tokenizer: Any, tmp_path: Path) -> None:
    model = tiny(seed=1)
    # give some rows the word the model would say, so that the score is neither 0 nor 1
    rows, expected = [], []
    for n, row in enumerate(LAMBADA):
        context = row["text"].rpartition(" ")[0]
        with torch.no_grad():
            prompt = [BEGIN, *tokenizer.encode(context + " ")]
            likeliest = int(model(torch.tensor([prompt])).logits[0, -1].argmax())
        if n % 3 == 0 and chr(likeliest).isalnum():
            row = {"text": f"{context} {chr(likeliest)}"}
        rows.append(row)
        prompt, word = [BEGIN, *tokenizer.encode(context)], tokenizer.encode(" " + row["text"].rpartition(" ")[2])
        for token in word:
            with torch.no_grad():
                if int(model(torch.tensor([prompt])).logits[0, -1].argmax()) != token:
                    expected.append(0)
                    break
            prompt.append(token)
        else:
            expected.append(1)
    entry = evaluate(model, tokenizer, settings("lambada"), write(tmp_path, "lambada", rows))["benchmarks"]["lambada"]
    assert entry["rows"] == expected
    assert entry["score"] == pytest.approx(sum(expected) / len(expected))
    assert entry["chance"] == 0


@pytest.mark.parametrize("context", [256, 48])
def test_the_beginning_of_sequence_heads_every_context(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: int
) -> None:
    model, seen = tiny(context), []
    forward = model.forward

    def record(input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **rest: Any) -> Any:
        if input_ids.shape[1] > 1:  # a whole prompt, not a step of decoding
            assert input_ids.shape[1] <= context
            for place, row in enumerate(input_ids.tolist()):
                if attention_mask is not None:
                    row = [token for token, kept in zip(row, attention_mask[place].tolist(), strict=True) if kept]
                seen.append(row)
        return forward(input_ids=input_ids, attention_mask=attention_mask, **rest)

    monkeypatch.setattr(model, "forward", record)
    write(tmp_path, "piqa", PIQA[:5])
    write(tmp_path, "gsm8k", [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(3)])
    result = evaluate(model, tokenizer, settings("piqa", "gsm8k"), tmp_path)["benchmarks"]
    assert len(seen) >= 12  # two equal candidates are asked once
    assert all(row[0] == BEGIN and row.count(BEGIN) == 1 for row in seen)
    assert result["gsm8k"]["truncated"] == 1  # eight shots of bytes
    texts = [[f"Question: {row['goal']}\nAnswer: {row[c]}" for c in ("sol1", "sol2")] for row in PIQA[:5]]
    cut = [any(len(text) > context for text in pair) for pair in texts]  # <s> comes in, the last token stays out
    assert result["piqa"]["truncated"] == sum(cut) / 5
    assert any(cut) == (context == 48)
    assert result["gsm8k"]["max_new_tokens"] == context // 8


# --------------------------------------------------------------------------- generated answers


def answered(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[str]:
    """Have the model answer by ``answer(prompt)``; returns the prompts it gets."""
    prompts: list[str] = []

    def generate(self: Any, requests: Any, **_: Any) -> list[str]:
        prompts.extend(request.args[0] for request in requests)
        return [answer(request.args[0]) for request in requests]

    monkeypatch.setattr(LanguageModel, "generate_until", generate)
    return prompts


def test_mmlu_is_answered_by_a_letter_after_five_dev_questions(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(subject: str, question: str, answer: int) -> dict[str, Any]:
        return {"subtask": subject, "question": question, "choices": list("wxyz"), "answer": answer}

    subjects = ("anatomy", "virology")
    write(tmp_path, "mmlu", [row(s, f"{s} asked {n}", n) for s in subjects for n in range(4)])
    write(tmp_path, "mmlu.shots", [row(s, f"{s} shown {n}", 0) for s in subjects for n in range(5)])
    prompts = answered(monkeypatch, lambda prompt: " B")
    entry = evaluate(tiny(), tokenizer, settings("mmlu"), tmp_path)["benchmarks"]["mmlu"]
    assert (entry["score"], entry["n"], entry["shots"]) == (0.25, 8, 5)
    assert entry["rows"] == [0, 1, 0, 0] * 2  # by subject

    # whatever order lm-eval reports them in
    answer_all = benchmarks.evaluator.evaluate

    def backwards(*arguments: Any, **options: Any) -> dict[str, Any]:
        result = answer_all(*arguments, **options)
        return {"samples": {name: samples[::-1] for name, samples in reversed(result["samples"].items())}}

    monkeypatch.setattr(benchmarks.evaluator, "evaluate", backwards)
    assert evaluate(tiny(), tokenizer, settings("mmlu"), tmp_path)["benchmarks"]["mmlu"] == entry
    for prompt in prompts:
        subject = next(s for s in subjects if f"{s} asked" in prompt)
        assert [f"{subject} shown {n}" in prompt for n in range(5)] == [True] * 5
        assert prompt.count("asked") == 1
        assert prompt.count("Answer:") == 6


def test_gsm8k_reads_the_number_after_eight_shots(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "gsm8k", [{"question": f"Q{n}?", "answer": f"<<6*{n}>> #### {1000 * n:,}"} for n in (1, 2)])
    answers = {"Q1?": " 6 and so. The answer is 1,000.", "Q2?": " It is 2000."}
    prompts = answered(monkeypatch, lambda prompt: answers[prompt[-6:-3]])
    entry = evaluate(tiny(), tokenizer, settings("gsm8k"), tmp_path)["benchmarks"]["gsm8k"]
    assert (entry["score"], entry["n"]) == (0.5, 2)
    assert all(prompt.count("The answer is") == 8 for prompt in prompts)


def test_bbh_reads_what_follows_the_answer_is_and_says_it_stands_in(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"subtask": "snarks", "input": f"Which? {n}\nOptions:\n(A) x\n(B) y", "target": f"({n})"} for n in "AB"]
    write(tmp_path, "bbh", rows)
    prompts = answered(monkeypatch, lambda prompt: "We think. So the answer is (A).")
    entry = evaluate(tiny(), tokenizer, settings("bbh"), tmp_path)["benchmarks"]["bbh"]
    assert (entry["score"], entry["n"]) == (0.5, 2)
    assert repr(entry["rows"]) == "[1, 0]"
    assert all(prompt.count("Let's think step by step") == 4 for prompt in prompts)
    assert entry["stand_in"] is None

    (tmp_path / "bbh.stand_in.txt").write_text("other rows\n")
    assert evaluate(tiny(), tokenizer, settings("bbh"), tmp_path)["benchmarks"]["bbh"]["stand_in"] == "other rows"


# ------------------------------------------------------------- generated answers, by likelihood

BBH = [
    {"subtask": "snarks", "input": "Which?\nOptions:\n(A) x\n(B) y", "target": "(B)"},
    {"subtask": "navigate", "input": "Turn left.\nOptions:\n- Yes\n- No", "target": "No"},
    {"subtask": "geometric_shapes", "input": "M 1,2\nOptions:\n(A) x\n(B) y\n(C) z\n(D) w", "target": "(D)"},
    {"subtask": "boolean_expressions", "input": "not True is", "target": "False"},
    {"subtask": "word_sorting", "input": "Sort: b a", "target": "a b"},
    {"subtask": "snarks", "input": "Which?\nOptions:\n(A) x\n(B) y", "target": "(C)"},
]


def likeliest(monkeypatch: pytest.MonkeyPatch, favored: set[str]) -> list[tuple[str, str]]:
    """Have the model find only these continuations likely; returns the (context, continuation) pairs it gets."""
    asked: list[tuple[str, str]] = []

    def score(self: Any, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        asked.extend(request.args for request in requests)
        return [(-1.0 if request.args[1] in favored else -2.0, False) for request in requests]

    monkeypatch.setattr(LanguageModel, "loglikelihood", score)
    return asked


def test_bbh_by_likelihood_chooses_among_the_options_of_rows_that_have_some(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = likeliest(monkeypatch, {" (B)", " No", " False"})
    write(tmp_path, "bbh", BBH)
    entry = evaluate(tiny(), tokenizer, settings("bbh_likelihood"), tmp_path)["benchmarks"]["bbh_likelihood"]
    assert (entry["n"], entry["left_out"], entry["shots"]) == (4, 2, 3)
    # by subtask, in lm-eval's order: boolean expressions, geometric shapes, navigate, snarks
    assert entry["rows"] == [1, 0, 1, 1]
    assert entry["chance"] == pytest.approx((1 / 2 + 1 / 4 + 1 / 2 + 1 / 2) / 4)
    by_question: dict[str, list[str]] = {}
    for context, continuation in asked:
        assert context.count("\nA: ") == 3  # shots, answered
        assert context.endswith("\nA:")
        assert "step by step" not in context
        by_question.setdefault(context.rpartition("Q: ")[2], []).append(continuation)
    assert list(by_question.values()) == [
        [" True", " False"], [" (A)", " (B)", " (C)", " (D)"], [" Yes", " No"], [" (A)", " (B)"]
    ]  # fmt: skip


def test_bbh_by_likelihood_is_missing_if_every_row_is_open(tokenizer: Any, tmp_path: Path) -> None:
    write(tmp_path, "bbh", [BBH[4]])
    write(tmp_path, "piqa", PIQA[:1])
    result = evaluate(tiny(), tokenizer, settings("piqa", "bbh_likelihood"), tmp_path)
    assert result["missing"] == {"bbh_likelihood": "none of its rows has candidate answers"}


def test_mmlu_by_likelihood_asks_the_generated_versions_questions(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(question: str, answer: int) -> dict[str, Any]:
        return {"subtask": "anatomy", "question": question, "choices": list("wxyz"), "answer": answer}

    write(tmp_path, "mmlu", [row(f"asked {n}", n % 4) for n in range(40)])
    write(tmp_path, "mmlu.shots", [row(f"shown {n}", 0) for n in range(5)])
    prompts = answered(monkeypatch, lambda prompt: " C")
    asked = likeliest(monkeypatch, {" C"})
    chosen = settings("mmlu", "mmlu_likelihood", limits={"mmlu": 12})
    result = evaluate(tiny(), tokenizer, chosen, tmp_path)["benchmarks"]
    assert result["mmlu_likelihood"]["rows"] == result["mmlu"]["rows"]
    assert (result["mmlu_likelihood"]["n"], result["mmlu_likelihood"]["chance"]) == (12, 0.25)
    assert list(dict.fromkeys(context for context, _ in asked)) == prompts
    assert [answer for _, answer in asked[:4]] == [" A", " B", " C", " D"]


HUMANEVAL = [
    {
        "task_id": "HumanEval/900",
        "prompt": "def double(x):\n",
        "test": "def check(candidate):\n    assert candidate(4) == 8\n",
        "entry_point": "double",
    }
]
MBPP_TESTS = [f"assert f({n}) == {n + 1}" for n in range(3)]
MBPP = [{"task_id": 900, "text": "Add one.", "test_setup_code": "", "test_list": MBPP_TESTS}]


@pytest.mark.skipif(sandbox.available() is not None, reason=str(sandbox.available()))
def test_programs_are_run_against_their_tests(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(write(tmp_path, "humaneval", HUMANEVAL * 2), "mbpp", MBPP)
    chosen = settings("humaneval", "mbpp", execute_code=True)
    programs = {"d": "    return 2 * x\n", "Y": "def f(x):\n    return x + 1"}
    prompts = answered(monkeypatch, lambda prompt: programs[prompt[0]])
    result = evaluate(tiny(), tokenizer, chosen, tmp_path)["benchmarks"]
    assert (result["humaneval"]["score"], result["mbpp"]["score"]) == (1, 1)
    assert result["mbpp"]["standard_error"] is None  # one row
    assert prompts[0] == "def double(x):\n"
    assert prompts[-1].count("[DONE]") == 3

    answered(monkeypatch, lambda prompt: "    return x\n")
    result = evaluate(tiny(), tokenizer, chosen, tmp_path)["benchmarks"]
    assert (result["humaneval"]["score"], result["mbpp"]["score"]) == (0, 0)


def test_programs_are_not_run_unasked_or_without_a_sandbox(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "humaneval", HUMANEVAL)
    with pytest.raises(ConfigError) as refused:
        evaluate(tiny(), tokenizer, settings("humaneval", "mbpp"), tmp_path)
    assert "execute_code is false" in str(refused.value)
    assert "no mbpp.jsonl among the benchmark rows" in str(refused.value)
    write(tmp_path, "piqa", PIQA[:2])
    monkeypatch.setattr(benchmarks.sandbox, "available", lambda: "no namespaces here")
    result = evaluate(tiny(), tokenizer, settings("humaneval", "piqa", execute_code=True), tmp_path)
    assert result["missing"] == {"humaneval": "no namespaces here"}


# ------------------------------------------------------------------------------------ the rest


def test_missing_benchmarks_are_reported_with_their_reason(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluate(tiny(), tokenizer, settings("piqa", "agi_eval"), write(tmp_path, "piqa", PIQA[:2]))
    assert set(result["benchmarks"]) == {"piqa"}
    reason = tasks.load("agi_eval").missing
    assert result["missing"] == {"agi_eval": reason}
    assert f"agi_eval: left out: {reason}\n" in capsys.readouterr().out


def test_a_benchmarks_own_limit_is_over_the_common_one(tokenizer: Any, tmp_path: Path) -> None:
    write(write(tmp_path, "piqa", PIQA), "lambada", LAMBADA)
    chosen = settings("piqa", "lambada", limit=5, limits={"piqa": 3})
    result = evaluate(tiny(), tokenizer, chosen, tmp_path)["benchmarks"]
    assert (result["piqa"]["n"], result["lambada"]["n"]) == (3, 5)
    chosen = settings("piqa", "lambada", limits={"piqa": 30})
    result = evaluate(tiny(), tokenizer, chosen, tmp_path)["benchmarks"]
    assert (result["piqa"]["n"], result["lambada"]["n"]) == (24, 48)


def test_a_limit_takes_the_same_rows_every_time_even_over_subtasks() -> None:
    rows = [{"subtask": s, "n": n} for s, size in (("a", 100), ("b", 2), ("c", 50), ("d", 1)) for n in range(size)]
    taken = spread(rows, 23)
    assert taken == spread(list(rows), 23)
    assert [sum(row["subtask"] == s for row in taken) for s in "abcd"] == [10, 2, 10, 1]
    assert [row["n"] for row in taken if row["subtask"] == "c"] == [2, 7, 12, 17, 22, 27, 32, 37, 42, 47]
    assert [row["subtask"] for row in spread(rows, 2)] == ["b", "d"]
    assert spread(rows, None) == rows
    assert spread(rows, 999) == rows


@pytest.mark.parametrize(
    ("name", "row", "prompt", "candidates", "gold"),
    [
        (
            "siqa",
            {"context": "She left.", "question": "Why?", "answerA": "a", "answerB": "b", "answerC": "c", "label": "2"},
            "Q: She left. Why?\nA:", [" a", " b", " c"], 1,
        ),
        (
            "hellaswag",
            {"activity_label": "Mowing", "ctx_a": "A man mows.", "ctx_b": "he", "endings": list("abcd"), "label": 3},
            "Mowing: A man mows. He", [" a", " b", " c", " d"], 3,
        ),
        (
            "copa",
            {"premise": "It rained.", "choice1": "We left.", "choice2": "It dried.", "question": "effect", "label": 0},
            "It rained therefore", [" we left.", " it dried."], 0,
        ),
        (
            "boolq",
            {"question": "is it wet", "answer": True, "passage": "Rain fell."},
            "Rain fell.\nQuestion: is it wet?\nAnswer:", [" no", " yes"], 1,
        ),
    ],
)  # fmt: skip
def test_prompts_and_candidates(
    tmp_path: Path, name: str, row: dict[str, Any], prompt: str, candidates: list[str], gold: int
) -> None:
    (made,) = benchmarks._lm_eval_tasks(tasks.load(name), [row], tmp_path, 256).values()
    made.build_all_requests()
    assert [request.args for request in made.instances] == [(prompt, candidate) for candidate in candidates]
    answers = [(float(i == gold), False) for i in range(len(candidates))]
    assert made.process_results(made.eval_docs[0], answers)["acc"] == 1


def test_rows_of_one_evaluation_are_not_those_of_the_one_before(tokenizer: Any, tmp_path: Path) -> None:
    row = {"activity_label": "Mowing", "ctx_a": "A man mows.", "ctx_b": "he", "endings": list("abcd"), "label": "3"}
    for n in (2, 3):
        rows = [row | {"ctx_b": f"he {n} {place}"} for place in range(n)]
        (made,) = benchmarks._lm_eval_tasks(tasks.load("hellaswag"), rows, tmp_path, 256).values()
        assert [doc["query"] for doc in made.eval_docs] == [f"Mowing: A man mows. He {n} {place}" for place in range(n)]


def test_winogrande_scores_the_text_behind_either_name(tmp_path: Path) -> None:
    row = {"sentence": "Ann hid from Sue as _ was shy.", "option1": "Ann", "option2": "Sue", "answer": "1"}
    (made,) = benchmarks._lm_eval_tasks(tasks.load("winogrande"), [row], tmp_path, 256).values()
    made.build_all_requests()
    assert [request.args for request in made.instances] == [
        ("Ann hid from Sue as Ann", " was shy."),
        ("Ann hid from Sue as Sue", " was shy."),
    ]
    assert made.process_results(made.eval_docs[0], [(1.0, False), (0.0, False)])["acc"] == 1


def test_tydiqa_and_agi_eval_work_on_official_columns(tokenizer: Any, tmp_path: Path) -> None:
    answer = {"id": "english-1", "title": "T", "context": "Oslo.", "question": "Where?", "answers": {"text": ["Oslo"]}}
    write(tmp_path, "tydiqa", [answer, answer | {"id": "korean-1"}])
    question = {"subtask": "sat-en", "query": "Q?", "choices": ["(A) x", "(B) y"]}
    write(tmp_path, "agi_eval", [question | {"gold": [n]} for n in (0, 1)])
    result = evaluate(tiny(), tokenizer, settings("tydiqa", "agi_eval"), tmp_path)["benchmarks"]
    assert result["tydiqa"]["n"] == 1  # English only
    assert (result["agi_eval"]["n"], result["agi_eval"]["score"]) == (2, 0.5)


def test_an_unknown_benchmark_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown benchmark 'arc'"):
        evaluate(tiny(), tokenizer, settings("arc"), tmp_path)
