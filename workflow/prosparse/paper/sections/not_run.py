"""What the experiment leaves out."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.measurement import Benchmarks
from prosparse.paper.results import accelerated, operators
from prosparse.paper.results.reader import MissingResult, Results
from prosparse.published.tables import BENCHMARKS, LABELS, row_keys


def not_run(results: Results, absent: dict[str, int]) -> list[str]:
    experiment = results.experiment
    unfilled = [row.replace("*", "\\*") for row in row_keys() if row not in experiment.rows]
    lines = [*_acceleration_not_run(experiment), *_operators_not_run(results)]
    if unfilled:
        lines.append(f"- Rows of the paper that no run stands for: {'; '.join(unfilled)}.")
    tasks = set(experiment.benchmarks.tasks)
    gone = sorted({LABELS[b] for b in BENCHMARKS if b not in tasks})
    if gone:
        lines.append(f"- Benchmarks that the experiment leaves out: {', '.join(gone)}.")
    lines += _benchmarks_without_rows(results)
    for kind, number in absent.items():
        if number:
            lines.append(f"- {number} result{'s' if number > 1 else ''} of {kind} that the tables need: not made yet.")
    lines += _rows_not_run(experiment.benchmarks)
    if not experiment.benchmarks.execute_code:
        lines.append("- Model-written programs (HumanEval, MBPP) were not executed.")
    return lines


def _benchmarks_without_rows(results: Results) -> list[str]:
    """Say which of the experiment's benchmarks have no rows to answer."""
    experiment = results.experiment
    try:
        reasons = results.benchmarks(*experiment.pair(next(iter(experiment.rows.values())))).missing
    except (MissingResult, StopIteration):  # already counted as missing
        return []
    return [f"- {LABELS[name]}: {reason}." for name, reason in reasons.items() if name in experiment.benchmarks.tasks]


def _rows_not_run(benchmarks: Benchmarks) -> list[str]:
    limits = [f"{LABELS[name]} {limit}" for name, limit in benchmarks.limits.items()]
    if benchmarks.limit is not None:
        others = f" ({', '.join(limits)})" if limits else ""
        return [f"- Benchmark rows beyond {benchmarks.limit} per benchmark{others}. The rows used are evenly spaced."]
    return (
        [f"- Benchmark rows beyond these limits: {', '.join(limits)}. The rows used are evenly spaced."]
        if limits
        else []
    )


def _acceleration_not_run(experiment: Experiment) -> list[str]:
    reasons = {
        "activation recall, predicted sparsity": accelerated.missing_predictors(experiment),
        "decoding speed": accelerated.missing_decoding(experiment),
    }
    return [
        f"- Table 2, left half ({what}): {reason}, so claim 8 has no verdict."
        for what, reason in reasons.items()
        if reason is not None
    ]


def _operators_not_run(results: Results) -> list[str]:
    try:
        timings = operators.read(results)
    except MissingResult:  # already counted as missing
        return []
    if timings is None:
        return ["- Table 2, right half (operator times): the experiment times no operators, so claim 9 has no verdict."]
    if timings.on_gpu:
        return []
    return ["- Table 2, right half, on a GPU: our GPU kernels compile but have not been run. The times are from a CPU."]
