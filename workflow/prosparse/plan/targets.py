"""The workflow's targets: what each needs, its jobs, and what would stop them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import reduce
from operator import or_
from pathlib import Path

from prosparse.experiment import lineage, table2_rows
from prosparse.experiment.calibrated import probes
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.measure import tasks
from prosparse.measure.tasks import Task
from prosparse.paper import page
from prosparse.paper.claims.registry import CLAIMS
from prosparse.paper.compare.committed import committed
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.release import card
from prosparse.paper.release import folder as release
from prosparse.paper.results.needs import Needs
from prosparse.paper.tables.registry import TABLES
from prosparse.plan.downloads import Remote, remotes
from prosparse.plan.hub import ask_hub, refused_by_hub
from prosparse.plan.jobs import (
    Job,
    Requests,
    benchmarks_job,
    marked,
    precision_job,
    prediction_job,
    predictors_job,
    sparsity_job,
    stage_job,
    stage_sparsity_job,
    stages_behind,
    token_jobs,
    training_free_job,
)
from prosparse.plan.preflight import refusals
from prosparse.published.tables import published_table
from prosparse.system.errors import ConfigError

#: Targets that include the page and hence everything.
WHOLE = frozenset({"all", "publish", "compare"})


def targets(experiment: Experiment) -> dict[str, Needs]:
    """Return what each named target of the workflow needs."""
    found = {name: TABLES.needs(name, experiment) for name in TABLES}
    found |= {name: FIGURES.needs(name, experiment) for name in FIGURES}
    comparisons = experiment.schedules.comparisons
    found |= {f"schedules_{name}": Needs.of_heldout(experiment, each.pairs()) for name, each in comparisons.items()}
    found["tables"] = TABLES.all_needs(experiment)
    found["figures"] = FIGURES.all_needs(experiment)
    found["claims"] = CLAIMS.all_needs(experiment)
    found["release"] = reduce(or_, (card.needs(experiment, pair) for pair in release.pairs(experiment)), Needs())
    probing = [name for scale in experiment.calibration for name in probes(experiment, scale)]
    found |= {"calibrate": Needs.of_chains(experiment, probing)} if probing else {}
    found["bases"] = Needs.of_chains(experiment, experiment.bases)
    found |= dict.fromkeys(WHOLE, page.needs(experiment))
    found["plan"] = Needs()
    return found


def requested(experiment: Experiment, names: Iterable[str]) -> list[Job]:
    """Return the jobs of targets as given to Snakemake: target names, or files that belong to one.

    Other files are ignored; no targets means ``all``.
    """
    known, layout = targets(experiment), Layout.of(experiment)
    files = [(layout.table(name, "*"), known[name]) for name in TABLES]
    files += [(layout.figure(name, "*"), known[name]) for name in FIGURES]
    files += [(layout.release(pair) / "*", card.needs(experiment, pair)) for pair in release.pairs(experiment)]
    if "calibrate" in known:
        files.append((layout.calibration("*", "*"), known["calibrate"]))
    files += [(layout.claims("*"), known["claims"]), (layout.page(), known["all"])]
    needs, whole = Needs(), False
    for name in list(names) or ["all"]:
        of_file = (wanted for pattern, wanted in files if Path(name).match(str(pattern)))
        needs |= known[name] if name in known else next(of_file, Needs())
        whole |= name in WHOLE or Path(name) == layout.page()
    return jobs_behind(layout, needs, whole)


def jobs_behind(layout: Layout, needs: Needs, whole: bool = True) -> list[Job]:
    """Return every job behind ``needs``, in workflow order; ``whole`` adds those that only the page needs."""
    experiment = layout.experiment
    predicted = {experiment.pair(pair) for pair in table2_rows.predicted(experiment).values()}
    predictors = needs.prediction | needs.predicted_benchmarks
    if needs.decoding:
        predictors = predictors | {(run, str(activation)) for run, activation in predicted}
    checkpoints: set[tuple[str, int | None]] = set(needs.stages)
    measured = {run for run, _ in needs.benchmarks | predictors} | needs.sparsity | needs.stage_sparsity
    measured |= {run for run, _ in needs.training_free}
    if needs.decoding or needs.precision:
        measured |= {experiment.pair(pair)[0] for pair in table2_rows.decoded(experiment).values()}
    if needs.trained_operators:
        measured |= {experiment.pair(pair)[0] for pair in table2_rows.trained(experiment).values()}
    overhead_run = lineage.overhead_run(experiment) if whole else None
    if overhead_run is not None:
        measured.add(overhead_run)
    order = list(experiment.runs)
    checkpoints |= {(run, None) for run in measured}
    stages = stages_behind(experiment, sorted(checkpoints, key=lambda c: (order.index(c[0]), c[1] or 0)))
    requests = benchmark_requests(layout)
    found = token_jobs(layout, stages)
    for seed in experiment.seeds:
        found += [stage_job(layout, run, stage, seed) for run, stage in stages]
        found += [sparsity_job(layout, run, seed) for run in sorted(needs.sparsity)]
        found += [stage_sparsity_job(layout, run, seed) for run in sorted(needs.stage_sparsity)]
        found += [training_free_job(layout, pair, seed) for pair in sorted(needs.training_free)]
        for pairs, is_predicted in ((needs.benchmarks, False), (needs.predicted_benchmarks, True)):
            found += [benchmarks_job(layout, pair, seed, requests, is_predicted) for pair in sorted(pairs)]
        found += [predictors_job(layout, pair, seed) for pair in sorted(predictors)]
        found += [prediction_job(layout, pair, seed) for pair in sorted(needs.prediction)]
    if needs.precision:
        found.append(precision_job(layout))
    timings = [("decoding", layout.decoding())] if needs.decoding else []
    timings += [("decoding", layout.decoding(shape)) for shape in sorted(needs.decoding_shapes)]
    timings += [("operators", layout.operators())] if needs.operators else []
    timings += [("operators", layout.trained_operators())] if needs.trained_operators else []
    timings += [("overhead", layout.overhead())] if overhead_run is not None else []
    found += [Job(target, path.stem, layout.relative(path), timed=True) for target, path in timings]
    return marked(found, layout)


def benchmark_requests(layout: Layout) -> Requests:
    """Count a row's candidate answers as one text each, or as one if the model continues it."""
    experiment, counted = layout.experiment, layout.benchmark_rows()
    rows = json.loads(counted.read_text(encoding="utf-8"))["rows"] if counted.exists() else official_rows()
    total, partial = 0, False
    for name in experiment.benchmarks.tasks:
        task = tasks.load(name)
        if (counted.exists() and task.rows not in rows) or (experiment.benchmarks.rows == "packages" and task.missing):
            continue  # no rows, so not run
        limit = task.limit(experiment.benchmarks)
        amounts = [amount for amount in (rows.get(task.rows), limit) if amount is not None]
        share = 0.25 if task.chance is None else task.chance  # about four candidates, where each row has its own
        candidates = round(1 / share) if task.answer == "lowest_perplexity" and share else 1
        total += min(amounts, default=0) * candidates
        partial |= not amounts
    return Requests(total, partial)


def official_rows() -> dict[str, int]:
    """Return the known row counts of the official splits that the benchmarks' task files name."""
    return {row["benchmark"]: int(row["rows"]) for row in published_table("benchmark_rows")}


def every_remote(layout: Layout, listed: list[Job]) -> list[Remote]:
    """Return what the jobs download, benchmarks included."""
    experiment, found = layout.experiment, remotes(layout, listed)
    if experiment.benchmarks.rows == "hub":
        # corpora need the rows too, to drop documents that contain benchmark text
        waiting = any(("benchmarks" in job.target or job.target == "data") and not job.done for job in listed)
        needed = waiting and not layout.benchmark_rows().exists()
        names = {first_path(tasks.load(name)) for name in experiment.benchmarks.tasks}
        found += [Remote("benchmark", name, None, None, None, needed, "benchmarks.tasks") for name in sorted(names)]
    return found


def first_path(task: Task) -> str:
    """Return the first data set that holds a benchmark's rows: some have one per subtask."""
    return task.hub.path.format(subtask=next(iter(task.bases())))


def target_refusals(experiment: Experiment, names: Iterable[str], local: bool) -> list[str]:
    """Say why the requested targets cannot be made, one sentence per reason; asks the hub if it answers."""
    layout, names = Layout.of(experiment), list(names)
    listed = requested(experiment, names)
    fetched = [remote for remote in every_remote(layout, listed) if remote.needed]
    found = refusals(layout, listed, fetched, local)
    if "compare" in names:
        try:
            committed(layout)
        except ConfigError as error:
            found.append(str(error))
    return found + refused_by_hub(fetched, ask_hub(fetched))
