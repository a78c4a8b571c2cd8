"""Intervals agree with values computed by hand and with scipy's own tests."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from prosparse.paper.statistics.estimate import Estimate, mean_of_draws, sum_of


def test_an_interval_computed_by_hand():
    estimate = mean_of_draws([1.0, 2.0, 3.0])
    assert estimate.mean == 2.0
    assert estimate.error == pytest.approx(1 / math.sqrt(3))  # deviation 1, three draws
    # Student's t with two degrees of freedom: 4.3027 at 97.5 %
    assert (estimate.lower, estimate.upper) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    assert estimate.show(2) == "2.00 (95% interval -0.48 to 4.48)"


def test_the_difference_of_two_groups_is_welchs():
    one, other = [4.1, 3.9, 4.4, 4.0], [3.0, 3.6, 3.1]
    difference = sum_of([mean_of_draws(one), -mean_of_draws(other)])
    interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    assert (difference.lower, difference.upper) == pytest.approx((interval.low, interval.high))


def test_one_draw_has_no_interval_and_equal_draws_have_a_point():
    assert not mean_of_draws([3.0]).known
    assert mean_of_draws([3.0]).show(1) == "3.0 (no interval)"
    assert mean_of_draws([3.0, 3.0]) == Estimate(3.0, 0.0, 1)
    assert not sum_of([mean_of_draws([3.0]), Estimate(1.0, 0.1, 5)]).known


def test_without_limit_on_the_freedom_the_interval_is_normal():
    assert Estimate(0.0, 1.0).upper == pytest.approx(1.959964, abs=1e-5)
