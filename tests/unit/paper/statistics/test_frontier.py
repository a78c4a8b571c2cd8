"""Interpolation between the points of a frontier."""

from __future__ import annotations

import numpy
import pytest

from prosparse.paper.statistics.frontier import between
from prosparse.paper.statistics.sample import Sample, Stratum


def sample(values):
    return Sample({"rows": Stratum(1.0, numpy.array(values, float))}, frozenset({str(values)}))


def test_a_quantity_is_interpolated_row_by_row_and_seed_by_seed():
    # the place is 1/4 of the way in the first seed, 1/2 in the second
    place = between({"far": [9, 9], "low": [1, 2], "high": [5, 4]}, [2, 3])
    assert (place.left, place.right, place.shares) == ("low", "high", (0.25, 0.5))
    found = place.sample({"low": sample([[4, 8], [1, 3]]), "high": sample([[8, 16], [3, 7]]), "far": sample([[0, 0]])})
    assert found.strata["rows"].values.tolist() == [[5, 10], [2, 5]]
    assert place.by_seed({"low": [4, 1], "high": [8, 3]}) == [5, 2]


def test_a_contrast_of_interpolated_samples_stays_paired():
    """What all points share in a row cancels, so that only the difference is left, without an error."""
    shared = numpy.array([[0.0, 1.0, 5.0], [2.0, 3.0, 7.0]])
    place = between({"a": [0, 0], "b": [1, 1]}, [0.5, 0.5])
    one = place.sample({"a": sample(shared + 1), "b": sample(shared + 2)})
    other = place.sample({"a": sample(shared), "b": sample(shared + 0.5)})
    difference = one.minus(other).estimate()
    assert (difference.mean, difference.error) == (pytest.approx(1.25), pytest.approx(0))


@pytest.mark.parametrize(("at", "neighbors"), [(1, ("a", "b")), (4, ("b", "c")), (9, ("b", "c"))])
def test_the_ends_are_inside(at, neighbors):
    place = between({"c": [9], "a": [1], "b": [3]}, [at])
    assert (place.left, place.right) == neighbors


@pytest.mark.parametrize("at", [0.9, 9.1])
def test_nothing_is_extrapolated(at):
    assert between({"a": [1], "c": [9]}, [at]) is None


@pytest.mark.parametrize(("at", "neighbors", "share"), [(0.5, ("a", "b"), -0.25), (10, ("b", "c"), 7 / 6)])
def test_slightly_outside_the_two_nearest_points_are_extrapolated(at, neighbors, share):
    points = {"c": [9], "a": [1], "b": [3]}
    place = between(points, [at], beyond=1)
    assert (place.left, place.right) == neighbors
    assert place.shares == pytest.approx((share,))
    assert between(points, [at], beyond=0.4) is None


def test_one_point_is_no_frontier():
    assert between({"a": [1]}, [1]) is None


def test_one_point_nearby_is_taken_as_it_is():
    place = between({"a": [1, 1.2]}, [1.3, 1.3], beyond=0.5)
    assert place.by_seed({"a": [5, 6]}) == [5, 6]
    assert between({"a": [1, 1.2]}, [2, 2], beyond=0.5) is None


def test_equal_points_do_not_divide_by_zero():
    assert between({"a": [1, 1], "b": [1, 1]}, [1, 1]).shares == (0.0, 0.0)
