"""What the numbers rest on, section by section, for ``details.md`` and ``index.html``."""

from __future__ import annotations

from typing import Any

from prosparse.paper.results.reader import Results
from prosparse.paper.sections.compiled_operators import compiled_operators
from prosparse.paper.sections.corpora import corpora
from prosparse.paper.sections.host import host
from prosparse.paper.sections.not_run import not_run
from prosparse.paper.sections.origins import origins
from prosparse.paper.sections.overhead import overhead
from prosparse.paper.sections.times import start_up, times


def details(results: Results, blocks: dict[str, list[dict[str, Any]]], absent: dict[str, int]) -> dict[str, list[str]]:
    """Return title -> lines of Markdown.

    Args:
        blocks, absent: from :func:`prosparse.paper.sections.host.provenance`.
    """
    experiment, layout = results.experiment, results.layout
    return {
        "Stand-ins": origins(experiment),
        "Corpora": corpora(results),
        "Not run": not_run(results, absent),
        "Host, versions and run time": [
            *host(experiment, blocks),
            "",
            *times(blocks, layout.timings()),
            "",
            *start_up(layout),
        ],
        "Overhead": overhead(layout.overhead()),
        "Compiled GPU operators": compiled_operators(layout.compiled_operators()),
    }
