"""Tokens per second beside what memory allows."""

from __future__ import annotations

import pytest

from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.results.decoding import MODES


def test_figure_of_decoding_draws_every_bound(synthetic, decoding):
    _, data = FIGURES.build("figure_decoding", synthetic.results)
    for model in decoding["models"]:
        if model["row"] != "ProSparse-7B":
            continue
        drawn = {
            row["way"]: row
            for row in data["data"]
            if (row["model"], row["precision"]) == (model["row"], model["precision"])
        }
        for mode, arm in model["modes"].items():
            assert drawn[MODES[mode]]["tokens_per_second"] == arm["tokens_per_second"]["median"]
            assert drawn[MODES[mode]]["bound"] == pytest.approx(20e9 / arm["bytes"]["all"])  # 20 GB/s
        assert drawn["llama.cpp, dense"]["bound"] == drawn["ours, dense"]["bound"]
    assert data["data"][0]["model"].startswith("Synthetic llama-7b")  # the paper's shapes first
