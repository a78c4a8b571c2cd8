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
    assert (
        f"7B (4096 × 11008), density 10.68%: step (2) is {'1.99' if step == 2 else '8.87'}× as fast" in verdict.evidence
    )
    assert f"step ({step}) is {papers - 0.01:.2f}× as fast as our own dense kernel (paper {papers:.2f};" in (
        verdict.evidence
    )
    assert at("7B", 0.1068, papers, spread=0.1).verdict == Verdict.UNDECIDED
    at("7B", 0.1068, papers + 0.01)
    assert at("13B", 0.112, 1.0).verdict == Verdict.FAILS


def test_claim9_says_what_it_was_judged_on(synthetic):
    evidence = verdicts_of(synthetic)[9].evidence
    assert "CPU (Imaginary CPU, 2 cores; 2 threads), bfloat16" in evidence
    assert "Judged on a CPU" in evidence
    assert "13.51× as fast as torch's, at 88% of the bandwidth" in evidence  # 4600 / 340.5; 299 us against 340.5
    synthetic.edit(synthetic.layout.operators(), lambda value: value.update(device="Imaginary GPU"))
    evidence = verdicts_of(synthetic)[9].evidence
    assert evidence.startswith("On Imaginary GPU, bfloat16")
    assert "CPU" not in evidence


def test_claim9_is_untestable_without_the_sizes(tmp_path):
    operators = {**CONFIG["operators"], "shapes": {"1B": [1536, 3840]}}
    assert verdicts_of(Synthetic(tmp_path, {**CONFIG, "operators": operators}).write())[9].verdict == Verdict.UNTESTABLE
