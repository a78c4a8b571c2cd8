"""``results/{experiment}/README.md``: claims, tables, figures and provenance."""

from __future__ import annotations

from pathlib import Path

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.paper.claims.registry import CLAIMS
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.sections.compiled_operators import compiled_operators
from prosparse.paper.sections.corpora import corpora
from prosparse.paper.sections.host import host, provenance
from prosparse.paper.sections.not_run import not_run
from prosparse.paper.sections.origins import origins
from prosparse.paper.sections.overhead import overhead
from prosparse.paper.sections.times import start_up, times
from prosparse.paper.tables.registry import TABLES
from prosparse.system.files import write_text


def needs(experiment: Experiment) -> Needs:
    """Return everything that any table, figure or claim needs."""
    return CLAIMS.all_needs(experiment) | TABLES.all_needs(experiment) | FIGURES.all_needs(experiment)


def write(layout: Layout) -> Path:
    """Write the page from the tables, figures and claims that exist; anything not made yet is marked as missing."""
    path = layout.page()
    write_text(path, render(Results(layout)))
    return path


def render(results: Results) -> str:
    experiment, layout = results.experiment, results.layout
    blocks, absent = provenance(results, needs(experiment))
    lines = [
        f"# {experiment.experiment}",
        "",
        experiment.description.strip(),
        "",
        "Every number below comes from a measurement of this experiment or from the paper's tables "
        "(Song et al., COLING 2025, arXiv 2402.13516v7). What was not measured is marked as missing.",
        "",
    ]
    first = ["figure_frontier"] if experiment.figures.frontier else []
    for name in first:
        lines += ["## Loss over sparsity", "", *_figure(layout, name), ""]
    lines += [
        "## Claims",
        "",
        _included(layout, layout.claims("md")),
        "",
        "## Tables",
    ]
    for name in TABLES:
        lines += ["", _included(layout, layout.table(name, "md"))]
    lines += ["", "## Figures"]
    for name in FIGURES:
        if name not in first:
            lines += ["", *_figure(layout, name)]
    lines += ["", "## Acceleration", "", _included(layout, layout.acceleration())]
    lines += ["", "## Stand-ins", "", *origins(experiment)]
    lines += ["", "## Corpora", "", *corpora(results)]
    lines += ["", "## Not run", "", *not_run(results, absent)]
    lines += [
        "",
        "## Host, versions and run time",
        "",
        *host(experiment, blocks),
        "",
        *times(blocks, layout.timings()),
        "",
        *start_up(layout),
    ]
    lines += ["", "## Overhead of regularization and measurement", "", *overhead(layout.overhead())]
    lines += ["", "## Compiled GPU operators", ""]
    lines += compiled_operators(layout.compiled_operators())
    return "\n".join(lines).rstrip() + "\n"


def _figure(layout: Layout, name: str) -> list[str]:
    image = layout.figure(name, "png")
    return [f"![{name}]({layout.relative(image)})" if image.exists() else _missing(layout, image)]


def _missing(layout: Layout, path: Path) -> str:
    return f"_missing: {layout.relative(path)} has not been made yet._"


def _included(layout: Layout, path: Path) -> str:
    """Return a fragment's text without the heading that would repeat the section's."""
    if not path.exists():
        return _missing(layout, path)
    return path.read_text(encoding="utf-8").strip().removeprefix("### Claims").strip()
