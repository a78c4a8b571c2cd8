"""Claim 1 flips when its numbers flip."""

from __future__ import annotations

import pytest
from helpers.claims import verdicts_of

from prosparse.paper.claims.finding import Verdict


def _shift(synthetic, run, step, share):
    """Make a run's checkpoint at ``step`` sparser by ``share``."""

    def edit(value):
        entry = next(entry for entry in value["measurements"] if entry["step"] == step)
        for corpus in entry["corpora"].values():
            corpus["sequences"]["sparsity"] = [x + share for x in corpus["sequences"]["sparsity"]]

    synthetic.edit(synthetic.layout.stage_sparsity(run, 1), edit)


def test_claim1_is_judged_on_heldout_text(synthetic):
    verdict = verdicts_of(synthetic)[1]
    assert verdict.verdict is Verdict.HOLDS
    assert "the 140 steps of stages with λ > 0" in verdict.evidence
    # 20 points in 140 steps, none of them Vanilla ReLU's
    assert "ProSparse changes by +142.86 points per 1,000 steps, and that of Vanilla ReLU by +0.00" in verdict.evidence


@pytest.mark.parametrize(
    ("run", "step", "share"),
    [
        ("vanilla", 180, 0.06),  # it rises without lambda
        ("progressive", 180, -0.16),  # lambda gains 4 points
    ],
)
def test_claim1_flips(synthetic, run, step, share):
    _shift(synthetic, run, step, share)
    assert verdicts_of(synthetic)[1].verdict is Verdict.FAILS


def test_claim1_is_relative_to_vanilla_at_the_same_steps(synthetic):
    _shift(synthetic, "vanilla", 180, 0.04)
    _shift(synthetic, "progressive", 180, -0.12)  # gains 8 points, of which Vanilla ReLU gains 4
    assert verdicts_of(synthetic)[1].verdict is Verdict.FAILS
