"""Paired samples: hand-computed cases, and intervals that cover the truth as often as they say."""

from __future__ import annotations

import numpy
import pytest
from scipy import stats

from prosparse.paper.statistics.sample import Sample, Stratum


def _sample(*strata, run="one", assumed=None):
    return Sample(
        {str(i): Stratum(weight, numpy.array(values, float)) for i, (weight, values) in enumerate(strata)},
        frozenset({run}),
        assumed,
    )


def test_rows_of_one_seed_are_paired():
    one, other = [3.1, 2.9, 4.0, 3.5], [3.0, 2.9, 3.8, 3.3]
    difference = _sample((1.0, [one])).minus(_sample((1.0, [other]))).estimate()
    interval = stats.ttest_rel(one, other).confidence_interval()
    assert (difference.lower, difference.upper) == pytest.approx((interval.low, interval.high))


def test_strata_are_weighted():
    # means 2 and 20, errors sqrt(1 / 3) and sqrt(2 / 2): weights 0.25 and 0.75
    estimate = _sample((0.25, [[1, 2, 3]]), (0.75, [[19, 21]])).estimate()
    assert estimate.mean == 15.5
    assert estimate.error == pytest.approx((0.25**2 / 3 + 0.75**2) ** 0.5)


def test_seeds_add_their_own_error():
    values = [[1.0, 3.0], [2.0, 4.0], [6.0, 8.0]]  # rows differ by 2, seeds average 2, 3 and 7
    estimate = _sample((1.0, values)).estimate()
    over_rows, over_seeds = 2.0 / 2, 7.0 / 3
    assert estimate.mean == 4.0
    assert estimate.error == pytest.approx((over_rows + over_seeds) ** 0.5)
    assert estimate.freedom == pytest.approx((over_rows + over_seeds) ** 2 / (over_rows**2 / 1 + over_seeds**2 / 2))


def test_one_seed_says_nothing_about_other_runs():
    one, other = _sample((1.0, [[1.0, 2.0]]), run="one"), _sample((1.0, [[1.5, 2.4]]), run="other")
    assert one.estimate().known  # for this run
    assert not one.minus(other).estimate().known
    assert one.minus(one).estimate().error == 0
    assumed = [_sample((1.0, values), run=run, assumed=0.3) for run, values in (("one", [[1, 2]]), ("other", [[1, 2]]))]
    assert assumed[0].minus(assumed[1]).estimate().error == pytest.approx(0.3)


def test_a_factor_per_seed():
    sample = _sample((1.0, [[1.0, 3.0], [2.0, 4.0]]))
    assert sample.times([0.5, 2.0]).by_seed == [1.0, 6.0]
    assert sample.times(-1).mean == -2.5


def test_other_rows_cannot_be_paired():
    with pytest.raises(ValueError, match="rows"):
        _sample((1.0, [[1.0, 2.0]])).minus(_sample((1.0, [[1.0, 2.0, 3.0]])))


@pytest.mark.parametrize(("seeds", "over_seeds"), [(3, 0.0), (3, 0.2), (3, 1.0), (5, 1.0)])
def test_the_interval_covers_the_truth_at_least_as_often_as_it_says(seeds, over_seeds):
    """Rows vary by 0.5 in 12 strata of 16 rows, seeds by ``over_seeds``, a row in a seed by 0.2."""
    generator = numpy.random.default_rng(0)
    covered = 0
    for _ in range(600):
        shared = generator.normal(0, 0.1 * over_seeds, (seeds, 1))
        strata = [
            (1 / 12, shared + generator.normal(0, 0.5, (1, 16)) + generator.normal(0, 0.2, (seeds, 16)))
            for _ in range(12)
        ]
        estimate = _sample(*strata).estimate()
        covered += estimate.lower <= 0 <= estimate.upper
    assert covered / 600 > 0.93  # 0.95, less two standard errors of this count
