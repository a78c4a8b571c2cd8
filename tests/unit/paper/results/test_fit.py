"""Figure 3's fit recovers what its points were made with."""

from __future__ import annotations

import math
import random

import pytest
from helpers.synthetic_results import FIT

from prosparse.paper.results.fit import curve, fit
from prosparse.published.tables import FIGURE3_FIT, published_table


@pytest.mark.parametrize("planted", [FIT, FIGURE3_FIT, (-0.5, 0.9, 4.2), (-3.0, 0.1, 5.0)])
def test_fit_recovers_planted_parameters(planted):
    factors = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    found = fit(factors, [curve(x, *planted) for x in factors])
    assert (found.a, found.b, found.c) == pytest.approx(planted, rel=1e-3)
    assert found.r_squared == pytest.approx(1)
    assert found.degrees_of_freedom == 5


def test_fit_is_least_squares_in_sparsity():
    """No nearby parameters do better than the fit on noisy points."""
    noise = random.Random(0)
    factors = [0.01, 0.03, 0.1, 0.3, 1.0]
    sparsities = [curve(x, *FIT) + noise.gauss(0, 0.4) for x in factors]
    found = fit(factors, sparsities)

    def error(a, b, c):
        return sum((y - curve(x, a, b, c)) ** 2 for x, y in zip(factors, sparsities, strict=True))

    best = error(found.a, found.b, found.c)
    for _ in range(300):
        near = [p * (1 + noise.uniform(-0.02, 0.02)) for p in (found.a, found.b, found.c)]
        assert error(*near) >= best - 1e-9
    assert found.residual_deviation == pytest.approx(math.sqrt(best / 2))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    noise = random.Random(1)
    factors = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
    inside = 0
    for _ in range(60):
        found = fit(factors, [curve(x, *FIT) + noise.gauss(0, 0.3) for x in factors])
        low, high = found.interval(0.3)
        inside += low <= curve(0.3, *FIT) <= high
    assert inside >= 50  # 57 expected


def test_an_exponent_that_the_points_do_not_determine_is_said_so():
    power_law = [100 - 20 * x**-0.2 for x in (0.05, 0.1, 0.2, 0.4, 0.8)]  # the limit of a small exponent
    found = fit([0.05, 0.1, 0.2, 0.4, 0.8], power_law)
    assert not found.identified
    assert abs(found.a) < 100
    assert found.r_squared > 0.99
    assert fit([0.01, 0.1, 1.0, 3.0], [curve(x, *FIT) for x in (0.01, 0.1, 1.0, 3.0)]).identified


def test_fit_refuses_what_it_cannot_determine():
    with pytest.raises(ValueError, match="three distinct"):
        fit([0.1, 0.1, 0.2], [80, 81, 85])
    with pytest.raises(ValueError, match="lambda_S > 0"):
        fit([0, 0.1, 0.2], [60, 80, 85])
    assert fit([0.01, 0.1, 1.0], [70, 80, 90]).interval(0.1) is None


def test_the_published_fit_is_near_the_published_sparsities():
    """Table 5's 7B runs at constant lambda, within 2 points of figure 3's curve."""
    for row in published_table("table5_constant_factor"):
        if row["scale"] == "7B" and row["lambda"] != "ProSparse":
            assert curve(float(row["lambda"]), *FIGURE3_FIT) == pytest.approx(float(row["average_sparsity"]), abs=2.5)
    assert curve(0.2, -1.76, 0.30, 3.49) == pytest.approx(100 - math.exp(-1.76 * 0.2**0.3 + 3.49))
