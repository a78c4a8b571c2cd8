"""Claim 8: higher sparsity raises activation recall, predicted sparsity and speed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from prosparse.experiment import table2_rows
from prosparse.experiment.experiment import Experiment
from prosparse.paper.claims.finding import Finding, Part, Verdict, all_hold, all_of, more_than, untestable
from prosparse.paper.claims.pairs import named, sized
from prosparse.paper.results import accelerated
from prosparse.paper.results.decoding import Model, best_model, every_decoding, synthetic_decoding, trained_decoding
from prosparse.paper.results.decoding import named as named_model
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.prediction import read_prediction
from prosparse.paper.results.quartiles import Quartiles
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import Value, exact
from prosparse.paper.statistics.estimate import Estimate, mean_of_draws
from prosparse.published.claims import published_claims
from prosparse.published.settings import largest_speedup, settings


def needs(experiment: Experiment) -> Needs:
    if experiment.predictors is None or experiment.decoding is None:
        return Needs()
    return accelerated.prediction_needs(experiment) | accelerated.decoding_needs(experiment)


@dataclass(frozen=True)
class Compared:
    """The quantities compared between rows, shares in percent and per seed; None if not measured."""

    name: str
    sparsity: float
    recall: Value | None
    predicted_sparsity: Value | None
    speedup: Quartiles | None

    def __str__(self) -> str:
        words = [f"{self.name} ({self.sparsity:.2f}% sparsity)"]
        if self.recall is not None:
            words.append(f"recall {self.recall.mean:.2f}%")
        if self.predicted_sparsity is not None:
            words.append(f"predicted sparsity {self.predicted_sparsity.mean:.2f}%")
        if self.speedup is not None:
            words.append(f"speedup {self.speedup.median:.2f}×")
        return ", ".join(words)


def ordered(group: str, rows: list[Compared], tolerance: dict[str, float]) -> Finding:
    """Test whether, of every two rows further apart than the tolerance, the sparser is higher in everything."""
    rows, apart_by = sorted(rows, key=lambda row: row.sparsity), tolerance["sparsity"]
    apart = [(low, high) for low, high in combinations(rows, 2) if high.sparsity - low.sparsity > apart_by]
    listed = f"{group}: {len(rows)} rows, from {rows[0]}, to {rows[-1]}." if len(rows) > 1 else f"{group}: {rows[0]}."
    if not apart:
        return untestable(f"{listed} No two rows differ by more than {apart_by:g} points of sparsity.")
    parts: dict[str, Verdict] = {}  # what would contradict the claim -> the verdict
    speeds: dict[str, Verdict] = {}
    for low, high in apart:
        for what in ("recall", "predicted_sparsity"):
            less, more = getattr(low, what), getattr(high, what)
            if less is not None and more is not None:
                words = f"{high.name} does not have a higher {what.replace('_', ' ')} than {low.name}"
                parts[words] = more_than(_difference(more, less), -tolerance["recall"])
        if low.speedup is not None and high.speedup is not None:
            speeds[f"{high.name} is not faster than {low.name}"] = _faster(high.speedup, low.speedup)
    told = {words: verdict for words, verdict in speeds.items() if verdict is not Verdict.UNDECIDED}
    parts |= told
    number = f"{len(apart)} pair{'s' if len(apart) > 1 else ''} more than {apart_by:g} points apart"
    verdict = all_hold(list(parts.values()))
    against = [words for words, part in parts.items() if part is Verdict.FAILS]
    open_ = [words for words, part in parts.items() if part is Verdict.UNDECIDED]
    if against:
        words = f"But {'; '.join(against)}."
    elif open_:
        words = f"In {number}, these are too close to call: {'; '.join(_affirmed(word) for word in open_)}."
    else:
        close = f" ({len(speeds) - len(told)} speeds are too close to call)" if len(told) < len(speeds) else ""
        words = f"In {number}, the sparser row is higher in every comparison that can be decided{close}."
    held = f"{list(parts.values()).count(Verdict.HOLDS)} of {len(parts)}"
    decided = Part(f"{group}: comparisons in which the sparser row is higher", held, "all", verdict)
    return Finding(verdict, f"{listed} {words}", (decided,) if parts else ())


def _affirmed(denial: str) -> str:
    return denial.replace("does not have", "has").replace("is not faster", "is faster")


def _difference(more: Value, less: Value) -> Estimate:
    """Estimate the difference over seeds; of one seed it is taken as it is, and the tolerance allows for noise."""
    differences = more.minus(less).seeds
    return mean_of_draws(differences) if len(differences) > 1 else Estimate(differences[0])


def _faster(one: Quartiles, other: Quartiles) -> Verdict:
    if one.lower > other.upper:
        return Verdict.HOLDS
    return Verdict.FAILS if one.upper < other.lower else Verdict.UNDECIDED


def papers_rows(scale: str) -> list[Compared]:
    """Return the paper's own sparse rows of a scale; its speeds have no spread."""
    found = []
    for row in settings():
        if row.scale == scale and not row.is_dense:
            printed = row.printed
            speed = float(printed["inference_speed_tokens_per_s"] or "nan")
            found.append(
                Compared(
                    row.name,
                    float(printed["average_sparsity"]),
                    exact(float(printed["activation_recall"])),
                    exact(float(printed["predicted_sparsity"])),
                    None if speed != speed else Quartiles(speed, speed, speed),
                )
            )
    return found


def build(results: Results) -> Finding:
    tolerance = published_claims()[8].tolerance
    experiment = results.experiment
    for reason in (accelerated.missing_predictors(experiment), accelerated.missing_decoding(experiment)):
        if reason is not None:
            return untestable(f"The claim needs predictors and decoding speed: {reason}.")
    orders = [ordered(group, rows, tolerance) for group, rows in _groups(results).items()]
    largest = _largest(results)
    found = all_of([*orders, largest], "")
    is_ordered = any(order.verdict is not Verdict.UNTESTABLE for order in orders)
    return found if is_ordered or found.verdict is Verdict.FAILS else untestable(found.evidence)


def _groups(results: Results) -> dict[str, list[Compared]]:
    """Return our trained rows by scale, then each shape's synthetic models, which are compared by speed only."""
    groups: dict[str, list[Compared]] = {}
    decoding = trained_decoding(results)
    speeds = {model.row: _speedup(model) for model in decoding.models} if decoding is not None else {}
    pairs, first = table2_rows.predicted(results.experiment), accelerated.kinds(results.experiment)[0]
    seen = set()
    for setting in settings():
        pair = pairs.get(setting.name)
        if pair is None or pair in seen:
            continue
        seen.add(pair)
        found = read_prediction(results, pair)
        shown = found.kinds[first]
        row = Compared(
            named(results, pair),
            found.sparsity.mean,
            shown.recall,
            shown.predicted_sparsity,
            speeds.get(setting.name),
        )
        groups.setdefault(sized(results, setting.scale, pair), []).append(row)
    for shape, times in synthetic_decoding(results).items():
        group = [
            Compared(f"as {model.row}", 100 * model.raw["sparsity"], None, None, _speedup(model))
            for model in times.models
            if "predicted" in model.modes
        ]
        if group:
            groups[f"Synthetic {shape}"] = group
    return groups


def _speedup(model: Model) -> Quartiles | None:
    return model.modes["predicted"].speedup if "predicted" in model.modes else None


def _largest(results: Results) -> Finding:
    """Compare our largest speedup under prediction with the paper's largest."""
    papers = largest_speedup()
    wanted = float(papers.printed["speedup_to_dense"])
    models = [model for decoding in every_decoding(results) for model in decoding.models]

    def speedup(model: Model) -> float | None:
        found = _speedup(model)
        return None if found is None else found.median

    fastest = best_model(models, speedup)
    if fastest is None:
        return untestable("No model was decoded with predictors.")
    reached, allowed = speedup(fastest) or 0.0, fastest.bytes_allow("predicted")
    words = (
        f"The largest speedup with predictors, over our own dense decoding on the same machine, is {reached:.2f}×, of "
        f"{named_model(results, fastest)}, {fastest.size}. The paper's is {wanted:.2f}× ({papers.name})."
    )
    if allowed is not None:
        words += f" The bytes that our model reads allow at most {allowed:.2f}×."
    verdict = Verdict.HOLDS if reached >= wanted else Verdict.FAILS
    part = Part(
        "Largest speedup with predictors", f"{reached:.2f}×", f"at least {wanted:.2f}×", verdict, f"{wanted:.2f}×"
    )
    return Finding(verdict, words, (part,))
