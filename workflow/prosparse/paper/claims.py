"""A verdict on each of the paper's ten claims (``workflow/paper/claims.yaml``), from our numbers.

A claim tested at several model sizes holds here only if it holds at every size that was tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from prosparse.config import PUBLISHED, Experiment
from prosparse.files import write_json, write_text
from prosparse.paper import acceleration, operators, published
from prosparse.paper.acceleration_claim import claim8
from prosparse.paper.figures import final_points
from prosparse.paper.figures import inputs as figure_inputs
from prosparse.paper.finding import Finding, all_of
from prosparse.paper.fit import fit
from prosparse.paper.origins import origin
from prosparse.paper.results import Needs, Results, Value
from prosparse.runs import lineage_tokens

HOLDS, FAILS, UNTESTABLE = "holds here", "does not hold here", "not testable at this scale"


@dataclass(frozen=True)
class Verdict:
    number: int
    statement: str
    where: str
    test: str
    tolerance: dict[str, float]
    verdict: str
    evidence: str


# ------------------------------------------------------------------------------------- quality


@dataclass(frozen=True)
class Quality:
    """The measure by which pairs are compared, as a cost: lower is better."""

    costs: dict[str, Value]
    tolerance: float
    unit: str
    explanation: str

    def worse(self, pair: str, than: str) -> Value:
        """How much worse ``pair`` is (negative: better)."""
        return self.costs[pair].minus(self.costs[than])

    def show(self, difference: Value | float) -> str:
        """``0.031 nats/token worse``, with its error where known."""
        value = difference if isinstance(difference, Value) else Value((difference,))
        digits = 3 if self.unit == "nats/token" else 2
        if round(value.mean, digits) == 0 and value.total_error == 0:
            return "no better and no worse"
        error = f" ± {value.total_error:.{digits}f}" if value.total_error > 0 else ""
        return f"{abs(value.mean):.{digits}f}{error} {self.unit} {'worse' if value.mean > 0 else 'better'}"


def quality(results: Results, pairs: list[str], tolerance: dict[str, float]) -> Quality:
    """Average performance where it can resolve the tolerance, held-out loss where it cannot.

    Average performance is used if all seven columns are there, the first pair is above chance by
    more than two standard errors, and no difference has a standard error over the tolerance.
    """
    measured = {text: results.benchmarks(*results.experiment.pair(text)) for text in pairs}
    averages = {text: benchmarks.average() for text, benchmarks in measured.items()}
    first = averages[pairs[0]]
    if all(benchmarks.complete for benchmarks in measured.values()) and first.value is not None:
        scores = {text: average.value for text, average in averages.items() if average.value is not None}
        errors = sorted(value.total_error for value in scores.values())
        resolution = (errors[-1] ** 2 + errors[-2] ** 2) ** 0.5 if len(errors) > 1 else errors[-1]
        above = first.value.mean - first.chance.mean if first.chance is not None else None
        if above is not None and above > 2 * first.value.total_error and resolution <= tolerance["performance"]:
            costs = {text: Value(tuple(-s for s in value.seeds), value.errors) for text, value in scores.items()}
            return Quality(costs, tolerance["performance"], "points", "Quality is average performance.")
        chance = f", chance is {first.chance.mean:.2f}" if first.chance is not None else ""
        why = (
            f"Average performance cannot decide ({first.value.mean:.2f} ± {first.value.total_error:.2f}{chance}; "
            f"differences are known to ± {resolution:.2f})"
        )
    elif first.value is not None:
        why = (
            f"Average performance cannot decide ({len(first.used)} of 7 columns: {first.value.mean:.2f} ± "
            f"{first.value.total_error:.2f}"
            + (f", chance is {first.chance.mean:.2f})" if first.chance is not None else ")")
        )
    else:
        why = "No benchmark has a score"
    costs = {text: results.sparsity(*results.experiment.pair(text)).loss for text in pairs}
    return Quality(costs, tolerance["loss"], "nats/token", why + ": quality is held-out loss.")


def _pair(experiment: Experiment, key: str) -> str | None:
    """The pair of a published row, its activation written out."""
    text = experiment.rows.get(key)
    if text is None:
        return None
    run, activation = experiment.pair(text)
    return f"{run}@{activation}"


def _sparsity(results: Results, pair: str) -> float:
    return results.sparsity(*results.experiment.pair(pair)).sparsity.mean


# -------------------------------------------------------------------------------------- claims


def claim1(results: Results, tolerance: dict[str, float]) -> Finding:
    experiment = results.experiment
    vanilla, progressive = _pair(experiment, "Vanilla ReLU-7B"), _pair(experiment, "ProSparse-7B")
    if vanilla is None or progressive is None:
        return Finding(None, "No run stands for both Vanilla ReLU-7B and ProSparse-7B.")
    allowed = tolerance["sparsity"]
    flat = results.ledger(experiment.pair(vanilla)[0])
    rising = results.ledger(experiment.pair(progressive)[0])
    if len(flat) < 2 or len(rising) < 2:
        return Finding(None, "The training ledgers have fewer than two rows.")
    start, end = flat[0].sparsity.mean, flat[-1].sparsity.mean
    rises = [(later.factor > 0, later.sparsity.mean - earlier.sparsity.mean) for earlier, later in pairwise(rising)]
    idle = sum(rise for regularized, rise in rises if not regularized)
    active = sum(rise for regularized, rise in rises if regularized)
    correlation = _correlation([float(regularized) for regularized, _ in rises], [rise for _, rise in rises])
    evidence = (
        f"Vanilla ReLU goes from {start:.2f} % (step {flat[0].step}) to {end:.2f} % (step {flat[-1].step}), "
        f"{end - start:+.2f} points; the paper's stays near 66 %. ProSparse gains {idle:+.2f} points while λ = 0 and "
        f"{active:+.2f} while λ > 0"
        + (
            f" (correlation of λ > 0 with the rise between ledger rows: {correlation:+.2f})"
            if correlation is not None
            else ""
        )
        + f". Tolerance {allowed:g} points."
    )
    return Finding(abs(end - start) <= allowed and idle <= allowed < active, evidence)


def _correlation(x: list[float], y: list[float]) -> float | None:
    from statistics import StatisticsError, correlation

    try:
        return correlation(x, y)
    except StatisticsError:  # fewer than two points, or one of them constant
        return None


def claim2(results: Results, tolerance: dict[str, float]) -> Finding:
    experiment, findings = results.experiment, []
    for scale, (original_row, _, final_row) in published.SCALES.items():
        original, final = _pair(experiment, original_row), _pair(experiment, final_row)
        if original is None or final is None:
            continue
        vanilla = _pair(experiment, f"Vanilla ReLU-{scale}")
        measure = quality(results, [p for p in (original, final, vanilla) if p is not None], tolerance)
        sparsity, worse = _sparsity(results, final), measure.worse(final, original)
        confounded = _confounded(
            experiment, experiment.pair(original)[0], experiment.pair(final)[0], measure.unit == "nats/token"
        )
        words = (
            f"{scale}: `{final}` has {sparsity:.2f} % sparsity (at least {tolerance['sparsity_floor']:g} "
            f"wanted, paper {_printed(final_row)}) and is "
            f"{measure.show(worse)} than `{original}`, tolerance {measure.tolerance:g}. {measure.explanation}"
        )
        holds: bool | None = sparsity >= tolerance["sparsity_floor"] and worse.mean <= measure.tolerance
        if confounded:
            words += f" Beside the original it {confounded}."
        if vanilla is not None:
            cost = measure.worse(final, vanilla)
            words += f" At the tokens of `{vanilla}` it is {measure.show(cost)} than that."
            if holds and confounded and cost.mean > measure.tolerance:
                holds = None
                words += " The further training hides what sparsity costs, so this is not decided."
        elif holds and confounded:
            holds = None
            words += " No Vanilla ReLU run shows what that training alone gains, so this is not decided."
        findings.append(Finding(holds, words))
    return all_of(findings, "No run stands for an original and its ProSparse row.")


def _confounded(experiment: Experiment, original: str, final: str, by_loss: bool) -> str:
    """What ``final`` was given beside sparsity that ``original`` was not, in words; empty if nothing much.

    Beside the training of a pretrained original ours is negligible, but not where quality is loss on
    held-out text of the corpora that only ours was trained on.
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
    return next(row["average_sparsity"] for row in published.rows("table1_overall") if row["setting"] == setting)


def claim3(results: Results, tolerance: dict[str, float]) -> Finding:
    experiment, findings = results.experiment, []
    rows = published.rows("table5_constant_factor")
    for scale in dict.fromkeys(row["scale"] for row in rows):
        progressive = _pair(experiment, f"{scale} ProSparse")
        constants = [
            pair
            for row in rows
            if row["scale"] == scale and row["lambda"] != "ProSparse"
            if (pair := _pair(experiment, f"{scale} {row['lambda']}")) is not None
        ]
        if progressive is not None and constants:
            findings.append(_frontier(results, scale, progressive, list(dict.fromkeys(constants)), tolerance))
    return all_of(findings, "No run stands for a ProSparse row of Table 5 and a constant one.")


def _frontier(
    results: Results, scale: str, progressive: str, constants: list[str], tolerance: dict[str, float]
) -> Finding:
    """The progressive run against the constant runs' quality over sparsity."""
    experiment = results.experiment
    measure = quality(results, [progressive, *constants], tolerance)
    at, cost = _sparsity(results, progressive), measure.costs[progressive].mean
    points = sorted((_sparsity(results, pair), measure.costs[pair].mean, pair) for pair in constants)
    words = [f"{scale}: `{progressive}` has {at:.2f} % sparsity."]
    peak = experiment.runs[experiment.pair(progressive)[0]].stages[-1].peak
    for pair in constants:
        if experiment.runs[experiment.pair(pair)[0]].stages[-1].peak == peak:
            words.append(
                f"At equal λ ({peak:g}) it is {measure.show(measure.worse(progressive, pair))} than `{pair}`, "
                f"which has {_sparsity(results, pair):.2f} %."
            )
    budgets = {pair: lineage_tokens(experiment, experiment.pair(pair)[0]) for pair in (progressive, *constants)}
    uneven = [
        pair
        for pair in constants
        if abs(budgets[pair] - budgets[progressive]) > tolerance["tokens_share"] * budgets[progressive]
    ]
    holds: bool | None
    if uneven:
        holds = None
        words.append(
            f"Token budgets differ by more than {tolerance['tokens_share']:.0%} ({', '.join(uneven)}), "
            "so nothing is decided."
        )
    elif points[0][0] <= at <= points[-1][0]:
        expected = points[0][1]
        for (left, left_cost, _), (right, right_cost, _) in pairwise(points):
            if left <= at <= right:
                share = (at - left) / (right - left) if right > left else 0.0
                expected = left_cost + share * (right_cost - left_cost)
                break
        difference = cost - expected
        holds = difference < -measure.tolerance
        words.append(
            f"At equal sparsity it is {measure.show(difference)} than the constant runs, interpolated between "
            f"{len(points)} of them; tolerance {measure.tolerance:g}."
        )
    else:
        span = f"{points[0][0]:.2f} to {points[-1][0]:.2f} %"
        nearest = points[-1] if at > points[-1][0] else points[0]
        difference = cost - nearest[1]
        comparison = f"the nearest constant run, `{nearest[2]}` ({nearest[0]:.2f} %), it is {measure.show(difference)}"
        if at > points[-1][0] and difference < -measure.tolerance:
            holds = True
            words.append(
                f"Beyond the constant runs' range ({span}), sparser than all; beside {comparison}: it dominates."
            )
        elif at < points[0][0] and difference > -measure.tolerance:
            holds = False
            words.append(f"Below the constant runs' range ({span}), denser than all; beside {comparison}: no gain.")
        else:
            holds = None
            words.append(
                f"Out of the constant runs' range ({span}), so equal sparsity cannot be compared; beside {comparison}."
            )
    return Finding(holds, " ".join([*words, measure.explanation]))


def claim4(results: Results, tolerance: dict[str, float]) -> Finding:
    experiment, findings = results.experiment, []
    for scale in ("7B", "13B"):
        zero, chosen, largest = (_pair(experiment, f"{scale} {t}") for t in ("0", "0.01", "0.03"))
        if zero is None or chosen is None or largest is None:
            continue
        measure = quality(results, [zero, chosen, largest], tolerance)
        gain = _sparsity(results, chosen) - _sparsity(results, zero)
        loss, more = measure.worse(chosen, zero), measure.worse(largest, chosen)
        findings.append(
            Finding(
                gain >= tolerance["gain"] and loss.mean <= measure.tolerance and more.mean > 0,
                f"{scale}: `{chosen}` gains {gain:+.2f} points of sparsity over `{zero}` and is {measure.show(loss)} "
                f"(tolerance {measure.tolerance:g}); `{largest}` ({_sparsity(results, largest):.2f} %) is "
                f"{measure.show(more)} than that. {measure.explanation}",
            )
        )
    return all_of(findings, "No runs stand for thresholds 0, 0.01 and 0.03 of Table 9.")


def claim5(results: Results, tolerance: dict[str, float]) -> Finding:
    points = [point for point in final_points(results) if point["lambda"] > 0]
    distinct = len({point["lambda"] for point in points})
    if distinct < tolerance["points"]:
        return Finding(
            None, f"{distinct} distinct λ_S measured; {tolerance['points']:g} are needed to test three parameters."
        )
    try:
        fitted = fit([point["lambda"] for point in points], [point["sparsity"] for point in points])
    except ValueError as error:
        return Finding(None, f"No fit: {error}.")
    factors, sparsities = sorted(point["lambda"] for point in points), sorted(point["sparsity"] for point in points)
    return Finding(
        fitted.r_squared >= tolerance["r_squared"] and fitted.a < 0,
        f"Over {len(points)} points from λ_S = {factors[0]:g} to {factors[-1]:g}, sparsity {sparsities[0]:.2f} to "
        f"{sparsities[-1]:.2f} %: a = {fitted.a:.3g}, b = {fitted.b:.3g}, c = {fitted.c:.3g} (paper: -1.76, 0.30, "
        "3.49, under its own normalisation), "
        f"R² = {fitted.r_squared:.3f} (at least {tolerance['r_squared']:g} wanted), residual standard deviation "
        f"{fitted.residual_deviation or 0:.2f} points with three parameters."
        + ("" if fitted.identified else " The points do not determine the exponent: a, b and c alone mean nothing."),
    )


def claim6(results: Results, tolerance: dict[str, float]) -> Finding:
    experiment, findings = results.experiment, []
    for scale, (_, plain_row, final_row) in published.SCALES.items():
        plain, final = _pair(experiment, plain_row), _pair(experiment, final_row)
        if plain is None or final is None:
            continue
        before = [value.mean for value in results.sparsity(*experiment.pair(plain)).layers]
        after = [value.mean for value in results.sparsity(*experiment.pair(final)).layers]
        if len(before) < tolerance["layers"]:
            findings.append(Finding(None, f"{scale}: {len(before)} layers, too few to tell low from high."))
            continue
        half = len(before) // 2
        low, high = _mean(before[:half]), _mean(before[-half:])
        lift_low, lift_high = _mean(after[:half]) - low, _mean(after[-half:]) - high
        findings.append(
            Finding(
                high - low > tolerance["sparsity"] and lift_low > max(lift_high, 0.0),
                f"{scale}: without shifting, the lower half of {len(before)} layers has {low:.2f} %, the upper half "
                f"{high:.2f} %; shifting lifts them by {lift_low:+.2f} and {lift_high:+.2f} points.",
            )
        )
    return all_of(findings, "No runs stand for a ProSparse row with and without threshold shifting.")


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def claim7(results: Results, tolerance: dict[str, float]) -> Finding:
    experiment, findings = results.experiment, []
    for scale, (_, _, final_row) in published.SCALES.items():
        final = _pair(experiment, final_row)
        if final is None:
            continue
        groups: dict[str, list[float]] = {"instruction": [], "code": [], "plain text": []}
        for measured in results.sparsity(*experiment.pair(final)).corpora:
            corpus = experiment.data.corpora[measured.corpus]
            kind = (
                "instruction"
                if corpus.kind == "instruction"
                else "code"
                if corpus.stands_for == "starcoder"
                else "plain text"
            )
            groups[kind].append(measured.sparsity.mean)
        formatted = groups["instruction"] + groups["code"]
        if not formatted or not groups["plain text"]:
            findings.append(Finding(None, f"{scale}: corpora of one kind only."))
            continue
        each = ", ".join(f"{kind} {_mean(values):.2f} % ({len(values)})" for kind, values in groups.items() if values)
        difference = _mean(formatted) - _mean(groups["plain text"])
        findings.append(
            Finding(
                difference > tolerance["sparsity"],
                f"{scale}: mean sparsity of `{final}` (corpora): {each}; formatted data is "
                f"{abs(difference):.2f} points {'sparser' if difference > 0 else 'denser'}, "
                f"tolerance {tolerance['sparsity']:g}.",
            )
        )
    return all_of(findings, "No run stands for a ProSparse row.")


def claim9(results: Results, tolerance: dict[str, float]) -> Finding:
    experiment, timings = results.experiment, operators.read(results)
    if timings is None:
        return Finding(None, "The experiment times no operators.")
    findings = []
    for setting in operators.settings():
        if setting.name not in ("ProSparse-7B", "ProSparse-13B"):
            continue
        if operators.missing(experiment, setting.scale) is not None:
            continue
        case = timings.at(setting.scale, setting.density)
        shape = f"{case.hidden_size} × {case.intermediate_size}"
        holds, words = True, []
        for step, ending in operators.STEPS.items():
            arm = f"sparse_{ending}"
            ours = case.speedup(arm, f"dense_{ending}")
            holds &= ours.median >= setting.speedup(step)
            words.append(
                f"step ({step}) is {ours.median:.2f} times faster than our own dense kernel (paper "
                f"{setting.printed[f'step{step}_speedup']}; quartiles {ours.lower:.2f} to {ours.upper:.2f}) and "
                f"{case.speedup(arm, f'torch_{ending}').median:.2f} times faster than torch's, at "
                f"{case.share(arm).median:.0%} of the rate of a sequential read"
            )
        findings.append(Finding(holds, f"{setting.scale} ({shape}), density {case.density:.2%}: {'; '.join(words)}."))
    judged = all_of(findings, "The experiment times no operators of the 7B or 13B shape.")
    where = f"On {timings.machine}, {timings.dtype}, every call with other weights."
    if not timings.on_gpu:
        where += " Judged on a CPU; the paper's times are a GPU's, and ours on a GPU are missing."
    return Finding(judged.holds, f"{where}\n{judged.evidence}")


def claim10(results: Results, tolerance: dict[str, float]) -> Finding:
    compared = results.experiment.supervised_finetuning
    if compared is None:
        return Finding(None, "The experiment names no supervised fine-tuning runs.")
    runs = results.experiment.runs
    without, smaller, same = (
        f"{run}@{runs[run].activation}" for run in (compared.without, compared.smaller, compared.same)
    )
    measure = quality(results, [smaller, without, same], tolerance)
    kept, lost = _sparsity(results, smaller), _sparsity(results, without)
    worse = measure.worse(same, smaller)
    factors = [runs[name].stages[-1].peak for name in (compared.without, compared.smaller, compared.same)]
    return Finding(
        kept - lost > tolerance["sparsity"] and worse.mean > measure.tolerance,
        f"Sparsity after SFT: {lost:.2f} % with λ = {factors[0]:g}, {kept:.2f} % with {factors[1]:g}, "
        f"{_sparsity(results, same):.2f} % with {factors[2]:g}. With λ = {factors[2]:g} it is {measure.show(worse)} "
        f"than with {factors[1]:g}, with {factors[0]:g} {measure.show(measure.worse(without, smaller))}; "
        f"tolerance {measure.tolerance:g}. "
        f"{measure.explanation}",
    )


TESTS: dict[int, Callable[[Results, dict[str, float]], Finding]] = {
    1: claim1,
    2: claim2,
    3: claim3,
    4: claim4,
    5: claim5,
    6: claim6,
    7: claim7,
    8: claim8,
    9: claim9,
    10: claim10,
}


# ----------------------------------------------------------------------------------- the entry


@cache
def statements() -> tuple[dict[str, Any], ...]:
    """The claims as data, in the paper's order."""
    import yaml

    return tuple(yaml.safe_load((PUBLISHED / "claims.yaml").read_text()))


def inputs(experiment: Experiment) -> Needs:
    """What must be measured before the claims can be judged."""
    keys = [key for rows in published.SCALES.values() for key in rows]
    keys += ["Vanilla ReLU-7B"]
    keys += [f"{row['scale']} {row['lambda']}" for row in published.rows("table5_constant_factor")]
    keys += [f"{scale} {threshold}" for scale in ("7B", "13B") for threshold in ("0", "0.01", "0.03")]
    pairs = [experiment.rows[key] for key in keys if key in experiment.rows]
    if experiment.supervised_finetuning is not None:
        pairs += [run for _, run in experiment.supervised_finetuning]
    needs = Needs.of_pairs(experiment, pairs) | figure_inputs("figure3", experiment)
    needs.operators = experiment.operators is not None
    if experiment.predictors is not None and experiment.decoding is not None:
        needs |= acceleration.prediction_needs(experiment) | acceleration.decoding_needs(experiment)
    curves = [_pair(experiment, key) for key in ("Vanilla ReLU-7B", "ProSparse-7B")]
    if all(curves):
        needs |= Needs.of_chains(experiment, [experiment.pair(pair)[0] for pair in curves if pair])
    return needs


def judge(results: Results) -> list[Verdict]:
    """The verdict on every claim."""
    verdicts = []
    for claim in statements():
        tolerance = claim.get("tolerance", {})
        finding = TESTS[claim["number"]](results, tolerance)
        verdict = UNTESTABLE if finding.holds is None else HOLDS if finding.holds else FAILS
        verdicts.append(
            Verdict(
                claim["number"], claim["statement"], claim["where"], claim["test"], tolerance, verdict, finding.evidence
            )
        )
    return verdicts


def to_markdown(verdicts: list[Verdict], experiment: Experiment) -> str:
    counts = ", ".join(f"{sum(v.verdict == kind for v in verdicts)} {words}" for kind, words in _COUNTED.items())
    lines = [
        "### Claims",
        "",
        f"Experiment `{experiment.experiment}`: {counts}. Tolerances were set before our results were seen.",
        "",
        "| | Claim of the paper | Verdict | Evidence |",
        "|---:|---|---|---|",
    ]
    for verdict in verdicts:
        cells = (f"{verdict.statement} ({verdict.where})", f"**{verdict.verdict}**", verdict.evidence)
        lines.append(
            f"| {verdict.number} | "
            + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells)
            + " |"
        )
    lines += ["", "How each is tested:", "", *(f"{verdict.number}. {verdict.test.strip()}" for verdict in verdicts)]
    return "\n".join(lines) + "\n"


_COUNTED = {HOLDS: "hold here", FAILS: "do not", UNTESTABLE: "cannot be tested at this scale"}


def write(experiment: Experiment, directory: str | Path) -> list[Path]:
    """Writes ``directory/claims.md`` and ``claims.json``.

    Raises:
        MissingResult: a measurement it needs does not exist; names the file.
    """
    verdicts = judge(Results(directory, experiment))
    markdown, data = Path(directory) / "claims.md", Path(directory) / "claims.json"
    write_text(markdown, to_markdown(verdicts, experiment))
    write_json(data, {"experiment": experiment.experiment, "claims": [asdict(verdict) for verdict in verdicts]})
    return [markdown, data]
