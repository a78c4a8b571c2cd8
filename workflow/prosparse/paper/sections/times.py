"""Wall time and peak memory of the jobs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from prosparse.experiment.layout import TIMED, Layout
from prosparse.paper.markdown import markdown_table


def times(blocks: dict[str, list[dict[str, Any]]], benchmarks: list[Path]) -> list[str]:
    """Show wall time by kind of job: Snakemake's if given, else what each result recorded."""
    if benchmarks:
        seconds: dict[str, list[float]] = {}
        memory: dict[str, list[float]] = {}
        for path in benchmarks:
            kind = path.stem if path.parent.name == "timings" else path.parent.name
            with open(path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    seconds.setdefault(kind, []).append(float(row["s"]))
                    if row.get("max_rss", "-") not in ("-", "", "NA", None):
                        memory.setdefault(kind, []).append(float(row["max_rss"]))
        source = "Wall time and peak memory of the jobs, as measured by Snakemake."
    else:
        seconds = {kind: [b["wall_seconds"] for b in listed if "wall_seconds" in b] for kind, listed in blocks.items()}
        memory, source = {}, "Wall time as recorded in each result."
    rows = [
        [
            kind,
            str(len(times)),
            f"{sum(times):,.0f}",
            f"{max(times):,.0f}",
            f"{max(memory[kind]):,.0f}" if kind in memory else "missing",
        ]
        for kind, times in seconds.items()
        if times
    ]
    if not rows:
        return ["Wall time: missing; no job has recorded any."]
    total = sum(sum(times) for times in seconds.values())
    rows.append(["**all**", str(sum(map(len, seconds.values()))), f"{total:,.0f}", "", ""])
    return [
        source,
        "",
        *markdown_table(["Job", "Jobs", "Total (s)", "Longest (s)", "Peak memory (MB)"], rows, numbers=4),
    ]


def start_up(layout: Layout) -> list[str]:
    """Show the share of the jobs' time spent on process start and imports."""
    jobs = work = 0.0
    kinds = []
    for kind, pattern in TIMED.items():
        timings = [path for path in layout.timings() if path.parent.name == kind]
        results = list(layout.directory.glob(pattern))
        if not timings or len(results) != len(timings):  # a published copy may lack some
            continue
        kinds.append(kind)
        for path in timings:
            with open(path, newline="", encoding="utf-8") as file:
                jobs += sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
        for path in results:
            work += json.loads(path.read_text(encoding="utf-8")).get("provenance", {}).get("wall_seconds", 0)
    if not 0 < work <= jobs:  # not recorded, or the work was spread over several jobs
        return []
    return [
        f"The jobs of {', '.join(kinds)} took {jobs:,.0f} s, of which {work:,.0f} s were work. Process start and "
        f"imports took the other {1 - work / jobs:.0%}."
    ]
