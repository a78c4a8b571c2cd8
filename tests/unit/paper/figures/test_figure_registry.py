"""Every figure is drawn, with and without results."""

from __future__ import annotations

import json

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
