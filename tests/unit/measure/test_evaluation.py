"""An evaluation that is stopped and called again, and what is refused before a model is opened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tokenizer_kinds import KINDS, tiny_for
from transformers import AutoModelForCausalLM

from prosparse.__main__ import main
from prosparse.experiment.activation import Activation
from prosparse.experiment.measurement import Benchmarks
from prosparse.measure import benchmarks, evaluation
from prosparse.measure.evaluation import Evaluation, run
from prosparse.system.errors import ConfigError

torch.set_num_threads(1)
TASKS = ["piqa", "lambada", "boolq"]


@pytest.fixture
def wanted(tmp_path: Path) -> Evaluation:
    """Three benchmarks of a few rows, and a random model."""
    tokenizer = KINDS["byte_level_bos"]()
    model = tiny_for(tokenizer, seed=1)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = tmp_path / "rows"
    rows.mkdir()
    content: dict[str, list[dict[str, Any]]] = {
        "piqa": [{"goal": f"open {n}", "sol1": "push", "sol2": "pull it", "label": n % 2} for n in range(6)],
        "lambada": [{"text": f"{n} words and the last {word}"} for n, word in enumerate("abcdef")],
        "boolq": [{"question": f"is it {n}", "answer": n > 2, "passage": "Rain fell."} for n in range(6)],
    }
    for name, held in content.items():
        (rows / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    return Evaluation(
        checkpoint=tmp_path / "model",
        benchmarks=Benchmarks(rows="files", directory=str(rows), tasks=TASKS, batch_tokens=200),
        output=tmp_path / "scores" / "relu-0.5.json",
        rows=rows,
        names={"run": "r"},
    )


def scores(wanted: Evaluation) -> dict[str, Any]:
    held = json.loads(wanted.output.read_text())
    held.pop("provenance")
    return held


def answered(monkeypatch: pytest.MonkeyPatch, stop_at: str | None = None) -> list[str]:
    """Names of the benchmarks that a model answers from now on; stopped at one of them."""
    names: list[str] = []
    answer = benchmarks._answer

    def record(task: Any, *rest: Any) -> dict[str, Any]:
        if task.name == stop_at:
            raise KeyboardInterrupt
        names.append(task.name)
        return answer(task, *rest)

    monkeypatch.setattr(benchmarks, "_answer", record)
    return names


def stopped(monkeypatch: pytest.MonkeyPatch, wanted: Evaluation, at: str = "boolq") -> None:
    with monkeypatch.context() as patch:
        answered(patch, stop_at=at)
        with pytest.raises(KeyboardInterrupt):
            run(wanted)
    assert not wanted.output.exists()


@pytest.mark.parametrize("at", TASKS)
def test_a_stopped_evaluation_continues_to_the_same_scores(
    wanted: Evaluation, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    run(replace(wanted, output=wanted.output.with_name("whole.json")))
    stopped(monkeypatch, wanted, at)
    names = answered(monkeypatch)
    run(wanted)
    assert names == TASKS[TASKS.index(at) :]
    assert scores(wanted) == scores(replace(wanted, output=wanted.output.with_name("whole.json")))
    assert sorted(path.name for path in wanted.output.parent.iterdir()) == ["relu-0.5.json", "whole.json"]


def other_weights(wanted: Evaluation) -> Evaluation:
    model = AutoModelForCausalLM.from_pretrained(wanted.checkpoint)
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] += 2**-10
    model.save_pretrained(wanted.checkpoint)
    return wanted


def other_tokenizer(wanted: Evaluation) -> Evaluation:
    path = Path(wanted.checkpoint) / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "add_bos_token": False}))
    return wanted


def other_configuration(wanted: Evaluation) -> Evaluation:
    path = Path(wanted.checkpoint) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 1e-3}))
    return wanted


def other_rows(wanted: Evaluation) -> Evaluation:
    assert wanted.rows is not None
    for path in wanted.rows.glob("*.jsonl"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    return wanted


def damaged_files(wanted: Evaluation) -> Evaluation:
    for path in wanted.output.parent.glob(".*.finished/*.json"):
        path.write_text(path.read_text()[:-40])
    return wanted


OTHERS = {
    "weights": other_weights,
    "tokenizer": other_tokenizer,
    "configuration": other_configuration,
    "activation": lambda wanted: replace(wanted, activation=Activation(name="relu")),
    "precision": lambda wanted: replace(wanted, precision="bfloat16"),
    "rows": other_rows,
    "limit": lambda wanted: replace(wanted, benchmarks=wanted.benchmarks.model_copy(update={"limit": 3})),
    "not readable": damaged_files,
}


@pytest.mark.parametrize("what", OTHERS)
def test_scores_of_another_origin_are_not_taken(
    wanted: Evaluation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    stopped(monkeypatch, wanted)
    changed = OTHERS[what](wanted)
    names = answered(monkeypatch)
    capsys.readouterr()
    run(changed)
    assert names == TASKS
    assert what in capsys.readouterr().out


def test_scores_by_another_code_or_with_other_predictors_are_not_taken(
    wanted: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(monkeypatch, wanted)
    origin = evaluation._origin
    monkeypatch.setattr(evaluation, "_origin", lambda *arguments: {**origin(*arguments), "code": "other"})
    names = answered(monkeypatch)
    run(wanted)
    assert names == TASKS


def test_a_batchs_size_is_no_other_origin(wanted: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what ran out of memory is not lost."""
    stopped(monkeypatch, wanted)
    names = answered(monkeypatch)
    run(replace(wanted, benchmarks=wanted.benchmarks.model_copy(update={"batch_tokens": 100})))
    assert names == ["boolq"]


# ------------------------------------------------------------------- before a model is opened


def command(wanted: Evaluation, *tasks: str) -> list[str]:
    chosen = [word for task in tasks for word in ("--task", task)]
    return ["evaluate", str(wanted.checkpoint), *chosen, "--rows", str(wanted.rows), "--output", str(wanted.output)]


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (["arc"], "unknown benchmark 'arc'"),
        (["gsm8k"], "gsm8k: no gsm8k.jsonl among the benchmark rows"),
        (["piqa", "gsm8k"], "gsm8k: no gsm8k.jsonl among the benchmark rows"),
        (["humaneval"], "execute_code is false"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    wanted: Evaluation,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tasks: list[str],
    said: str,
) -> None:
    assert wanted.rows is not None
    (wanted.rows / "humaneval.jsonl").write_text("{}\n")
    monkeypatch.setattr(evaluation, "load_to_measure", lambda *_: pytest.fail("a model was opened"))
    assert main(command(wanted, *tasks)) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not wanted.output.exists()


def test_a_folder_without_a_tokenizer_is_refused_before_rows_are_fetched(
    wanted: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in Path(wanted.checkpoint).glob("tokenizer*"):
        path.unlink()
    monkeypatch.setattr(evaluation.benchmark_rows, "extract", lambda *_: pytest.fail("rows were fetched"))
    with pytest.raises(ConfigError, match=r"model has no tokenizer"):
        run(replace(wanted, rows=None))


def test_an_output_that_is_a_directory_is_refused(wanted: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "load_to_measure", lambda *_: pytest.fail("a model was opened"))
    wanted.output.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"relu-0\.5\.json is a directory"):
        run(wanted)
