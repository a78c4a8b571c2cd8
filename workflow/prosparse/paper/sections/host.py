"""The host and software versions that produced the results."""

from __future__ import annotations

import json
from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.paper.markdown import markdown_table
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results


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

    def seen(*keys: str) -> str:
        values = []
        for block in every:
            for key in keys:
                block = (block or {}).get(key)  # type: ignore[assignment]
            if block:
                values.append(str(block))
        return ", ".join(dict.fromkeys(values)) or "missing"

    packages = list(dict.fromkeys(name for block in every for name in block.get("packages", {})))
    return {
        "Processor": seen("processor"),
        "Device": seen("device"),
        "Threads per job": seen("threads"),
        "Code revision": seen("code_revision"),
        "Packages": ", ".join(f"{name} {seen('packages', name)}" for name in packages) or "missing",
        "Seeds": ", ".join(map(str, experiment.seeds)),
    }
