"""An operator's time as a line over density."""

from __future__ import annotations

import numpy
import pytest
from helpers.tables import cells_of

from prosparse.paper.results.operator_lines import line, published_line
from prosparse.paper.tables.registry import TABLES
from prosparse.published.settings import settings


def test_line_is_least_squares():
    densities, times = [0.05, 0.1, 0.2, 0.4, 0.5], [31.0, 44.0, 70.0, 120.0, 149.0]
    found = line(densities, times)
    (slope, fixed), covariance = numpy.polyfit(densities, times, 1, cov=True)
    assert (found.fixed, found.slope) == pytest.approx((fixed, slope))
    assert (found.slope_error, found.fixed_error) == pytest.approx(tuple(numpy.sqrt(numpy.diag(covariance))))
    assert line([0.1, 0.2], [3, 4]).fixed_error is None
    assert line([0.1, 0.1], [3, 4]) is None


@pytest.mark.parametrize(
    ("scale", "step", "fixed", "slope"), [("7B", 2, 34, 101), ("7B", 3, 51, 35), ("13B", 2, 44, 92), ("13B", 3, 61, 50)]
)
def test_published_line(synthetic, scale, step, fixed, slope):
    found = published_line(scale, step)
    assert (found.fixed, found.slope) == pytest.approx((fixed, slope), abs=0.6)
    for setting in settings():  # within the paper's own scatter, so the line describes its rows
        if setting.scale == scale and not setting.is_dense:
            assert found.at(setting.density) == pytest.approx(setting.microseconds(step), rel=0.05)
    cells = cells_of(TABLES.build("table2_operators_fit", synthetic.results), f"{scale}, step ({step})", "cold")
    assert cells["fixed_us"].published.startswith(f"{found.fixed:.1f} ± ")
    assert cells["slope_us"].published.startswith(f"{found.slope:.1f} ± ")
    assert float(cells["fixed_share"].published) == pytest.approx(100 * found.fixed / found.at(0.1068), abs=0.05)
