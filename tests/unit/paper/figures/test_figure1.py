"""Figure 1."""

from __future__ import annotations

import pytest

from prosparse.paper.figures.registry import FIGURES


class _NoResults:
    class experiment:
        experiment = "none"
        seeds = (1,)

        class figures:
            schedule = ()


def test_published_stages_peak_where_the_tables_say():
    _, data = FIGURES.build("figure1", _NoResults())
    curves = {}
    for row in data["data"]:
        curves.setdefault(row["series"], []).append((row["progress"], row["lambda"]))
    assert curves["7B"][-1] == pytest.approx((16.5, 0.2))
    assert curves["13B"][-1] == pytest.approx((16.0, 0.02))
    assert curves["1B"][-1] == pytest.approx((35.0, 0.05))
    middle = min(curves["7B"], key=lambda point: abs(point[0] - 8))  # halfway up stage 2
    assert middle[1] == pytest.approx((5e-3 + 5e-2) / 2, abs=1e-3)
