"""Every table and figure has a caption in Snakemake's report."""

from __future__ import annotations

import pytest
from helpers.repository import ROOT
from jinja2 import Environment, StrictUndefined

from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.tables.registry import TABLES

CAPTIONS = ROOT / "workflow" / "report"


def caption(kind: str, name: str) -> str:
    text = (CAPTIONS / f"{kind}.rst").read_text(encoding="utf-8")
    job = {"wildcards": {kind: name}}
    return Environment(undefined=StrictUndefined).from_string(text).render(snakemake=job).strip()


@pytest.mark.parametrize(
    ("kind", "name"), [*(("table", name) for name in TABLES), *(("figure", name) for name in FIGURES)]
)
def test_every_table_and_figure_has_a_caption_of_its_own(kind, name):
    assert caption(kind, name).endswith(".")
    assert len({caption("table", each) for each in TABLES}) == len(TABLES.names)
