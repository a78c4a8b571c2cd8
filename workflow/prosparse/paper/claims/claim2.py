"""Claim 2: ProSparse is sparse at the original model's quality."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import lineage_tokens
from prosparse.paper.claims.finding import Finding, all_of
from prosparse.paper.claims.pairs import pair_of, rows_needs, sparsity_of
from prosparse.paper.claims.quality import quality
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.origins import origin
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims
from prosparse.published.tables import SCALES, published_table


def needs(experiment: Experiment) -> Needs:
    keys = [key for scale, (original, _, final) in SCALES.items() for key in (original, final, f"Vanilla ReLU-{scale}")]
    return rows_needs(experiment, keys)


def build(results: Results) -> Finding:
    tolerance = published_claims()[2].tolerance
    experiment, findings = results.experiment, []
    for scale, (original_row, _, final_row) in SCALES.items():
        original, final = pair_of(experiment, original_row), pair_of(experiment, final_row)
        if original is None or final is None:
            continue
        vanilla = pair_of(experiment, f"Vanilla ReLU-{scale}")
        measure = quality(results, [p for p in (original, final, vanilla) if p is not None], tolerance)
        sparsity, worse = sparsity_of(results, final), measure.worse(final, original)
        confounded = _confounded(
            experiment, experiment.pair(original)[0], experiment.pair(final)[0], measure.unit == "nats/token"
        )
        words = (
            f"{scale}: `{final}` reaches {sparsity:.2f} % sparsity (required: {tolerance['sparsity_floor']:g}; "
            f"paper: {_printed(final_row)}) and is "
            f"{measure.show(worse)} than `{original}` (tolerance {measure.tolerance:g}). {measure.explanation}"
        )
        holds: bool | None = sparsity >= tolerance["sparsity_floor"] and worse.mean <= measure.tolerance
        if confounded:
            words += f" Compared with the original, it {confounded}."
        if vanilla is not None:
            cost = measure.worse(final, vanilla)
            words += f" At equal tokens it is {measure.show(cost)} than `{vanilla}`."
            if holds and confounded and cost.mean > measure.tolerance:
                holds = None
                words += " The extra training may hide the cost of sparsity, so this is undecided."
        elif holds and confounded:
            holds = None
            words += " No Vanilla ReLU run shows what that training gains by itself, so this is undecided."
        findings.append(Finding(holds, words))
    return all_of(findings, "No runs stand for both an original and its ProSparse row.")


def _confounded(experiment: Experiment, original: str, final: str, by_loss: bool) -> str:
    """Describe what, besides sparsity, ``final`` had and ``original`` did not; empty if negligible.

    Our training is negligible compared with that of a pretrained original, unless quality is the loss on held-out
    text of corpora that only our model was trained on.
    """
    seen, total = lineage_tokens(experiment, original), lineage_tokens(experiment, final)
    pretrained = bool(origin(experiment, original)[1])
    if pretrained and not by_loss:
        return ""
    if pretrained or seen == 0:
        words = f"was trained on {total:,} tokens of this experiment's corpora, the original on {seen:,}"
        return words if total > seen else ""
    extra = total / seen - 1
    gained = [f"saw {extra:.0%} more tokens"] if extra > 0.1 else []
    mixtures = experiment.runs[original].mixture, experiment.runs[final].mixture
    if experiment.data.mixtures[mixtures[0]] != experiment.data.mixtures[mixtures[1]]:
        gained.append(f"trained on other data (mixture `{mixtures[1]}` after `{mixtures[0]}`)")
    return " and ".join(gained)


def _printed(setting: str) -> str:
    return next(row["average_sparsity"] for row in published_table("table1_overall") if row["setting"] == setting)
