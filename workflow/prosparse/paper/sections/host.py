"""The host and software versions that produced the results."""

from __future__ import annotations

import json
import re
from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.paper.markdown import markdown_table
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results

#: As provenance records it: its name, and the cores that the job may use.
PROCESSOR = re.compile(r"(.+?)(?:, (\d+) cores?)?")


def provenance(results: Results, needs: Needs) -> tuple[dict[str, list[dict[str, Any]]], dict[str, int]]:
    """Return (provenance blocks of the results in use, number of missing results), each by kind of job."""
    files = needs.files(results.layout)
    documents = [path for name in results.experiment.data.corpora for path in results.layout.documents_counts(name)]
    files = {"documents": documents, **files}
    blocks: dict[str, list[dict[str, Any]]] = {}
    absent: dict[str, int] = {}
    for kind, paths in files.items():
        for path in paths:
            if not path.exists():
                absent[kind] = absent.get(kind, 0) + 1
                continue
            block = json.loads(path.read_text(encoding="utf-8")).get("provenance")
            if block:
                blocks.setdefault(kind, []).append(block)
    return blocks, absent


def host(experiment: Experiment, blocks: dict[str, list[dict[str, Any]]]) -> list[str]:
    return markdown_table(["", ""], [[name, value] for name, value in facts(experiment, blocks).items()])


def facts(experiment: Experiment, blocks: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """Return what the results were made with, by name; several values where results differ."""
    every = [block for kind in blocks.values() for block in kind]

    def values(*keys: str) -> list[str]:
        found = []
        for block in every:
            for key in keys:
                block = (block or {}).get(key)  # type: ignore[assignment]
            if block:
                found.append(str(block))
        return list(dict.fromkeys(found))

    def seen(*keys: str) -> str:
        return ", ".join(values(*keys)) or "missing"

    packages = list(dict.fromkeys(name for block in every for name in block.get("packages", {})))
    return {
        "Processor": _processors(values("processor")) or "missing",
        "Device": seen("device"),
        "Threads per job": seen("threads"),
        "Code revision": seen("code_revision"),
        "Packages": ", ".join(f"{name} {seen('packages', name)}" for name in packages) or "missing",
        "Seeds": ", ".join(map(str, experiment.seeds)),
    }


def _processors(recorded: list[str]) -> str:
    """Return ``AMD EPYC, 1 or 2 cores`` of jobs that had one or two of them."""
    by_name: dict[str, set[int]] = {}
    for each in recorded:
        name, cores = PROCESSOR.fullmatch(each).groups()  # type: ignore[union-attr]  # matches anything
        by_name.setdefault(name, set()).update([int(cores)] if cores else [])
    words = []
    for name, numbers in by_name.items():
        counted = f", {' or '.join(map(str, sorted(numbers)))} core{'' if numbers == {1} else 's'}" if numbers else ""
        words.append(name + counted)
    return "; ".join(words)
