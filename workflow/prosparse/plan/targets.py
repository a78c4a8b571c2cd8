"""The workflow's targets: what each needs, its jobs, and what would stop them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import reduce
from operator import or_
from pathlib import Path

from prosparse.experiment import lineage
from prosparse.experiment.experiment import Experiment
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
from prosparse.plan.downloads import Remote, remotes
from prosparse.plan.hub import ask_hub, refused_by_hub
from prosparse.plan.jobs import (
    Job,
    benchmarks_job,
    marked,
    prediction_job,
    predictors_job,
    sparsity_job,
    stage_job,
    stages_behind,
    token_jobs,
)
from prosparse.plan.preflight import refusals
from prosparse.published.tables import published_table

#: Targets that include the page and hence everything.
WHOLE = frozenset({"all", "publish", "README"})


def targets(experiment: Experiment) -> dict[str, Needs]:
    """Return what each named target of the workflow needs."""
    found = {name: tables.needs(name, experiment) for name in tables.TABLES}
    found |= {name: figures.needs(name, experiment) for name in figures.FIGURES}
    for name, members in (("tables", tables.TABLES), ("figures", figures.FIGURES)):
        found[name] = reduce(or_, (found[member] for member in members))
    found["claims"] = claims.needs(experiment)
    found["release"] = reduce(or_, (card.needs(experiment, pair) for pair in release.pairs(experiment)), Needs())
    found["bases"] = Needs.of_chains(experiment, experiment.bases)
    found |= dict.fromkeys(WHOLE, page.needs(experiment))
    found["plan"] = Needs()
    return found


def requested(experiment: Experiment, names: Iterable[str]) -> list[Job]:
    """Return the jobs of targets as given to Snakemake: target names, or files that belong to one.

    Other files are ignored; no targets means ``all``.
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
    return jobs_behind(experiment, directory, needs, whole)


def jobs_behind(experiment: Experiment, directory: Path, needs: Needs, whole: bool = True) -> list[Job]:
    """Return every job behind ``needs``, in workflow order; ``whole`` adds those that only the page needs."""
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
    speed_run = lineage.speed_run(experiment) if whole else None
    if speed_run is not None:
        measured.add(speed_run)
    order = list(experiment.runs)
    checkpoints |= {(run, None) for run in measured}
    stages = stages_behind(experiment, sorted(checkpoints, key=lambda c: (order.index(c[0]), c[1] or 0)))
    found = token_jobs(experiment, stages, directory)
    for seed in experiment.seeds:
        found += [stage_job(experiment, run, stage, seed, directory) for run, stage in stages]
        found += [
            sparsity_job(experiment, run, seed, output(results.sparsity_file(run, seed)), directory)
            for run in sorted(needs.sparsity)
        ]
        requests, partial = benchmark_requests(experiment, directory)
        found += [
            benchmarks_job(experiment, target, pair, seed, output(file(*pair, seed)), requests, partial, directory)
            for target, pairs, file in (
                ("benchmarks", needs.benchmarks, results.benchmarks_file),
                ("predicted benchmarks", needs.predicted_benchmarks, results.predicted_benchmarks_file),
            )
            for pair in sorted(pairs)
        ]
        found += [
            predictors_job(experiment, pair, seed, output(results.predictors_file(*pair, seed)), directory)
            for pair in sorted(predictors)
        ]
        found += [
            prediction_job(experiment, pair, seed, output(results.prediction_file(*pair, seed)), directory)
            for pair in sorted(needs.prediction)
        ]
    timings = [("decoding", results.decoding_file())] if needs.decoding else []
    timings += [("decoding", results.decoding_file(shape)) for shape in sorted(needs.decoding_shapes)]
    timings += [("operators", results.operators_file)] if needs.operators else []
    timings += [("speed", results.speed_file)] if speed_run is not None else []
    found += [Job(target, path.stem, output(path), timed=True) for target, path in timings]
    return marked(found, directory)


def benchmark_requests(experiment: Experiment, directory: Path) -> tuple[int, bool]:
    """Return (texts per pair, whether the count excludes a benchmark with an unknown number of rows).

    A row counts one text per candidate answer, or a single one to continue.
    """
    counted = directory / "data" / "benchmark_rows" / "rows.json"
    rows = json.loads(counted.read_text(encoding="utf-8"))["rows"] if counted.exists() else official_rows()
    total, partial = 0, False
    for name in experiment.benchmarks.tasks:
        task = tasks.load(name)
        if (counted.exists() and name not in rows) or (experiment.benchmarks.rows == "packages" and task.missing):
            continue  # no rows, so not run
        limit = experiment.benchmarks.limits.get(name, experiment.benchmarks.limit)
        amounts = [amount for amount in (rows.get(name), limit) if amount is not None]
        candidates = round(1 / task.chance) if task.answer == "lowest_perplexity" and task.chance else 1
        total += min(amounts, default=0) * candidates
        partial |= not amounts
    return total, partial


def official_rows() -> dict[str, int]:
    """Return the known row counts of the official splits that the benchmarks' task files name."""
    return {row["benchmark"]: int(row["rows"]) for row in published_table("benchmark_rows")}


def every_remote(experiment: Experiment, directory: Path, listed: list[Job]) -> list[Remote]:
    """Return what the jobs download, benchmarks included."""
    found = remotes(experiment, listed, directory)
    if experiment.benchmarks.rows == "hub":
        # corpora need the rows too, to drop documents that contain benchmark text
        waiting = any(("benchmarks" in job.target or job.target == "data") and not job.done for job in listed)
        needed = waiting and not (directory / "data" / "benchmark_rows" / "rows.json").exists()
        names = {first_path(tasks.load(name)) for name in experiment.benchmarks.tasks}
        found += [Remote("benchmark", name, None, None, None, needed, "benchmarks.tasks") for name in sorted(names)]
    return found


def first_path(task: Task) -> str:
    """Return the first data set that holds a benchmark's rows: some have one per subtask."""
    return task.hub.path.format(subtask=next(iter(task.bases())))


def target_refusals(experiment: Experiment, names: Iterable[str], local: bool) -> list[str]:
    """Say why the requested targets cannot be made, one sentence per reason; asks the hub if it answers."""
    directory = Path("results") / experiment.experiment
    listed = requested(experiment, names)
    fetched = [remote for remote in every_remote(experiment, directory, listed) if remote.needed]
    found = refusals(experiment, directory, listed, fetched, local)
    return found + refused_by_hub(fetched, ask_hub(fetched))
