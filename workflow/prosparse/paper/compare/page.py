"""``compare.md`` and ``compare.json``: this run against the committed copy."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from prosparse.experiment.layout import Layout
from prosparse.paper import page
from prosparse.paper.compare.committed import committed
from prosparse.paper.compare.differences import UNITS, Compared, Difference, compare
from prosparse.paper.compare.spread import DEVIATIONS, between_processors
from prosparse.paper.compare.verdicts import Verdicts, verdicts
from prosparse.paper.markdown import markdown_table
from prosparse.paper.results.reader import Results
from prosparse.paper.sections.host import facts, provenance
from prosparse.system.files import write_json, write_text


@dataclass(frozen=True)
class Comparison:
    compared: Compared
    claims: list[Verdicts]
    ours: dict[str, str]  # what made our results: processor, versions, seeds
    published: dict[str, str]

    @property
    def seeds_unknown(self) -> bool:
        return any(each.by_seed is None for each in self.compared.differences)

    def verdict(self) -> str:
        """Say in a sentence whether the numbers agree."""
        differences, beyond = self.compared.differences, self.compared.beyond
        if not differences:
            return "No number was measured on both sides"
        if not beyond:
            return f"All {len(differences)} differences are within the expected spread"
        return f"{len(beyond)} of {len(differences)} differences are beyond the expected spread"

    def claims_verdict(self) -> str:
        changed = [each for each in self.claims if not each.same]
        words = f"{len(self.claims) - len(changed)} of {len(self.claims)} claims have the same verdict"
        if not changed:
            return words
        return f"{words}; others: " + ", ".join(f"{each.number} ({each.published} → {each.ours})" for each in changed)


def write(layout: Layout) -> str:
    """Write both files and return the summary for the terminal.

    Raises:
        ConfigError: if there is no committed copy, or if it is of another config.
    """
    comparison = make(layout, committed(layout))
    write_text(layout.compare("md"), to_markdown(comparison, layout.experiment.experiment))
    write_json(layout.compare("json"), to_json(comparison))
    return summary(comparison, layout)


def make(layout: Layout, other: Layout) -> Comparison:
    needs = page.needs(layout.experiment)
    ours, published = Results(layout), Results(other)
    made = [facts(results.experiment, provenance(results, needs)[0]) for results in (ours, published)]
    return Comparison(compare(ours, published, needs), verdicts(layout, other), *made)


def summary(comparison: Comparison, layout: Layout) -> str:
    lines = [
        f"this run:  {_machine(comparison.ours)}",
        f"published: {_machine(comparison.published)}",
        *_only(comparison),
        comparison.claims_verdict(),
    ]
    beyond = comparison.compared.beyond
    if beyond:
        lines += [f"{comparison.verdict()}, worst first:", *(f"- {_in_words(each)}" for each in beyond)]
    else:
        lines.append(f"{comparison.verdict()}.")
    return "\n".join([*lines, str(layout.compare("md"))]) + "\n"


def _machine(made: dict[str, str]) -> str:
    return f"{made['Processor']}; code {made['Code revision']}; seeds {made['Seeds']}"


def _in_words(each: Difference) -> str:
    return (
        f"{each.pair}, {each.quantity}: {_number(each, each.published)} → {_number(each, each.ours)} "
        f"({_signed(each)}, expected ±{_number(each, each.expected)} {UNITS[each.quantity]})"
    )


def _number(each: Difference, number: float) -> str:
    return f"{number:.{_decimals(each.quantity)}f}"


def _signed(each: Difference) -> str:
    return f"{each.value:+.{_decimals(each.quantity)}f}"


def _decimals(quantity: str) -> int:
    return 4 if quantity == "loss" else 2


def _only(comparison: Comparison) -> list[str]:
    sides = {"this run": comparison.compared.only_ours, "the published copy": comparison.compared.only_published}
    return [
        f"only in {side}: " + ", ".join(f"{quantity} of {pair}" for pair, quantity in missing)
        for side, missing in sides.items()
        if missing
    ]


def to_markdown(comparison: Comparison, name: str) -> str:
    differences, beyond = comparison.compared.differences, comparison.compared.beyond
    equal = sum(each.value == 0 for each in differences)
    lines = [
        f"# {name}: this run against the published one",
        "",
        f"**{comparison.verdict()}; {comparison.claims_verdict()}.** {equal} numbers are equal to the last digit. "
        "Times are not compared: they belong to the machine. Nor are predictors: their spread was never measured.",
        "",
        *_spread_explained(comparison),
        "",
        *(f"Not compared, {line}.\n" for line in _only(comparison)),
        "## Claims",
        "",
        *_claims_table(comparison.claims),
    ]
    if beyond:
        lines += ["", "## Beyond the expected spread, worst first", "", *_table(beyond)]
    for quantity, unit in UNITS.items():
        of_quantity = [each for each in differences if each.quantity == quantity]
        if of_quantity:
            heading = f"## {quantity.capitalize()}, {unit if quantity == 'loss' else '%'}"
            lines += ["", heading, "", *_table(of_quantity)]
    rows = [[key, comparison.published[key], value] for key, value in comparison.ours.items()]
    lines += ["", "## Machines and versions", "", *markdown_table(["", "Published", "This run"], rows)]
    return "\n".join(lines) + "\n"


def _spread_explained(comparison: Comparison) -> list[str]:
    measured = " and ".join(
        f"{quantity} by at most {each.largest} {UNITS[quantity]}"
        + ("" if each.median is None else f" ({each.median} in the median)")
        for quantity, each in between_processors().items()
    )
    lines = [
        f"**Expected spread.** By processor: the same revision and seed of `laptop` differed between two processors in "
        f"{measured}; the largest is expected here. An average performance has no such measurement: two standard "
        f"errors of the difference over benchmark rows are expected instead. By seed: {DEVIATIONS} standard "
        "deviations of the difference of the two means are added; seeds on both sides cancel, so equal seeds "
        "add nothing, and one difference in twenty is beyond two deviations by chance."
    ]
    if comparison.seeds_unknown:
        lines.append(
            "The seeds differ and neither side has several, so the spread by seed is unknown and only the one by "
            "processor is used: differences beyond it may be those of the seeds."
        )
    elif all(each.by_seed == 0 for each in comparison.compared.differences):
        lines.append("Here the seeds are equal, so only the spread by processor is used.")
    return lines


def _claims_table(claims: list[Verdicts]) -> list[str]:
    rows = [
        [str(each.number), each.published, each.ours, ("same" if each.same else "**changed**") + _test_note(each)]
        for each in claims
    ]
    return markdown_table(["Claim", "Published", "This run", ""], rows)


def _test_note(each: Verdicts) -> str:
    return "" if each.same_test else "; judged by another test"


def _table(differences: list[Difference]) -> list[str]:
    header = ["", "Quantity", "Published", "This run", "Difference", "By processor", "By seed", "Expected"]
    rows = []
    for each in differences:
        by_seed = "unknown" if each.by_seed is None else "0"
        if each.by_seed:
            by_seed = f"{DEVIATIONS} × {_number(each, each.by_seed)}"
        numbers = [_number(each, each.published), _number(each, each.ours), _signed(each)]
        expected = f"{'' if each.within else '**beyond** '}±{_number(each, each.expected)}"
        rows.append([f"`{each.pair}`", each.quantity, *numbers, _number(each, each.same_seed), by_seed, expected])
    return markdown_table(header, rows, numbers=6)


def to_json(comparison: Comparison) -> dict:
    compared = comparison.compared
    return {
        "verdict": comparison.verdict(),
        "all_within": not compared.beyond,
        "this_run": comparison.ours,
        "published": comparison.published,
        "differences": [
            {
                **asdict(each),
                "unit": UNITS[each.quantity],
                "difference": each.value,
                "expected": each.expected,
                "within": each.within,
            }
            for each in compared.differences
        ],
        "claims": [{**asdict(each), "same": each.same} for each in comparison.claims],
        "only_this_run": compared.only_ours,
        "only_published": compared.only_published,
    }
