"""Means, spreads and errors of measured numbers."""

from __future__ import annotations

import math
import statistics

import pytest

from prosparse.paper.results.value import Value, mean_of


def test_spread_is_the_sample_standard_deviation_over_seeds(several_seeds):
    measured = several_seeds.results.sparsity("progressive", "relu")
    losses = [3.49 + 0.002 * seed for seed in (1, 2, 3)]
    assert measured.loss.mean == pytest.approx(statistics.mean(losses))
    assert measured.loss.spread == pytest.approx(0.002)
    assert len(measured.layers) == 6


def test_one_seed_has_no_spread(synthetic):
    assert synthetic.results.sparsity("progressive", "relu").loss.spread is None


def test_errors_of_means_add_in_quadrature_and_do_not_shrink_with_seeds():
    a, b = Value((10.0, 12.0), (3.0, 3.0)), Value((20.0, 22.0), (4.0, 4.0))
    mean = mean_of([a, b])
    assert mean.seeds == (15.0, 17.0)
    assert mean.standard_error == pytest.approx(2.5)  # sqrt(9 + 16) / 2
    assert mean.spread == pytest.approx(math.sqrt(2))
    assert mean.total_error == pytest.approx(math.hypot(2.5, 1.0))  # sqrt(2) / sqrt(2 seeds)
    assert a.minus(b).standard_error == pytest.approx(5.0)
