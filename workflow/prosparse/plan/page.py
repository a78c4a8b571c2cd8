"""``plan.md`` and ``plan.json``: what an experiment costs, per target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.plan import durations
from prosparse.plan.costs import gpu_hours
from prosparse.plan.downloads import Remote
from prosparse.plan.hub import Answer, ask_hub, refused_by_hub
from prosparse.plan.jobs import Job, Total
from prosparse.plan.papers import paper_lines, papers
from prosparse.plan.preflight import doubts, free_disk, refusals
from prosparse.plan.targets import WHOLE, every_remote, jobs_behind, targets
from prosparse.plan.text import NONE, UNKNOWN, aligned, count, flops, gigabytes, hour_count, item
from prosparse.system.files import write_json, write_text


def write(layout: Layout, ask: bool = True) -> str:
    """Write the plan as Markdown and JSON and return the text.

    Args:
        ask: ask the hub for revisions, licenses and access unless HF_HUB_OFFLINE is set; downloads nothing.
    """
    experiment = layout.experiment
    known = targets(experiment)
    listed = jobs_behind(layout, known["all"])
    fetched = every_remote(layout, listed)
    answers = ask_hub(fetched) if ask else None
    refused = refusals(layout, listed, fetched, local=False)
    refused += refused_by_hub(fetched, answers)
    alone = {
        name: Total.of(job for job in jobs_behind(layout, needs, name == "all") if not job.done)
        for name, needs in known.items()
        if name not in (WHOLE - {"all"}) | {"plan", "tables", "figures"}
    }
    compared = papers(experiment, listed)
    text = _render(_Plan(layout, listed, alone, compared, fetched, answers, refused))
    write_text(layout.plan("md"), text)
    write_json(
        layout.plan("json"),
        {
            "experiment": experiment.experiment,
            "hardware": experiment.hardware.model_dump() if experiment.hardware else None,
            "jobs": [{**asdict(job), "gpu_hours": _job_hours(experiment, job)} for job in listed],
            "to_do": {name: _total_json(experiment, total) for name, total in alone.items()},
            "paper": compared,
            "downloads": [
                {**asdict(remote), "hub": answer.text if (answer := _answer(remote, answers)) else None}
                for remote in fetched
            ],
            "free_disk": free_disk(layout.directory),
            "would_be_refused": refused,
        },
    )
    return text


def _job_hours(experiment: Experiment, job: Job) -> float | None:
    return None if job.flops is None or job.timed else gpu_hours(experiment, job.flops)


def _total_json(experiment: Experiment, total: Total) -> dict[str, Any]:
    return {
        **asdict(total),
        "unknown": sorted(total.unknown),
        "gpu_hours": gpu_hours(experiment, total.flops),
    }


@dataclass(frozen=True)
class _Plan:
    """The contents of the text."""

    layout: Layout
    jobs: list[Job]
    alone: dict[str, Total]  # target -> the work left for this target only
    papers: list[dict[str, Any]]
    fetched: list[Remote]
    answers: dict[tuple[str, str], Answer] | None
    refused: list[str]


def _render(plan: _Plan) -> str:
    experiment, directory = plan.layout.experiment, plan.layout.directory
    lines = [f"# What the experiment {experiment.experiment} costs", "", *_assumptions(experiment), ""]
    lines += _cost_table(experiment, plan.jobs)
    lines += ["", "## One target at a time: what is left to do", "", *_target_table(experiment, plan.alone)]
    lines += ["", "## Wall time of the longest stages", ""]
    lines += durations.lines(experiment, plan.jobs, durations.partition_limits())
    lines += ["", "## Batches of the benchmarks", "", *_batch_lines(experiment, plan.jobs)]
    lines += ["", "## The paper's own training", "", *paper_lines(plan.papers)]
    lines += ["", "## Downloads", "", *_download_table(plan.fetched, plan.answers)]
    free = free_disk(directory)
    lines += ["", "## Before the first job", "", f"Free disk: {free / 1e9:,.0f} GB.", ""]
    lines += [line for reason in plan.refused for line in item(f"would be refused: {reason}")]
    doubted = doubts(plan.layout, plan.jobs)
    lines += [line for reason in doubted for line in item(f"may not fit: {reason}")]
    lines += [] if plan.refused or doubted else ["No known obstacle."]
    lines += [
        "",
        "## Next",
        "",
        "- `snakemake -n TARGET` lists the jobs of a target and checks access and disk; the same without -n runs them.",
        *item(f"every job with its numbers: plan.json; this text: plan.md; both in {directory}"),
        "- where the numbers come from: workflow/prosparse/plan/costs.py",
    ]
    return "\n".join(lines) + "\n"


def _assumptions(experiment: Experiment) -> list[str]:
    hardware = experiment.hardware
    lines = [
        "FLOPs: 6 per weight and token in training, 2 in measurements, plus attention's (no causal half). Memory and",
        "disk are estimates; those of corpora and benchmarks are upper bounds (every request fills the context). The",
        "output of a finished job exists. `+?`: plus what is not known yet.",
    ]
    if hardware is None:
        return [
            *lines,
            "GPU-hours: give the experiment `hardware:` (gpu, gpus, memory_gigabytes, teraflops, utilization).",
        ]
    return [
        *lines,
        f"GPU-hours: {hardware.gpus} x {hardware.gpu} per run, {hardware.teraflops:g} TFLOP/s each, at "
        f"{100 * hardware.utilization:g}% of that peak (MFU, as set in `hardware:`).",
        "MFU does not count what activation checkpointing recomputes: lower it where that is on. Measurements are",
        "estimated in the same way, though generating text token by token reaches far less.",
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
    return aligned(header, rows)


def _cells(experiment: Experiment, group: list[Job], is_run: bool) -> list[str]:
    total = Total.of(group)
    kept = "stored" if all(job.target == "data" for job in group) else "tokens"
    if total.timed:
        counted = ["timings", "", ""]
    else:
        counted = [
            _known(total, kept, count(getattr(total, kept))),
            _known(total, "flops", flops(total.flops)),
            _known(total, "recomputed", flops(total.recomputed)),
        ]
    cells = [f"{total.done}/{total.jobs}", *counted]
    if experiment.hardware is not None:
        hours = gpu_hours(experiment, total.flops) or 0.0
        cells += ["", ""] if total.timed else [_known(total, "flops", hour_count(hours) if hours else NONE)]
        if not total.timed:
            cells.append(f"{hours / 24 / experiment.hardware.gpus:,.1f}" if is_run and hours else NONE)
    cells.append(NONE if total.memory is None else gigabytes(total.memory))
    cells.append(_known(total, "disk", gigabytes(total.disk) if total.disk else NONE))
    return cells


def _known(total: Total, key: str, text: str) -> str:
    """Return the sum as text, marked if part or all of it is unknown."""
    if key not in total.unknown:
        return text
    return UNKNOWN if getattr(total, key) == 0 else f"{text}+?"


def _target_table(experiment: Experiment, alone: dict[str, Total]) -> list[str]:
    header = ["Target", "Jobs", "Tokens", "FLOPs", *(["GPU-hours"] if experiment.hardware else []), "GB disk"]
    rows, idle = [], [name for name, total in alone.items() if not total.jobs]
    for name, total in alone.items():
        if not total.jobs:
            continue
        row = [name, str(total.jobs), _known(total, "tokens", count(total.tokens))]
        row.append(_known(total, "flops", flops(total.flops)))
        if experiment.hardware is not None:
            row.append(_known(total, "flops", hour_count(gpu_hours(experiment, total.flops) or 0.0)))
        rows.append([*row, _known(total, "disk", gigabytes(total.disk) if total.disk else NONE)])
    lines = aligned(header, rows) if rows else []
    return [*lines, "", *item(f"none of these jobs: {', '.join(idle)}")] if idle else lines


def _batch_lines(experiment: Experiment, listed: list[Job]) -> list[str]:
    """Show the tokens per batch and their memory for each run that answers benchmarks."""
    lines = []
    for run, memory in {job.run: job.answering for job in listed if job.answering is not None}.items():
        tokens, wanted = memory.batch_tokens, experiment.benchmarks.batch_tokens
        fewer = "" if tokens == wanted else f" (the {wanted:,} of benchmarks.batch_tokens do not fit)"
        lines += item(
            f"{run}: {tokens:,} tokens per batch{fewer}, at most {gigabytes(memory.kv_cache)} GB of KV cache next to "
            f"{gigabytes(memory.weights)} GB of weights"
        )
    return lines or ["None, or the shapes of the models are not known yet."]


def _download_table(fetched: list[Remote], answers: dict[tuple[str, str], Answer] | None) -> list[str]:
    if not fetched:
        return ["Nothing."]
    lines = []
    for remote in fetched:
        size = "" if remote.size is None else f", about {remote.size / 1e9:,.1f} GB"
        revision = f" at {remote.revision}" if remote.revision else ""
        done = "" if remote.needed else " (no longer needed)"
        answer = _answer(remote, answers)
        terms = _terms(remote) if answer is None else answer.text
        lines += item(f"{remote.kind} {remote.name}{revision}{size}{done}: {terms}")
    needed = [remote for remote in fetched if remote.needed]
    known, unknown = sum(remote.size or 0 for remote in needed), sum(remote.size is None for remote in needed)
    lines += item(
        f"STILL TO DOWNLOAD: about {known / 1e9:,.1f} GB" + (f", and {unknown} of unknown size" if unknown else "")
    )
    if answers is None and any(remote.kind != "package" for remote in fetched):
        lines += ["", "Offline, or the hub did not answer: revisions and access were not checked."]
    if any(remote.size is None and remote.kind == "data set" for remote in fetched):
        lines.append("A data set without a size is read in full: give its corpus a `character_limit` to read less.")
    return lines


def _answer(remote: Remote, answers: dict[tuple[str, str], Answer] | None) -> Answer | None:
    return (answers or {}).get((remote.kind, remote.name))


def _terms(remote: Remote) -> str:
    """Say where to find the license and which terms to accept."""
    if remote.gated:
        return f"gated, needs an access token; terms: {remote.gated}"
    if remote.kind == "package":
        return f"license: https://pypi.org/project/{remote.name}/{remote.revision}/"
    place = "datasets/" if remote.kind in ("data set", "benchmark") else ""
    return f"license: https://huggingface.co/{place}{remote.name}"
