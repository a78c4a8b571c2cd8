"""Quartiles are numpy's, at every number of measurements."""

import numpy
import pytest

from prosparse.measure.quartiles import quartiles


@pytest.mark.parametrize("number", range(1, 12))
def test_quartiles_are_numpys(number):
    values = numpy.random.default_rng(number).lognormal(size=number)
    lower, median, upper = numpy.quantile(values, [0.25, 0.5, 0.75])
    expected = {"lower_quartile": lower, "median": median, "upper_quartile": upper}
    assert quartiles(list(values)) == pytest.approx(expected)
