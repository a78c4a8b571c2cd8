"""Recall is interpolated between decision thresholds."""

from __future__ import annotations

import pytest

from prosparse.paper.results.prediction import Point, interpolated, read_prediction
from prosparse.paper.results.value import Value


def test_interpolation_ends_where_every_neuron_and_where_none_is_active():
    points = [Point(0.5, 90.0, 60.0), Point(0.2, 98.0, 40.0)]  # in any order
    assert interpolated(points, 0) == 100
    assert interpolated(points, 20) == pytest.approx(99)
    assert interpolated(points, 50) == pytest.approx(94)
    assert interpolated(points, 60) == 90
    assert interpolated(points, 100) == 0
    with pytest.raises(ValueError, match="not between"):
        interpolated(points, 101)


def test_seeds_are_interpolated_one_by_one(several_seeds):
    found = read_prediction(several_seeds.results, "progressive@relu")
    at = found.kinds["nonzero"].predicted_sparsity
    assert len(at.seeds) == 3
    each = [interpolated(sweep, share) for sweep, share in zip(found.kinds["marginal"].sweep, at.seeds, strict=True)]
    assert found.kinds["marginal"].recall_at(at) == Value(tuple(each))
