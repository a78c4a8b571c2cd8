"""Writes ``index.html``: results, charts, JavaScript and styles in one file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from prosparse.experiment.layout import Layout
from prosparse.paper import opening, page
from prosparse.paper.claims import registry as claims
from prosparse.paper.claims.finding import Verdict
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.html.agreement import agreement
from prosparse.paper.html.charts import Chart, figure
from prosparse.paper.html.frontier_chart import frontier_charts
from prosparse.paper.html.layer_chart import layer_charts
from prosparse.paper.html.prose import block, inline
from prosparse.paper.html.sources import Sources
from prosparse.paper.html.table_rows import ShownTable, shown
from prosparse.paper.html.training_chart import training_charts
from prosparse.paper.results.reader import MissingResult, Results
from prosparse.paper.sections.details import details
from prosparse.paper.sections.host import facts, provenance
from prosparse.paper.tables.registry import TABLES
from prosparse.published.claims import history
from prosparse.system.files import write_text

#: Name in the template -> file that it holds as it is.
INCLUDED = {"style": "templates/style.css", "script": "templates/page.js", "sortable": "vendor/sortable.min.js"}
DRAWN_HERE = ("figure_frontier",)  # the page draws its own, interactive


@dataclass(frozen=True)
class Missing:
    """A table or figure whose measurements do not exist."""

    name: str
    why: str

    @property
    def title(self) -> str:
        """``table2_decoding`` as ``Table 2 decoding``."""
        return re.sub(r"^(figure|table)(\d+)", r"\1 \2", self.name).replace("_", " ").capitalize()


def write(layout: Layout) -> Path:
    """Write the page from the measurements and verdicts that exist; what does not is marked as missing."""
    path = layout.html()
    write_text(path, render(Results(layout)))
    return path


def render(results: Results) -> str:
    experiment, layout = results.experiment, results.layout
    sources = Sources(layout)
    blocks, absent = provenance(results, page.needs(experiment))
    made = facts(experiment, blocks)
    tables = [_or_missing(name, _table, results, sources) for name in TABLES]
    figures = [_or_missing(name, figure, results) for name in FIGURES if name not in DRAWN_HERE]
    try:
        judged = opening.claims(layout)
    except MissingResult:
        judged = []
    sections = _sections(results, blocks, absent)
    return _template().render(
        experiment=experiment,
        scope=opening.scope(results, made["Processor"]),
        made=made,
        claims=judged,
        counted=claims.counted([Verdict(each["verdict"]) for each in judged]) if judged else "",
        rule=claims.RULE,
        paired=claims.intervals_words(results),
        history=history(),
        behind=sources.of_claim,
        not_run=sections.pop("Not run"),
        key_numbers=_or_none(opening.key_numbers, results),
        agreement=agreement(layout),
        frontier=_or_none(frontier_charts, results),
        tables=tables,
        figures=figures,
        training=training_charts(results),
        layers=layer_charts(results),
        sections=sections,
        files=sources.described,
        link=sources.link,
        missing=Missing,
    )


def _table(name: str, results: Results, sources: Sources) -> ShownTable:
    return shown(TABLES.build(name, results), sources)


def _or_missing(name: str, make: Callable[..., ShownTable | Chart], *given: Any) -> ShownTable | Chart | Missing:
    try:
        return make(name, *given)
    except MissingResult as error:
        return Missing(name, str(error))


def _or_none(make: Callable[[Results], list[Any]], results: Results) -> list[Any]:
    try:
        return make(results)
    except MissingResult:
        return []


def _sections(results: Results, blocks: dict[str, list[dict[str, Any]]], absent: dict[str, int]) -> dict[str, Markup]:
    """Return the sections that are text: title -> HTML."""
    path = results.layout.acceleration()
    heading, _, body = path.read_text(encoding="utf-8").partition("\n") if path.exists() else ("", "", "")
    acceleration = f"**{heading.removeprefix('# ')}**\n{body}" if body else "Missing: not written."
    made = {"Acceleration": acceleration, **details(results, blocks, absent)}
    return {title: block(lines) for title, lines in made.items()}


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("prosparse.paper.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"inline": inline, "prose": block, "anchor": _anchor}
    environment.globals |= {"vega": _vega(), **{name: _included(path) for name, path in INCLUDED.items()}}
    return environment.get_template("index.html.j2")


def _included(path: str) -> Markup:
    return Markup((Path(__file__).parent / path).read_text(encoding="utf-8"))


@cache
def _vega() -> Markup:
    """Return Vega-Lite and its embedding, as Altair's own offline pages include them."""
    import vl_convert

    return Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _anchor(title: str) -> str:
    return "-".join(title.lower().replace(",", "").split())
