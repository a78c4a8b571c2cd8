"""Claim 9 flips when its numbers flip."""

from __future__ import annotations

import pytest
from helpers.claims import verdicts_of
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.claims.finding import Verdict


@pytest.mark.parametrize(("arm", "step", "papers"), [("sparse_up", 2, 2.00), ("sparse_down", 3, 1.51)])
def test_claim9_needs_the_papers_speedup_at_its_density(synthetic, arm, step, papers):
    def at(scale, density, speedup, spread=0.005):
        def edit(value):
            case = min(
                (case for case in value["cases"] if case.get("scale") == scale),
                key=lambda case: abs(case["density"] - density),
            )
            case["cold"][arm]["times_faster_than"][arm.replace("sparse", "dense")] = {
                "median": speedup, "lower_quartile": speedup - spread, "upper_quartile": speedup + spread,
            }  # fmt: skip

        synthetic.edit(synthetic.layout.operators(), edit)
        return verdicts_of(synthetic)[9]

    assert at("7B", 0.1068, papers + 0.01).verdict == Verdict.HOLDS
    assert at("7B", 0.3302, 1.0).verdict == Verdict.HOLDS  # ReluLLaMA's density is not the claim's
    assert at("1B", 0.107, 1.0).verdict == Verdict.HOLDS  # nor is this size
    verdict = at("7B", 0.1068, papers - 0.01)
    assert verdict.verdict == Verdict.FAILS
    told = {part.quantity: part.ours.partition("×")[0] for part in verdict.parts}
    assert told[f"Step ({step}) at the 7B shape, on a CPU"] == f"{papers - 0.01:.2f}"
    assert "7B (4096 × 11008), density 10.68%: step (2) reaches" in verdict.evidence
    assert at("7B", 0.1068, papers, spread=0.1).verdict == Verdict.UNDECIDED
    at("7B", 0.1068, papers + 0.01)
    assert at("13B", 0.112, 1.0).verdict == Verdict.FAILS


def test_claim9_says_what_it_was_judged_on(synthetic):
    evidence = verdicts_of(synthetic)[9].evidence
    assert "CPU (Imaginary CPU, 2 cores; 2 threads), bfloat16" in evidence
    assert "for which we have no times" in evidence
    assert (
        "reaches 88% of the bandwidth of a sequential read and is 13.51× as fast as torch's" in evidence
    )  # 4600 / 340.5; 299 us against 340.5
    synthetic.edit(synthetic.layout.operators(), lambda value: value.update(device="Imaginary GPU"))
    evidence = verdicts_of(synthetic)[9].evidence
    assert "on Imaginary GPU, bfloat16" in evidence
    assert "CPU" not in evidence


def test_claim9_is_untestable_without_the_sizes(tmp_path):
    operators = {**CONFIG["operators"], "shapes": {"1B": [1536, 3840]}}
    assert verdicts_of(Synthetic(tmp_path, {**CONFIG, "operators": operators}).write())[9].verdict == Verdict.UNTESTABLE
