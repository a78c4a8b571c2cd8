"""Figure 3."""

from __future__ import annotations

import json

import pytest
from helpers.synthetic_results import FIT

from prosparse.paper.figures import registry as figures


def test_figure3_finds_what_the_runs_were_made_with(synthetic):
    figures.write("figure3", synthetic.layout)
    data = json.loads((synthetic.directory / "figures" / "figure3.json").read_text())
    # the synthetic seed adds 0.1 points to every run
    assert [data["fit"][key] for key in "abc"] == pytest.approx(FIT, abs=0.02)
    assert len(data["data"]) == 7
