"""The paper's own training costs and the utilization that they imply, next to ours."""

from __future__ import annotations

from typing import Any

from prosparse.experiment import lineage
from prosparse.experiment.experiment import Experiment
from prosparse.plan.costs import gpu_hours, utilization
from prosparse.plan.jobs import Job, Total, stages_behind
from prosparse.plan.text import count, hour_count, item
from prosparse.published.shapes import published_shapes
from prosparse.published.tables import published_table, published_tokens


def papers(experiment: Experiment, listed: list[Job]) -> list[dict[str, Any]]:
    """Compare the reported cost of the paper's models, and the utilization it implies, with our cost."""
    found = []
    for row in published_table("hardware"):
        scale, gpus = row["model"], int(row["gpus"])
        tokens = float(published_tokens()[f"ProSparse-{scale}"]) * 1e9
        flops = tokens * (published_shapes()[scale].training_flops(4096) or 0)
        days = [float(row["days_at_least"]), float(row["days_at_most"])]
        rate = float(row["bfloat16_teraflops"])
        names = experiment.stages.get(scale, [])  # type: ignore[call-overload]
        stages = set(stages_behind(experiment, [(name, None) for name in names]))
        # only the model's own stages, not those of its start
        owners = {
            lineage.owner(experiment, name, index) for name in names for index in range(_stages(experiment, name))
        }
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
                "implied_utilization": [utilization(flops, gpus, rate, each) for each in days],
                "our_runs": names,
                "our_tokens": ours.tokens if names else None,
                "our_gpu_hours": gpu_hours(experiment, ours.flops) if names and not ours.unknown else None,
            }
        )
    return found


def _stages(experiment: Experiment, run: str) -> int:
    return len(experiment.runs[run].stages)


def paper_lines(entries: list[dict[str, Any]]) -> list[str]:
    lines = []
    for entry in entries:
        implied = _range([100 * each for each in entry["implied_utilization"]], ".0f")
        text = (
            f"{entry['model']}: {entry['gpus']} x {entry['gpu']}, about {_range(entry['days'], 'g')} days = "
            f"{_range(entry['gpu_hours'], ',.0f')} GPU-hours for {count(entry['tokens'])} tokens. These are "
            f"{entry['flops']:.2e} FLOPs: by this count the GPUs reached {implied}% of their peak."
        )
        if entry["our_tokens"]:
            text += f" Here: {', '.join(entry['our_runs'])}, {count(entry['our_tokens'])} tokens"
            if entry["our_gpu_hours"] is not None:
                times = _range([entry["our_gpu_hours"] / each for each in entry["gpu_hours"]], ".3g")
                text += f", {hour_count(entry['our_gpu_hours'])} GPU-hours: {times} times as many"
            text += "."
        lines += item(text)
    return lines


def _range(values: list[float], form: str) -> str:
    return "-".join(dict.fromkeys(format(value, form) for value in sorted(values)))
