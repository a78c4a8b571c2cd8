"""Every figure is drawn, with and without results."""

from __future__ import annotations

import json
import re

import pytest

from prosparse.paper.figures import registry as figures
from prosparse.system.errors import ConfigError


@pytest.mark.parametrize("name", figures.FIGURES)
def test_figures_are_drawn(several_seeds, name):
    png, svg, data = figures.write(name, several_seeds.layout)
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert "synthetic" in svg.read_text()
    assert json.loads(data.read_text())["figure"] == name
    assert not list(png.parent.glob("*partial*"))


def test_figures_without_runs_say_missing(nothing):
    for name in figures.FIGURES:
        _, svg, _ = figures.write(name, nothing.layout)
        assert "missing" in svg.read_text().lower(), name


def test_unknown_figure():
    with pytest.raises(ConfigError, match="figure4"):
        figures.FIGURES.needs("figure9", None)


def spec(name, synthetic):
    return json.dumps(figures.FIGURES.build(name, synthetic.results)[0].to_dict(), ensure_ascii=False)


def test_figures_2_and_4_name_the_papers_levels(synthetic):
    """As Table 1 prints them."""
    levels = ["Vanilla ReLU 66.04%", "Shifted ReLU 69.59%", "Fixed L1 91.46%", "ProSparse 88.11%"]
    assert all(level in spec("figure2", synthetic).replace('", "', " ") for level in levels)
    assert "ProSparse-7B* (88.11%) and ProSparse-7B (89.32%)" in spec("figure4", synthetic)


@pytest.mark.parametrize("name", ["figure4", "figure_predictors", "figure_decoding"])
def test_panels_are_titled_by_our_model(synthetic, name):
    titles = set(re.findall(r'"text": "(tiny, [^"]+)"', spec(name, synthetic)))
    assert any("ProSparse (progressive)" in title for title in titles)
    assert "row" in " ".join(re.findall(r'"(?:sub)?(?:title|text)": "([^"]*)"', spec(name, synthetic)))
