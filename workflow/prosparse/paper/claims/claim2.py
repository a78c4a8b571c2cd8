"""Claim 2: ProSparse is sparse at the original model's quality."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import lineage_tokens
from prosparse.paper.claims.finding import Finding, Part, Quantity, Verdict, all_of
from prosparse.paper.claims.pairs import named, pair_of, rows_needs, sparsity_of, written_out
from prosparse.paper.claims.quality import Quality, quality
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.origins import origin
from prosparse.paper.results.reader import Results
from prosparse.published.claims import published_claims
from prosparse.published.tables import SCALES, published_table


def needs(experiment: Experiment) -> Needs:
    keys = [key for original, _, final in SCALES.values() for key in (original, final)]
    vanillas = [pair for scale in SCALES if (pair := _vanilla(experiment, scale)) is not None]
    return rows_needs(experiment, keys) | Needs.of_pairs(experiment, vanillas)


def build(results: Results) -> Finding:
    findings = []
    for scale, (original_row, _, final_row) in SCALES.items():
        original, final = pair_of(results.experiment, original_row), pair_of(results.experiment, final_row)
        if original is not None and final is not None:
            findings.append(_of_scale(results, scale, original, final))
    return all_of(findings, "No runs stand for both an original and its ProSparse row.")


def _vanilla(experiment: Experiment, scale: str) -> str | None:
    """Return the Vanilla ReLU pair of a scale; the paper has such a row for 7B only."""
    found = experiment.vanilla.get(scale)  # type: ignore[call-overload]
    return pair_of(experiment, f"Vanilla ReLU-{scale}") if found is None else written_out(experiment, found)


def _of_scale(results: Results, scale: str, original: str, final: str) -> Finding:
    """Judge both parts: at the original's quality, and at that of Vanilla ReLU at equal tokens.

    The claim is about the original. The second part decides too where the original saw less training or other data.
    """
    tolerance = published_claims()[2].tolerance
    experiment, floor = results.experiment, tolerance["sparsity_floor"]
    vanilla = _vanilla(experiment, scale)
    measure = quality(results, [final, original, *([vanilla] if vanilla is not None else [])], tolerance)
    sparsity, worse = sparsity_of(results, final).estimate(), measure.worse(final, original)
    name = named(results, final)
    parts = [
        Quantity(f"Sparsity, {scale}", sparsity, "%", paper=f"{_printed(scale, 'average_sparsity')[-1]} %").more_than(
            floor
        ),
        measure.cost(f"Worse than the original, {scale}", worse, _papers_change(scale)).at_most(measure.tolerance),
    ]
    words = (
        f"{scale}: {name} reaches {sparsity.show(2)} % sparsity (required: {floor:g}; paper: "
        f"{_printed(scale, 'average_sparsity')[-1]}) and is {measure.show(worse)} than {named(results, original)} "
        f"(allowed: {measure.tolerance:g}). {measure.explanation}"
    )
    confounded = _confounded(experiment, original, final, measure)
    if confounded:
        words += f" Compared with the original, it {confounded}, so Vanilla ReLU at equal tokens decides too."
    if vanilla is not None:
        cost = measure.worse(final, vanilla)
        against_vanilla = measure.cost(f"Worse than Vanilla ReLU, {scale}", cost).at_most(measure.tolerance)
        words += (
            f" At equal tokens it is {measure.show(cost)} than {named(results, vanilla)} (allowed: "
            f"{measure.tolerance:g}): {against_vanilla.verdict.value}."
        )
    else:
        limit = f"at most {measure.tolerance:g}"
        against_vanilla = Part(f"Worse than Vanilla ReLU, {scale}", "no run", limit, Verdict.UNDECIDED)
        words += " No run shows what Vanilla ReLU reaches at equal tokens."
    return Finding.of([*parts, *([against_vanilla] if confounded else [])], words)


def _confounded(experiment: Experiment, original_pair: str, final_pair: str, measure: Quality) -> str:
    """Describe what, besides sparsity, the final run had and the original did not; empty if negligible.

    Our training is negligible compared with that of a pretrained original, unless quality is the loss on held-out
    text of corpora that only our model was trained on.
    """
    original, final = experiment.pair(original_pair)[0], experiment.pair(final_pair)[0]
    seen, total = lineage_tokens(experiment, original), lineage_tokens(experiment, final)
    pretrained = bool(origin(experiment, original)[1])
    if pretrained and measure.unit != "nats/token":
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


def _printed(scale: str, column: str) -> list[str]:
    """Return the paper's numbers of the original, and of ProSparse without and with threshold shifting."""
    rows = {row["setting"]: row for row in published_table("table1_overall")}
    return [rows[setting][column] for setting in SCALES[scale]]


def _papers_change(scale: str) -> str:
    original, _, final = map(float, _printed(scale, "average_performance"))
    return f"{final - original:+.2f} points of performance"
