"""Where a token's time goes."""

from __future__ import annotations

import pytest

from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.results.decoding import MODES


def test_figure_of_decoding_adds_up_to_the_measured_time(synthetic, decoding):
    _, data = FIGURES.build("figure_decoding", synthetic.results)
    modes = next(model for model in decoding["models"] if model["row"] == "ProSparse-7B")["modes"]
    for mode, way in MODES.items():
        parts = [row for row in data["data"] if (row["model"], row["way"]) == ("ProSparse-7B", way)]
        total = sum(row["milliseconds"] for row in parts)
        assert total == pytest.approx(modes[mode]["milliseconds_per_token"]["median"])
        attention = next(row["milliseconds"] for row in parts if row["part"] == "attention")
        assert attention == pytest.approx(modes[mode]["bytes"]["attention"] / 20e6)  # ms at 20 GB/s
    assert data["data"][0]["model"].startswith("Synthetic llama-7b")  # the paper's shapes first
