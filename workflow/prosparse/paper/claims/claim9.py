"""Claim 9: the sparse operators reach the paper's speedups."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding, Part, Verdict, all_of, untestable
from prosparse.paper.results import operators
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.quartiles import Quartiles
from prosparse.paper.results.reader import Results
from prosparse.published.settings import settings


def needs(experiment: Experiment) -> Needs:
    return Needs(operators=experiment.operators is not None)


def build(results: Results) -> Finding:
    experiment, timings = results.experiment, operators.read(results)
    if timings is None:
        return untestable("The experiment times no operators.")
    findings, where = [], "" if timings.on_gpu else ", on a CPU"
    for setting in settings():
        if setting.name not in ("ProSparse-7B", "ProSparse-13B"):
            continue
        if operators.missing(experiment, setting.scale) is not None:
            continue
        case = timings.at(setting.scale, setting.density)
        shape = f"{case.hidden_size} × {case.intermediate_size}"
        parts, words = [], []
        for step, ending in operators.STEPS.items():
            arm = f"sparse_{ending}"
            ours = case.speedup(arm, f"dense_{ending}")
            parts.append(
                Part(
                    f"Step ({step}) at the {setting.scale} shape{where}",
                    f"{ours.median:.2f}× ({ours.lower:.2f} to {ours.upper:.2f})",
                    f"at least {setting.speedup(step):.2f}×",
                    _reaches(ours, setting.speedup(step)),
                    f"{setting.printed[f'step{step}_speedup']}×",
                )
            )
            words.append(
                f"step ({step}) reaches {case.share(arm).median:.0%} of the bandwidth of a sequential read and is "
                f"{case.speedup(arm, f'torch_{ending}').median:.2f}× as fast as torch's dense product"
            )
        findings.append(
            Finding.of(parts, f"{setting.scale} ({shape}), density {case.density:.2%}: {'; '.join(words)}.")
        )
    judged = all_of(findings, "The experiment times no operators of the 7B or 13B shape.")
    how = (
        f"Speedups are over our own dense kernel on {timings.machine}, {timings.dtype}, with different weights in "
        "every call; intervals are quartiles over rounds."
    )
    if not timings.on_gpu:
        how += " The paper measured on a GPU, for which we have no times."
    return Finding(judged.verdict, f"{how}\n{judged.evidence}", judged.parts)


def _reaches(ours: Quartiles, papers: float) -> Verdict:
    """Judge by the quartiles over rounds, whose interval for the median is narrower than they are."""
    if ours.lower >= papers:
        return Verdict.HOLDS
    return Verdict.FAILS if ours.upper < papers else Verdict.UNDECIDED
