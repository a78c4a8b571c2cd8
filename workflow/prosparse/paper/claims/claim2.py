"""Claim 2: ProSparse is sparse at the original model's quality."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import lineage_tokens
from prosparse.paper.claims.finding import Finding, Part, Quantity, Verdict, all_of
from prosparse.paper.claims.pairs import named, pair_of, rows_needs, sized, sparsity_of, written_out
from prosparse.paper.claims.quality import Quality, explained, quality
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
    findings, measures = [], []
    for scale, (original_row, _, final_row) in SCALES.items():
        original, final = pair_of(results.experiment, original_row), pair_of(results.experiment, final_row)
        if original is not None and final is not None:
            vanilla = _vanilla(results.experiment, scale)
            pairs = [final, original, *([vanilla] if vanilla is not None else [])]
            measures.append(quality(results, pairs, published_claims()[2].tolerance))
            findings.append(_of_scale(results, scale, pairs, measures[-1]))
    return explained(
        all_of(findings, "The experiment has no model with runs for both its original and its ProSparse row."), measures
    )


def _vanilla(experiment: Experiment, scale: str) -> str | None:
    """Return the Vanilla ReLU pair of a scale; the paper has such a row for 7B only."""
    found = experiment.vanilla.get(scale)  # type: ignore[call-overload]
    return pair_of(experiment, f"Vanilla ReLU-{scale}") if found is None else written_out(experiment, found)


def _of_scale(results: Results, scale: str, pairs: list[str], measure: Quality) -> Finding:
    """Judge both parts: at the original's quality, and at that of Vanilla ReLU at equal tokens.

    The claim is about the original. The second part decides too where the original saw less training or other data.

    Args:
        pairs: ProSparse, the original, and Vanilla ReLU if there is such a run.
    """
    floor, model = published_claims()[2].tolerance["sparsity_floor"], sized(results, scale, pairs[0])
    final, original, *vanilla = pairs
    printed = f"{_printed(scale, 'average_sparsity')[-1]}%"
    parts = [
        Quantity(f"{model}: sparsity", sparsity_of(results, final).estimate(), "%", paper=printed).more_than(floor),
        measure.cost(
            f"{model}: {measure.drop} relative to the original", measure.worse(final, original), _papers_change(scale)
        ).at_most(measure.tolerance),
    ]
    words = f"{named(results, final)} is compared with {named(results, original)}."
    confounded = _confounded(results.experiment, original, final, measure)
    if confounded:
        words += (
            f" It {confounded} than the original, so the comparison with Vanilla ReLU at equal tokens decides as well."
        )
    name = f"{model}: {measure.drop} relative to Vanilla ReLU"
    if vanilla:
        cost = measure.worse(final, vanilla[0])
        against_vanilla = measure.cost(name, cost).at_most(measure.tolerance)
        words += f" At equal tokens, it is {measure.show(cost)} than {named(results, vanilla[0])}."
    else:
        against_vanilla = Part(name, "no run", f"at most {measure.tolerance:g}", Verdict.UNDECIDED)
        words += " There is no Vanilla ReLU run with as many tokens."
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
        return f"was trained on {total - seen:,} more tokens" if total > seen else ""
    extra = total / seen - 1
    gained = [f"{extra:.0%} more tokens"] if extra > 0.1 else []
    mixtures = experiment.runs[original].mixture, experiment.runs[final].mixture
    if experiment.data.mixtures[mixtures[0]] != experiment.data.mixtures[mixtures[1]]:
        gained.append(f"other data (mixture `{mixtures[1]}` after `{mixtures[0]}`)")
    return f"was trained on {' and '.join(gained)}" if gained else ""


def _printed(scale: str, column: str) -> list[str]:
    """Return the paper's numbers of the original, and of ProSparse without and with threshold shifting."""
    rows = {row["setting"]: row for row in published_table("table1_overall")}
    return [rows[setting][column] for setting in SCALES[scale]]


def _papers_change(scale: str) -> str:
    original, _, final = map(float, _printed(scale, "average_performance"))
    return f"{final - original:+.2f} points of performance"
