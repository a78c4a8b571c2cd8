"""``README.md``, three screens for GitHub, and ``details.md``, what the numbers rest on"""

from __future__ import annotations

import json
from pathlib import Path

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.paper.claims.registry import CLAIMS
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.markdown import markdown_table
from prosparse.paper.opening import key_numbers, scope
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import MissingResult, Results
from prosparse.paper.sections.details import details
from prosparse.paper.sections.host import facts, provenance
from prosparse.paper.tables.registry import TABLES
from prosparse.system.files import write_text


def needs(experiment: Experiment) -> Needs:
    """Return everything that any table, figure or claim needs."""
    return CLAIMS.all_needs(experiment) | TABLES.all_needs(experiment) | FIGURES.all_needs(experiment)


def write(layout: Layout) -> list[Path]:
    """Write both pages from the tables, figures and claims that exist; what was not made yet is marked as missing."""
    results = Results(layout)
    write_text(layout.page(), render(results))
    write_text(layout.details(), render_details(results))
    return [layout.page(), layout.details()]


ACCELERATION = "Acceleration: the paper's 4.52×, and ours"
DETAILS = "Details: stand-ins, corpora, what was not run, machine and run time"


def render(results: Results) -> str:
    experiment, layout = results.experiment, results.layout
    blocks, _ = provenance(results, needs(experiment))
    lines = [
        f"# {experiment.experiment}",
        "",
        experiment.description.strip(),
        "",
        scope(results, facts(experiment, blocks)["Processor"]),
        "",
        *_key_numbers(results),
        "",
        f"Open `{layout.relative(layout.html())}` in a browser for interactive charts and the measurements behind each "
        "number.",
        "",
        "## Claims",
        "",
        *_claims(layout),
        "",
        "## Loss over sparsity",
        "",
        *_frontier(layout),
        "",
        "## Tables",
        "",
        *(_table(layout, name) for name in TABLES),
        "",
        "## Figures",
        "",
        *(_figure(layout, name) for name in FIGURES),
        "",
        "## More",
        "",
        f"- {_link(layout, ACCELERATION, layout.acceleration())}",
        f"- {_link(layout, DETAILS, layout.details())}",
    ]
    return "\n".join(lines).rstrip() + "\n"


def render_details(results: Results) -> str:
    """Return what the tables rest on: stand-ins, corpora, what was not run, machine and times."""
    experiment = results.experiment
    lines = [f"# {experiment.experiment}: details"]
    for title, body in details(results, *provenance(results, needs(experiment))).items():
        lines += ["", f"## {title}", "", *body]
    return "\n".join(lines).rstrip() + "\n"


def _key_numbers(results: Results) -> list[str]:
    try:
        found = key_numbers(results)
    except MissingResult as error:
        return [f"_missing: {error}_"]
    rows = [[f"**{each.ours}** {each.title}", each.paper, each.about] for each in found]
    return markdown_table(["Ours", "Paper", ""], rows) if rows else []


def _claims(layout: Layout) -> list[str]:
    """Return the verdicts without the evidence, as ``claims.md`` begins."""
    path = layout.claims("md")
    if not path.exists():
        return [_missing(layout, path)]
    text = path.read_text(encoding="utf-8").removeprefix("# Claims").strip()
    return [text.partition("\n## ")[0].strip(), "", f"[Evidence and tests]({layout.relative(path)})"]


def _frontier(layout: Layout) -> list[str]:
    image = layout.figure("figure_frontier", "png")
    return [f"![Loss over sparsity]({layout.relative(image)})" if image.exists() else _missing(layout, image)]


def _table(layout: Layout, name: str) -> str:
    path = layout.table(name, "md")
    if not path.exists():
        return f"- {_missing(layout, path)}"
    title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    return f"- {_link(layout, title, path)}"


def _figure(layout: Layout, name: str) -> str:
    path, data = layout.figure(name, "png"), layout.figure(name, "json")
    if not path.exists() or not data.exists():
        return f"- {_missing(layout, path)}"
    drawn = json.loads(data.read_text(encoding="utf-8"))
    if why := drawn.get("missing_because"):
        return f"- {drawn['title']}: missing, {why}"
    return f"- {_link(layout, drawn['title'], path)}"


def _link(layout: Layout, title: str, path: Path) -> str:
    return f"[{title}]({layout.relative(path)})"


def _missing(layout: Layout, path: Path) -> str:
    return f"_missing: {layout.relative(path)} has not been made yet._"
