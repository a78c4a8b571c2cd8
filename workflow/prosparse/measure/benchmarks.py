"""Benchmark scores through lm-eval, following the paper's evaluation section.

``language_model``, this module and ``tasks/*.yaml`` depart from lm-eval's defaults:

- an answer keeps its leading space, which LLaMA's tokenizers drop;
- "candidate of lowest perplexity" compares the mean log-likelihood per token, not the sum;
- rows are in memory, so nothing is downloaded; programs run in ``sandbox``, not in the hub's metric.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import lm_eval.api.task
import lm_eval.utils
import pyarrow
from datasets import Dataset, disable_progress_bars
from lm_eval import evaluator
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prosparse.experiment.measurement import Benchmarks
from prosparse.measure import benchmark_rows, sandbox, tasks
from prosparse.measure.benchmark_rows import Row, evenly
from prosparse.measure.by_likelihood_sum import accuracies
from prosparse.measure.candidates import candidates
from prosparse.measure.finished import FinishedTasks
from prosparse.measure.language_model import LanguageModel
from prosparse.measure.tasks import Task
from prosparse.system.errors import ConfigError
from prosparse.system.provenance import digest

# Hide the progress bars of a hundred subtasks; those of the model's requests stay.
lm_eval.api.task.tqdm = partial(tqdm, disable=True)  # type: ignore[attr-defined]
disable_progress_bars()
# lm-eval compiles its prompt templates again for every row, a fifth of the time with a small model.
lm_eval.utils.env.from_string = cache(lm_eval.utils.env.from_string)  # type: ignore[method-assign]


def unanswerable(benchmarks: Benchmarks, rows_dir: Path) -> dict[str, str]:
    """Reasons why benchmarks cannot be answered here, by name; needs no model.

    Raises:
        ConfigError: an unknown benchmark, or none can be answered.
    """
    missing = benchmark_rows.missing(benchmarks, rows_dir)
    for task in map(tasks.load, benchmarks.tasks):
        if task.answer == "pass_at_1" and task.name not in missing:
            if not benchmarks.execute_code:
                missing[task.name] = "benchmarks.execute_code is false: model-written programs are not run"
            elif reason := sandbox.available():
                missing[task.name] = reason
        if task.candidates is not None and task.name not in missing and not _rows(task, benchmarks, rows_dir)[0]:
            missing[task.name] = "none of its rows has candidate answers"
    if len(missing) == len(set(benchmarks.tasks)):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise ConfigError(f"no benchmark can be answered: {reasons or 'none is asked for'}")
    return missing


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmarks: Benchmarks,
    rows_dir: Path,
    finished: FinishedTasks | None = None,
) -> dict[str, dict[str, Any]]:
    """Score ``model`` on every benchmark that has rows in ``rows_dir``.

    Args:
        finished: saves each benchmark's scores once it is answered, and supplies those of an interrupted evaluation.

    Returns:
        ``benchmarks``: by name, ``score`` and ``standard_error`` (fractions), ``n`` rows, ``rows`` (each one's score,
        in the same order for every model), ``left_out`` (rows without candidates), ``chance``, ``shots``, ``metric``,
        ``task`` (how it differs from lm-eval), ``stand_in`` (text or None), ``truncated`` (fraction of rows with a
        prompt cut to the model's context), for generated answers ``max_new_tokens``, and for multiple choice
        ``lm_eval`` (its own ``acc`` and ``acc_norm``); ``missing``: by name, the reason.

    Raises:
        ConfigError: an unknown benchmark, or none can be answered.
        UserError: a single prompt does not fit in memory.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    missing = unanswerable(benchmarks, rows_dir)
    language_model = LanguageModel(model, tokenizer, benchmarks.batch_tokens)
    scores = {}
    for name in dict.fromkeys(benchmarks.tasks):
        if name in missing:
            print(f"{name}: left out: {missing[name]}", flush=True)
            continue
        task = tasks.load(name)
        asked = {
            "task": task.model_dump(),
            "rows": benchmark_rows.fingerprint(task.rows, rows_dir),
            "limit": task.limit(benchmarks),
        }
        kept = finished.read(name, asked) if finished else None
        scores[name] = _answer(task, benchmarks, rows_dir, language_model) if kept is None else kept
        if finished and kept is None:
            finished.write(name, asked, scores[name])
        before = "" if kept is None else ", finished before"
        print(f"{name}: {scores[name]['score']:.4f}, {scores[name]['n']} rows{before}", flush=True)
    return {"benchmarks": scores, "missing": missing}


def _answer(task: Task, benchmarks: Benchmarks, rows_dir: Path, language_model: LanguageModel) -> dict[str, Any]:
    rows, left_out = _rows(task, benchmarks, rows_dir)
    parts = _lm_eval_tasks(task, rows, rows_dir, language_model.max_length)
    result = evaluator.evaluate(language_model, {"tasks": parts, "groups": {}}, bootstrap_iters=0)
    # by subtask and row: scores of two models are compared row by row
    samples = [sample for part in parts for sample in sorted(result["samples"][part], key=itemgetter("doc_id"))]
    stand_in = benchmark_rows.stand_in(task.rows, rows_dir)
    return {**_entry(task, samples, language_model), "left_out": left_out, "stand_in": stand_in}


def _rows(task: Task, benchmarks: Benchmarks, rows_dir: Path) -> tuple[list[Row], int]:
    """The rows to answer, and how many of those asked for are left out: without candidates to choose from."""
    file, limit = rows_dir / f"{task.rows}.jsonl", task.limit(benchmarks)
    asked = spread(benchmark_rows.read(file), limit) if None not in task.bases() else benchmark_rows.read(file, limit)
    if task.candidates is None:
        return asked, 0
    rows = [row for row in asked if candidates(row, task.candidates.get(row["subtask"], ()))]
    return rows, len(asked) - len(rows)


def spread(rows: Sequence[Row], limit: int | None) -> list[Row]:
    """``limit`` evenly spaced rows in file order, divided equally among the subtasks as far as each has enough.

    The same rows for every model; all rows if ``limit`` is None or large enough.
    """
    if limit is None or limit >= len(rows):
        return list(rows)
    groups: dict[str | None, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.get("subtask"), []).append(row)
    quota = dict.fromkeys(groups, 0)
    left = limit
    while left:
        unfilled = [name for name in groups if quota[name] < len(groups[name])]
        for name in evenly(unfilled, left):
            quota[name] += 1
            left -= 1
    return [row for name, group in groups.items() for row in evenly(group, quota[name])]


def _entry(task: Task, samples: Sequence[Mapping[str, Any]], language_model: LanguageModel) -> dict[str, Any]:
    samples = [sample for sample in samples if sample["filter"] == task.score.filter]
    values = [float(sample[task.score.metric]) for sample in samples]
    contexts = [{arguments[0] for arguments in sample["arguments"]} for sample in samples]
    entry: dict[str, Any] = {
        "score": statistics.fmean(values),
        # standard error of the mean, as lm-eval's mean_stderr; undefined for one row
        "standard_error": statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None,
        "n": len(values),
        "rows": [int(value) if value.is_integer() else value for value in values],
        "chance": statistics.fmean(1 / len(sample["arguments"]) for sample in samples)
        if task.chance is None
        else task.chance,
        "shots": task.shots,
        "metric": task.metric,
        "task": task.protocol,
        "truncated": sum(bool(c & language_model.truncated) for c in contexts) / len(contexts),
    }
    if task.answer == "lowest_perplexity":
        entry["lm_eval"] = accuracies(samples, language_model.answer_tokens)
    if task.max_new_tokens is not None:
        entry["max_new_tokens"] = _new_tokens(task, language_model.max_length)
    return entry


# ---------------------------------------------------------------------------------- the tasks


def _lm_eval_tasks(task: Task, rows: list[Row], rows_dir: Path, context: int) -> dict[str, ConfigurableTask]:
    """One lm-eval task, with a unique name, per subtask that has rows."""
    shots_file = rows_dir / f"{task.rows}.shots.jsonl"
    shots = benchmark_rows.read(shots_file) if shots_file.exists() else []
    made = {}
    for subtask, base in task.bases().items():
        part = [row for row in rows if row.get("subtask") == subtask]
        if part:
            name = task.name if subtask is None else f"{task.name}_{subtask}"
            shown = [row for row in shots if row.get("subtask") == subtask]
            config = _lm_eval_config(task, name, base, part, shown, context)
            if task.candidates is not None:
                config["doc_to_choice"] = partial(candidates, unlisted=task.candidates.get(str(subtask), ()))
            made[name] = ConfigurableTask(config=config)
    return made


def _lm_eval_config(
    task: Task, name: str, base: Path, rows: list[Row], shots: list[Row], context: int
) -> dict[str, Any]:
    runs_programs = task.answer == "pass_at_1"
    # lm-eval's code benchmarks fetch a metric from the hub when their functions are imported
    config = load_yaml(base, resolve_func=not runs_programs) | task.overrides
    splits = {
        # a given fingerprint avoids the slow default; `map` caches by it
        split: Dataset(pyarrow.Table.from_pylist(part), fingerprint=digest(part))
        for split, part in (("test", rows), ("shots", shots))
        if part
    }
    config |= {
        "task": name,
        "custom_dataset": lambda **_: splits,
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
        "fewshot_split": "shots" if shots else None,
        "num_fewshot": task.shots,
    }
    if fixed := tasks.fixed_shots(base):
        config["fewshot_config"] = config["fewshot_config"] | {"samples": fixed}
    available = len(shots) or len(fixed)
    if available < task.shots:
        raise ValueError(f"{name}: {task.shots} shots are needed, {available} are available")
    if task.max_new_tokens is not None:
        config["generation_kwargs"] = config["generation_kwargs"] | {"max_gen_toks": _new_tokens(task, context)}
    if runs_programs:
        program = PROGRAMS[task.name]
        config |= {
            "unsafe_code": False,  # lm-eval runs nothing itself
            "filter_list": None,
            "metric_list": [{"metric": "pass_at_1", "aggregation": "mean", "higher_is_better": True}],
            "process_results": lambda row, answers: {"pass_at_1": sandbox.passes(program(row, answers[0]))},
        }
    return config


def _new_tokens(task: Task, context: int) -> int:
    """Most tokens per answer: at most an eighth of the context, so that a short context keeps its prompt."""
    assert task.max_new_tokens is not None
    return min(task.max_new_tokens, max(1, context // 8))


def _humaneval_program(row: Row, answer: str) -> str:
    return f"{row['prompt']}{answer}\n{row['test']}\ncheck({row['entry_point']})\n"


def _mbpp_program(row: Row, answer: str) -> str:
    return "\n".join([row.get("test_setup_code") or "", answer, *row["test_list"]])


PROGRAMS: dict[str, Callable[[Row, str], str]] = {"humaneval": _humaneval_program, "mbpp": _mbpp_program}
