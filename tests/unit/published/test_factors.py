"""The paper's λ and sparsity, against its tables and Figure 3."""

from __future__ import annotations

import math

import pytest

from prosparse.published.factors import reference


def test_the_curves_pass_near_what_is_published():
    """Within 0.7 points of every point of Table 5, less FATReLU's 1.21 (7B) and 0.83 points (13B)."""
    expected = {
        "7B": {0.05: 85.95 - 1.21, 0.1: 88.62 - 1.21, 0.5: 93.15 - 1.21},
        "13B": {0.01: 86.23 - 0.83, 0.02: 88.96 - 0.83, 0.05: 92.65 - 0.83},
        "1B": {0.05: 86.25},
    }
    for scale, points in expected.items():
        found = reference(scale)
        assert dict(found.points) == pytest.approx(points)
        for factor, sparsity in points.items():
            assert found.sparsity(factor) == pytest.approx(sparsity, abs=0.7)
    assert {scale: reference(scale).factor for scale in expected} == {"7B": 0.2, "13B": 0.02, "1B": 0.05}
    # one point is met
    assert reference("1B").sparsity(0.05) == pytest.approx(86.25)


def test_the_7b_curve_is_figure_3_within_a_point():
    for factor in (0.01, 0.05, 0.1, 0.2, 0.5):
        printed = 100 - math.exp(-1.76 * factor**0.30 + 3.49)
        assert reference("7B").sparsity(factor) == pytest.approx(printed, abs=1)


def test_factors_and_sparsities_are_inverse():
    found = reference("13B")
    for factor in (1e-4, 0.02, 3.0):
        assert found.factor_of(found.sparsity(factor)) == pytest.approx(factor)
    # 67.2% is the curve's value without λ
    assert found.factor_of(67.0) is None
    assert found.factor_of(100.0) == math.inf
