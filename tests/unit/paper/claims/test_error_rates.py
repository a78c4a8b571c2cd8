"""How often the tests of claims say "holds" of what is not true, and how often of what is."""

from __future__ import annotations

import numpy
import pytest
from helpers.simulated_results import Simulated

from prosparse.paper.claims.claim5 import _form
from prosparse.paper.claims.finding import Verdict
from prosparse.paper.claims.registry import CLAIMS
from prosparse.paper.results.fit import curve
from prosparse.published.claims import published_claims

SEEDS, REPEATS = 3, 200
#: 5%, and two standard errors of a share of 200
AT_MOST = 0.05 + 2 * (0.05 * 0.95 / REPEATS) ** 0.5

FINAL, LOSS = "progressive@fatrelu-0.01", 3.5
TRUE = {
    FINAL: (0.90, LOSS),
    "progressive@relu": (0.885, LOSS),
    "progressive@fatrelu-0.03": (0.93, LOSS + 0.05),
    "base@silu": (0.0, LOSS),
    "vanilla@relu": (0.66, LOSS),
    "constant-0.05@fatrelu-0.01": (0.80, LOSS + 0.03),
    "constant-0.1@fatrelu-0.01": (0.88, LOSS + 0.03),
    "constant-0.4@fatrelu-0.01": (0.92, LOSS + 0.03),
    "sft-0@relu": (0.80, LOSS),
    "sft-0.1@relu": (0.85, LOSS),
    "sft-0.4@relu": (0.90, LOSS + 0.03),
}


def _tolerance(claim, key):
    return published_claims()[claim].tolerance[key]


#: Claim -> what makes it false by nothing more than its tolerance.
FALSE = {
    (2, "as dense as the floor"): {FINAL: (_tolerance(2, "sparsity_floor") / 100, LOSS)},
    (2, "loss increase relative to the original"): {"base@silu": (0.0, LOSS - _tolerance(2, "loss"))},
    (3, "as good as the frontier"): {
        pair: (share, LOSS + _tolerance(3, "loss")) for pair, (share, _) in TRUE.items() if pair.startswith("constant")
    },
    (4, "no gain"): {FINAL: (0.885 + _tolerance(4, "gain") / 100, LOSS)},
    (4, "has a cost"): {FINAL: (0.90, LOSS + _tolerance(4, "loss"))},
    (4, "a larger threshold is free"): {"progressive@fatrelu-0.03": (0.93, LOSS + _tolerance(4, "loss"))},
    (10, "no lambda is as sparse"): {"sft-0@relu": (0.85 - _tolerance(10, "sparsity") / 100, LOSS)},
    (10, "the same lambda is as good"): {"sft-0.4@relu": (0.90, LOSS + _tolerance(10, "loss"))},
}


def _verdicts(claim, truth):
    generator = numpy.random.default_rng(claim)
    return [CLAIMS.build(f"claim{claim}", Simulated(truth, SEEDS, generator)).verdict for _ in range(REPEATS)]


@pytest.mark.slow
@pytest.mark.parametrize(("claim", "why"), FALSE)
def test_a_claim_that_is_false_by_its_tolerance_rarely_holds(claim, why):
    verdicts = _verdicts(claim, TRUE | FALSE[claim, why])
    assert verdicts.count(Verdict.HOLDS) / REPEATS <= AT_MOST


@pytest.mark.slow
@pytest.mark.parametrize("claim", sorted({claim for claim, _ in FALSE}))
def test_a_true_claim_mostly_holds(claim, record_property):
    verdicts = _verdicts(claim, TRUE)
    power = verdicts.count(Verdict.HOLDS) / REPEATS
    record_property("power", power)
    print(
        f"claim {claim}: holds in {power:.0%} of {REPEATS} simulated experiments of {SEEDS} seeds in which it is true"
    )
    assert power > 0.8
    assert verdicts.count(Verdict.FAILS) / REPEATS <= AT_MOST


@pytest.mark.parametrize("points", [5, 7])
def test_random_monotone_points_rarely_pass_as_the_papers_curve(points):
    generator = numpy.random.default_rng(points)
    factors = numpy.geomspace(0.1, 1.6, points)
    passed = 0
    for _ in range(100):
        sparsities = numpy.sort(generator.uniform(70, 99, points))
        drawn = [{"lambda": x, "sparsity": y} for x, y in zip(factors, sparsities, strict=True)]
        passed += _form(drawn).verdict is Verdict.HOLDS
    assert passed <= 5


def test_the_papers_curve_passes_with_its_noise():
    generator = numpy.random.default_rng(0)
    factors = numpy.geomspace(0.01, 3, 6)
    passed = 0
    for _ in range(50):
        sparsities = curve(factors, -1.1, 0.4, 3.9) + generator.normal(0, 0.1, 6)
        passed += _form([{"lambda": x, "sparsity": y} for x, y in zip(factors, sparsities, strict=True)]).verdict is (
            Verdict.HOLDS
        )
    assert passed >= 40
