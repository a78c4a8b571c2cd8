"""Claim 3: progressive beats constant regularization at equal sparsity and tokens."""

from __future__ import annotations

from dataclasses import replace

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import lineage_tokens
from prosparse.paper.claims.finding import Finding, Verdict, all_of, more_than
from prosparse.paper.claims.pairs import named, pair_of, rows_needs, sized, sparsity_of
from prosparse.paper.claims.quality import Quality, explained, quality
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.statistics.frontier import between
from prosparse.published.claims import published_claims
from prosparse.published.tables import published_table


def needs(experiment: Experiment) -> Needs:
    return rows_needs(
        experiment, [f"{row['scale']} {row['lambda']}" for row in published_table("table5_constant_factor")]
    )


def build(results: Results) -> Finding:
    tolerance = published_claims()[3].tolerance
    experiment, findings, measures = results.experiment, [], []
    rows = published_table("table5_constant_factor")
    for scale in dict.fromkeys(row["scale"] for row in rows):
        progressive = pair_of(experiment, f"{scale} ProSparse")
        constants = [
            pair
            for row in rows
            if row["scale"] == scale and row["lambda"] != "ProSparse"
            if (pair := pair_of(experiment, f"{scale} {row['lambda']}")) is not None
        ]
        if progressive is not None and constants:
            constants = list(dict.fromkeys(constants))
            measures.append(quality(results, [progressive, *constants], tolerance))
            findings.append(_frontier(results, scale, [progressive, *constants], measures[-1]))
    return explained(
        all_of(
            findings, "The experiment has no model with runs for both a ProSparse row and a constant-λ row of Table 5."
        ),
        measures,
    )


def _frontier(results: Results, scale: str, pairs: list[str], measure: Quality) -> Finding:
    """Compare the progressive run, the first pair, with the constant runs' frontier of quality over sparsity."""
    experiment, tolerance = results.experiment, published_claims()[3].tolerance
    (progressive, *constants), model = pairs, sized(results, scale, pairs[0])
    sparsity = {pair: sparsity_of(results, pair) for pair in pairs}
    at = sparsity[progressive].mean
    frontier = sorted(constants, key=lambda pair: sparsity[pair].mean)
    words = [f"{named(results, progressive)} reaches {at:.2f}% sparsity."]
    last = experiment.runs[experiment.pair(progressive)[0]].stages[-1]
    for pair in constants:
        other = experiment.runs[experiment.pair(pair)[0]].stages[-1]
        if not (last.steered or other.steered) and other.peak == last.peak:
            words.append(
                f"At equal λ ({last.peak:g}), it is {measure.show(measure.worse(progressive, pair))} than "
                f"{named(results, pair)}, which reaches {sparsity[pair].mean:.2f}%."
            )
    budgets = {pair: lineage_tokens(experiment, experiment.pair(pair)[0]) for pair in (progressive, *constants)}
    uneven = [
        pair
        for pair in constants
        if abs(budgets[pair] - budgets[progressive]) > tolerance["tokens_share"] * budgets[progressive]
    ]
    least, most = sparsity[frontier[0]].mean, sparsity[frontier[-1]].mean
    place = between({pair: sparsity[pair].by_seed for pair in constants}, sparsity[progressive].by_seed)
    verdict, parts = Verdict.UNTESTABLE, []
    if uneven:
        words.append(
            f"Token budgets differ by more than {tolerance['tokens_share']:.0%} "
            f"({'; '.join(named(results, pair) for pair in uneven)}), so the runs cannot be compared."
        )
    elif place is not None:
        difference = measure.costs[progressive].minus(place.sample(measure.costs)).estimate()
        parts = [
            measure.cost(
                f"{model}: {measure.gain} over constant λ at equal sparsity", -difference, _papers(scale)
            ).more_than(measure.tolerance)
        ]
        verdict = parts[0].verdict
        words.append(
            f"At equal sparsity, it is {measure.show(difference)} than the constant-λ runs, interpolated between "
            f"{named(results, place.left)} and {named(results, place.right)}."
        )
    else:
        nearest = frontier[-1] if at > most else frontier[0]
        difference = measure.worse(progressive, nearest)
        comparison = (
            f"Compared with the nearest, {named(results, nearest)} ({sparsity[nearest].mean:.2f}%), it is "
            f"{measure.show(difference)}"
        )
        if at > most and more_than(-difference, measure.tolerance) is Verdict.HOLDS:
            verdict = Verdict.HOLDS
            words.append(f"It is sparser than every constant-λ run. {comparison}, so it dominates.")
        elif at < least and more_than(-difference, measure.tolerance) is Verdict.FAILS:
            verdict = Verdict.FAILS
            words.append(f"It is denser than every constant-λ run. {comparison}, so it gains nothing.")
        else:
            words.append(
                f"It is outside the range of the constant-λ runs ({least:.2f} to {most:.2f}%), so they cannot be "
                f"compared at equal sparsity. {comparison}."
            )
        better = measure.cost(f"{model}: {measure.gain} over the nearest constant λ", -difference, _papers(scale))
        parts = [replace(better.more_than(measure.tolerance), verdict=verdict)]
    return Finding(verdict, " ".join(words), tuple(parts))


def _papers(scale: str) -> str:
    """Return the paper's performance of ProSparse and of the constant factor that comes nearest in sparsity."""
    rows = {row["lambda"]: row for row in published_table("table5_constant_factor") if row["scale"] == scale}
    progressive = rows.pop("ProSparse")

    def distance(row: dict[str, str]) -> float:
        return abs(float(row["average_sparsity"]) - float(progressive["average_sparsity"]))

    return f"{progressive['average_performance']} against {min(rows.values(), key=distance)['average_performance']}%"
