"""What an experiment would cost, target by target, beside what the paper says its models cost."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from prosparse import plan, preflight, runs
from prosparse.config import Experiment
from prosparse.files import write_json, write_text
from prosparse.measure import tasks
from prosparse.measure.tasks import Task
from prosparse.paper import page
from prosparse.paper.claims import registry as claims
from prosparse.paper.figures import registry as figures
from prosparse.paper.release import card
from prosparse.paper.release import folder as release
from prosparse.paper.results import accelerated, operators
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.tables import registry as tables
from prosparse.plan import Job, Remote, Total
from prosparse.preflight import Answer
from prosparse.published.shapes import published_shapes
from prosparse.published.tables import published_table, published_tokens

FILE = "plan"
UNKNOWN = "unknown"
NONE = "–"
WIDTH = 118

#: Targets that are the page, and so everything.
WHOLE = frozenset({"all", "publish", "README"})

# ---------------------------------------------------------------------------------- what is needed


def targets(experiment: Experiment) -> dict[str, Needs]:
    """What each named target of the workflow is made from."""
    found = {name: tables.needs(name, experiment) for name in tables.TABLES}
    found |= {name: figures.needs(name, experiment) for name in figures.FIGURES}
    for name, members in (("tables", tables.TABLES), ("figures", figures.FIGURES)):
        found[name] = reduce(or_, (found[member] for member in members))
    found["claims"] = claims.needs(experiment)
    found["release"] = reduce(or_, (card.needs(experiment, pair) for pair in release.pairs(experiment)), Needs())
    found |= dict.fromkeys(WHOLE, page.needs(experiment))
    found["plan"] = Needs()
    return found


def requested(experiment: Experiment, names: Iterable[str]) -> list[Job]:
    """The jobs of targets as they are given to Snakemake: names, or files that belong to one.

    Other files say nothing; no target is all.
    """
    known, directory = targets(experiment), Path("results") / experiment.experiment
    known |= {f"tables/{name}": known[name] for name in tables.TABLES}
    known |= {f"figures/{name}": known[name] for name in figures.FIGURES}
    for pair in release.pairs(experiment):
        known |= {f"release/{pair}/{name}": card.needs(experiment, pair) for name in ("README", "config")}
    needs, whole = Needs(), False
    for name in list(names) or ["all"]:
        if (path := Path(name)).is_relative_to(directory):
            name = str(path.relative_to(directory)).removesuffix(path.suffix)
        needs |= known.get(name, Needs())
        whole |= name in WHOLE
    return jobs(experiment, directory, needs, whole)


def jobs(experiment: Experiment, directory: Path, needs: Needs, whole: bool = True) -> list[Job]:
    """Every job behind ``needs``, in the order of the workflow; ``whole``: and those that only the page needs."""
    results = Results(directory, experiment)

    def output(path: Path) -> str:
        return str(path.relative_to(directory))

    predicted = {experiment.pair(pair) for pair in accelerated.predicted_pairs(experiment).values()}
    predictors = needs.prediction | needs.predicted_benchmarks
    if needs.decoding:
        predictors = predictors | {(run, str(activation)) for run, activation in predicted}
    checkpoints: set[tuple[str, int | None]] = set(needs.stages)
    measured = {run for run, _ in needs.benchmarks | predictors} | needs.sparsity
    if needs.decoding:
        measured |= {experiment.pair(pair)[0] for pair in accelerated.pairs(experiment).values()}
    if needs.operators:
        measured |= {experiment.pair(pair)[0] for pair in operators.trained(experiment).values()}
    speed_run = runs.speed_run(experiment) if whole else None
    if speed_run is not None:
        measured.add(speed_run)
    order = list(experiment.runs)
    checkpoints |= {(run, None) for run in measured}
    stages = plan.stages_behind(experiment, sorted(checkpoints, key=lambda c: (order.index(c[0]), c[1] or 0)))
    found = plan.token_jobs(experiment, stages, directory)
    for seed in experiment.seeds:
        found += [plan.stage_job(experiment, run, stage, seed, directory) for run, stage in stages]
        found += [
            plan.sparsity_job(experiment, run, seed, output(results.sparsity_file(run, seed)), directory)
            for run in sorted(needs.sparsity)
        ]
        requests, partial = benchmark_requests(experiment, directory)
        found += [
            plan.benchmarks_job(experiment, target, pair, seed, output(file(*pair, seed)), requests, partial, directory)
            for target, pairs, file in (
                ("benchmarks", needs.benchmarks, results.benchmarks_file),
                ("predicted benchmarks", needs.predicted_benchmarks, results.predicted_benchmarks_file),
            )
            for pair in sorted(pairs)
        ]
        found += [
            plan.predictors_job(experiment, pair, seed, output(results.predictors_file(*pair, seed)), directory)
            for pair in sorted(predictors)
        ]
        found += [
            plan.prediction_job(experiment, pair, seed, output(results.prediction_file(*pair, seed)), directory)
            for pair in sorted(needs.prediction)
        ]
    timings = [("decoding", results.decoding_file())] if needs.decoding else []
    timings += [("decoding", results.decoding_file(shape)) for shape in sorted(needs.decoding_shapes)]
    timings += [("operators", results.operators_file)] if needs.operators else []
    timings += [("speed", results.speed_file)] if speed_run is not None else []
    found += [Job(target, path.stem, output(path), timed=True) for target, path in timings]
    return plan.marked(found, directory)


def benchmark_requests(experiment: Experiment, directory: Path) -> tuple[int, bool]:
    """(texts that a pair answers, whether a benchmark is left out whose rows nobody has counted).

    A row is as many texts as it has candidates, or the one that is gone on from.
    """
    counted = directory / "data" / "benchmark_rows" / "rows.json"
    rows = json.loads(counted.read_text(encoding="utf-8"))["rows"] if counted.exists() else official_rows()
    total, partial = 0, False
    for name in experiment.benchmarks.tasks:
        task = tasks.load(name)
        if (counted.exists() and name not in rows) or (experiment.benchmarks.rows == "packages" and task.missing):
            continue  # no rows, so not answered
        limit = experiment.benchmarks.limits.get(name, experiment.benchmarks.limit)
        amounts = [amount for amount in (rows.get(name), limit) if amount is not None]
        candidates = round(1 / task.chance) if task.answer == "lowest_perplexity" and task.chance else 1
        total += min(amounts, default=0) * candidates
        partial |= not amounts
    return total, partial


def official_rows() -> dict[str, int]:
    """Rows of the official splits that the benchmarks' task files name, where we know them."""
    return {row["benchmark"]: int(row["rows"]) for row in published_table("benchmark_rows")}


def remotes(experiment: Experiment, directory: Path, listed: list[Job]) -> list[Remote]:
    """What the jobs fetch, benchmarks included."""
    found = plan.remotes(experiment, listed, directory)
    if experiment.benchmarks.rows == "hub":
        # corpora are read beside the rows, to leave out what is of a benchmark
        waiting = any(("benchmarks" in job.target or job.target == "data") and not job.done for job in listed)
        needed = waiting and not (directory / "data" / "benchmark_rows" / "rows.json").exists()
        names = {first_path(tasks.load(name)) for name in experiment.benchmarks.tasks}
        found += [Remote("benchmark", name, None, None, None, needed, "benchmarks.tasks") for name in sorted(names)]
    return found


def first_path(task: Task) -> str:
    """Of the data sets that a benchmark's rows are in: some have one for each subtask."""
    return task.hub.path.format(subtask=next(iter(task.bases())))


def refusals(experiment: Experiment, names: Iterable[str], local: bool) -> list[str]:
    """Why the requested targets cannot be made, one sentence each; the hub is asked where it answers."""
    directory = Path("results") / experiment.experiment
    listed = requested(experiment, names)
    fetched = [remote for remote in remotes(experiment, directory, listed) if remote.needed]
    found = preflight.refusals(experiment, directory, listed, fetched, local)
    return found + preflight.refused_by_hub(fetched, preflight.ask_hub(fetched))


# ------------------------------------------------------------------------------ the paper's own cost


def papers(experiment: Experiment, listed: list[Job]) -> list[dict[str, Any]]:
    """What the paper's models took by its own words, the utilization that implies, and ours beside it."""
    found = []
    for row in published_table("hardware"):
        scale, gpus = row["model"], int(row["gpus"])
        tokens = float(published_tokens()[f"ProSparse-{scale}"]) * 1e9
        flops = tokens * (published_shapes()[scale].training_flops(4096) or 0)
        days = [float(row["days_at_least"]), float(row["days_at_most"])]
        rate = float(row["bfloat16_teraflops"])
        names = experiment.stages.get(scale, [])  # type: ignore[call-overload]
        stages = set(plan.stages_behind(experiment, [(name, None) for name in names]))
        # the model's own stages, not those of what it starts from
        owners = {runs.owner(experiment, name, index) for name in names for index in range(_stages(experiment, name))}
        ours = Total.of(job for job in listed if (job.run, job.stage) in stages and job.run in owners)
        found.append(
            {
                "model": f"LLaMA2-{scale}",
                "gpu": row["gpu"],
                "gpus": gpus,
                "days": days,
                "gpu_hours": [24 * gpus * each for each in days],
                "tokens": tokens,
                "flops": flops,
                "implied_utilization": [plan.utilization(flops, gpus, rate, each) for each in days],
                "our_runs": names,
                "our_tokens": ours.tokens if names else None,
                "our_gpu_hours": plan.gpu_hours(experiment, ours.flops) if names and not ours.unknown else None,
            }
        )
    return found


def _stages(experiment: Experiment, run: str) -> int:
    return len(experiment.runs[run].stages)


def _paper_lines(entries: list[dict[str, Any]]) -> list[str]:
    lines = []
    for entry in entries:
        implied = _range([100 * each for each in entry["implied_utilization"]], ".0f")
        text = (
            f"{entry['model']}: {entry['gpus']} x {entry['gpu']}, about {_range(entry['days'], 'g')} days = "
            f"{_range(entry['gpu_hours'], ',.0f')} GPU-hours for {_count(entry['tokens'])} tokens. These are "
            f"{entry['flops']:.2e} FLOPs: by this count the GPUs reached {implied} % of their peak."
        )
        if entry["our_tokens"]:
            text += f" Here: {', '.join(entry['our_runs'])}, {_count(entry['our_tokens'])} tokens"
            if entry["our_gpu_hours"] is not None:
                times = _range([entry["our_gpu_hours"] / each for each in entry["gpu_hours"]], ".3g")
                text += f", {_hours(entry['our_gpu_hours'])} GPU-hours: {times} times as many"
            text += "."
        lines += _item(text)
    return lines


def _range(values: list[float], form: str) -> str:
    return "-".join(dict.fromkeys(format(value, form) for value in sorted(values)))


# ------------------------------------------------------------------------------------- the page


def write(experiment: Experiment, directory: Path, ask: bool = True) -> str:
    """Writes ``directory/plan.md`` and ``.json``; returns the text.

    Args:
        ask: ask the hub for revisions, licences and access, unless HF_HUB_OFFLINE; nothing is fetched.
    """
    known = targets(experiment)
    listed = jobs(experiment, directory, known["all"])
    fetched = remotes(experiment, directory, listed)
    answers = preflight.ask_hub(fetched) if ask else None
    refused = preflight.refusals(experiment, directory, listed, fetched, local=False)
    refused += preflight.refused_by_hub(fetched, answers)
    alone = {
        name: Total.of(job for job in jobs(experiment, directory, needs, name == "all") if not job.done)
        for name, needs in known.items()
        if name not in (WHOLE - {"all"}) | {"plan", "tables", "figures"}
    }
    beside = papers(experiment, listed)
    text = _render(experiment, directory, listed, alone, beside, fetched, answers, refused)
    write_text(directory / f"{FILE}.md", text)
    write_json(
        directory / f"{FILE}.json",
        {
            "experiment": experiment.experiment,
            "hardware": experiment.hardware.model_dump() if experiment.hardware else None,
            "jobs": [{**asdict(job), "gpu_hours": _job_hours(experiment, job)} for job in listed],
            "to_do": {name: _total_json(experiment, total) for name, total in alone.items()},
            "paper": beside,
            "downloads": [
                {**asdict(remote), "hub": answer.text if (answer := _answer(remote, answers)) else None}
                for remote in fetched
            ],
            "free_disk": preflight.free_disk(directory),
            "would_be_refused": refused,
        },
    )
    return text


def _job_hours(experiment: Experiment, job: Job) -> float | None:
    return None if job.flops is None or job.timed else plan.gpu_hours(experiment, job.flops)


def _total_json(experiment: Experiment, total: Total) -> dict[str, Any]:
    return {
        **asdict(total),
        "unknown": sorted(total.unknown),
        "gpu_hours": plan.gpu_hours(experiment, total.flops),
    }


def _render(
    experiment: Experiment,
    directory: Path,
    listed: list[Job],
    alone: dict[str, Total],
    beside: list[dict[str, Any]],
    fetched: list[Remote],
    answers: dict[tuple[str, str], Answer] | None,
    refused: list[str],
) -> str:
    lines = [f"# What the experiment {experiment.experiment} costs", "", *_assumptions(experiment), ""]
    lines += _cost_table(experiment, listed)
    lines += ["", "## One target alone, what is still to do", "", *_target_table(experiment, alone)]
    lines += ["", "## Batches of the benchmarks", "", *_batch_lines(experiment, listed)]
    lines += ["", "## The paper's own training", "", *_paper_lines(beside)]
    lines += ["", "## What is fetched", "", *_download_table(fetched, answers)]
    free = preflight.free_disk(directory)
    lines += ["", "## Before the first job", "", f"Free disk: {free / 1e9:,.0f} GB.", ""]
    lines += [line for reason in refused for line in _item(f"would be refused: {reason}")]
    doubted = preflight.doubts(experiment, directory, listed)
    lines += [line for reason in doubted for line in _item(f"may not fit: {reason}")]
    lines += [] if refused or doubted else ["Nothing known here stands in the way."]
    lines += [
        "",
        "## Next",
        "",
        "- `snakemake -n TARGET` lists the jobs of a target and checks access and disk; the same without -n runs them.",
        *_item(f"every job with its numbers: {FILE}.json; this text: {FILE}.md; both in {directory}"),
        "- where the numbers come from: workflow/prosparse/plan.py",
    ]
    return "\n".join(lines) + "\n"


def _assumptions(experiment: Experiment) -> list[str]:
    hardware = experiment.hardware
    lines = [
        "FLOPs: 6 a weight and token in training, 2 in measuring, and attention's (no causal half). Memory and disk",
        "are estimates, of corpora at most. Benchmarks at most: every request fills the context. Jobs done have their",
        "output already. `+?`: and what nobody knows yet.",
    ]
    if hardware is None:
        return [
            *lines,
            "GPU-hours: give the experiment `hardware:` (gpu, gpus, memory_gigabytes, teraflops, utilization).",
        ]
    return [
        *lines,
        f"GPU-hours: {hardware.gpus} x {hardware.gpu} a run, {hardware.teraflops:g} TFLOP/s each, of which "
        f"{100 * hardware.utilization:g} % are reached (MFU, as `hardware:` states it).",
        "MFU leaves out what activation checkpointing computes again: lower it where that is on. Measurements are",
        "reckoned alike, though text that is written a token at a time reaches far less.",
    ]


def _cost_table(experiment: Experiment, listed: list[Job]) -> list[str]:
    with_hours = experiment.hardware is not None
    header = ["Target", "Jobs done", "Tokens", "FLOPs", "recomputed"]
    header += ["GPU-hours", "days"] if with_hours else []
    header += ["GB/GPU" if with_hours else "GB memory", "GB disk"]
    rows = []
    for name in dict.fromkeys(job.target for job in listed):
        group = [job for job in listed if job.target == name]
        rows.append([name, *_cells(experiment, group, is_run=name in experiment.runs)])
    rows.append(["IN ALL", *_cells(experiment, listed, is_run=True)])
    rows.append(["STILL TO DO", *_cells(experiment, [job for job in listed if not job.done], is_run=True)])
    return _aligned(header, rows)


def _cells(experiment: Experiment, group: list[Job], is_run: bool) -> list[str]:
    total = Total.of(group)
    kept = "stored" if all(job.target == "data" for job in group) else "tokens"
    if total.timed:
        counted = ["timings", "", ""]
    else:
        counted = [
            _known(total, kept, _count(getattr(total, kept))),
            _known(total, "flops", _flops(total.flops)),
            _known(total, "recomputed", _flops(total.recomputed)),
        ]
    cells = [f"{total.done}/{total.jobs}", *counted]
    if experiment.hardware is not None:
        hours = plan.gpu_hours(experiment, total.flops) or 0.0
        cells += ["", ""] if total.timed else [_known(total, "flops", _hours(hours) if hours else NONE)]
        if not total.timed:
            cells.append(f"{hours / 24 / experiment.hardware.gpus:,.1f}" if is_run and hours else NONE)
    cells.append(NONE if total.memory is None else _gigabytes(total.memory))
    cells.append(_known(total, "disk", _gigabytes(total.disk) if total.disk else NONE))
    return cells


def _known(total: Total, key: str, text: str) -> str:
    """The sum, or how much of it is known."""
    if key not in total.unknown:
        return text
    return UNKNOWN if getattr(total, key) == 0 else f"{text}+?"


def _target_table(experiment: Experiment, alone: dict[str, Total]) -> list[str]:
    header = ["Target", "Jobs", "Tokens", "FLOPs", *(["GPU-hours"] if experiment.hardware else []), "GB disk"]
    rows, idle = [], [name for name, total in alone.items() if not total.jobs]
    for name, total in alone.items():
        if not total.jobs:
            continue
        row = [name, str(total.jobs), _known(total, "tokens", _count(total.tokens))]
        row.append(_known(total, "flops", _flops(total.flops)))
        if experiment.hardware is not None:
            row.append(_known(total, "flops", _hours(plan.gpu_hours(experiment, total.flops) or 0.0)))
        rows.append([*row, _known(total, "disk", _gigabytes(total.disk) if total.disk else NONE)])
    lines = _aligned(header, rows) if rows else []
    return [*lines, "", *_item(f"none of these jobs: {', '.join(idle)}")] if idle else lines


def _batch_lines(experiment: Experiment, listed: list[Job]) -> list[str]:
    """Tokens per batch and what they take, of each run that answers benchmarks."""
    lines = []
    for run, memory in {job.run: job.answering for job in listed if job.answering is not None}.items():
        tokens, wanted = memory.batch_tokens, experiment.benchmarks.batch_tokens
        fewer = "" if tokens == wanted else f" (the {wanted:,} of benchmarks.batch_tokens do not fit)"
        lines += _item(
            f"{run}: {tokens:,} tokens per batch{fewer}, at most {_gigabytes(memory.kv_cache)} GB of KV cache beside "
            f"{_gigabytes(memory.weights)} GB of weights"
        )
    return lines or ["None, or of models whose shape is not known yet."]


def _download_table(fetched: list[Remote], answers: dict[tuple[str, str], Answer] | None) -> list[str]:
    if not fetched:
        return ["Nothing."]
    lines = []
    for remote in fetched:
        size = "" if remote.size is None else f", about {remote.size / 1e9:,.1f} GB"
        revision = f" at {remote.revision}" if remote.revision else ""
        done = "" if remote.needed else " (not needed any more)"
        answer = _answer(remote, answers)
        terms = _terms(remote) if answer is None else answer.text
        lines += _item(f"{remote.kind} {remote.name}{revision}{size}{done}: {terms}")
    needed = [remote for remote in fetched if remote.needed]
    known, unknown = sum(remote.size or 0 for remote in needed), sum(remote.size is None for remote in needed)
    lines += _item(
        f"STILL TO FETCH: about {known / 1e9:,.1f} GB" + (f", and {unknown} of unknown size" if unknown else "")
    )
    if answers is None and any(remote.kind != "package" for remote in fetched):
        lines += ["", "Offline, or the hub does not answer: revisions and access were not checked there."]
    if any(remote.size is None and remote.kind == "data set" for remote in fetched):
        lines.append("A data set without a size is read whole: give its corpus a `character_limit` to read less.")
    return lines


def _answer(remote: Remote, answers: dict[tuple[str, str], Answer] | None) -> Answer | None:
    return (answers or {}).get((remote.kind, remote.name))


def _terms(remote: Remote) -> str:
    """Where the licence stands, and what must be accepted."""
    if remote.gated:
        return f"gated, needs an access token; terms: {remote.gated}"
    if remote.kind == "package":
        return f"licence: https://pypi.org/project/{remote.name}/{remote.revision}/"
    place = "datasets/" if remote.kind in ("data set", "benchmark") else ""
    return f"licence: https://huggingface.co/{place}{remote.name}"


# ------------------------------------------------------------------------------------- numbers


def _count(number: float) -> str:
    """Three significant digits with K, M, B, T."""
    if number < 1000:
        return f"{number:.0f}" if number else NONE
    power = min(4, int(math.log10(number)) // 3)
    return f"{number / 1000**power:.4g} {' KMBT'[power]}"


def _flops(number: float) -> str:
    return f"{number:.2e}" if number else NONE


def _hours(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _gigabytes(number: float) -> str:
    gigabytes = number / 1e9
    if gigabytes < 0.1:
        return "< 0.1"
    return f"{gigabytes:,.0f}" if gigabytes >= 100 else f"{gigabytes:.1f}"


def _item(text: str) -> list[str]:
    """A list item no wider than a terminal."""
    return textwrap.wrap(
        text, WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table whose columns line up in a terminal too; all but the first are right-aligned."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        first, *rest = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *rest])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(header), line(rule), *map(line, rows)]
