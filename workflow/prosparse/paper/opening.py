"""What readers see first: what was run, the verdicts and the numbers to remember"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.experiment.lineage import lineage_tokens
from prosparse.paper.results.decoding import Model, best_model, every_decoding, named
from prosparse.paper.results.labels import label, model_label
from prosparse.paper.results.origins import stands_in
from prosparse.paper.results.reader import MissingResult, Results
from prosparse.paper.results.value import Value
from prosparse.published.settings import largest_speedup
from prosparse.published.tables import SCALES, published_table, published_tokens

SKIPPING = ("exact", "predicted")  # modes that skip inactive neurons


@dataclass(frozen=True)
class KeyNumber:
    """A number to remember, with what the paper reports and the files it comes from."""

    title: str
    ours: str
    paper: str
    about: str
    section: str  # where the page shows more


def scope(results: Results, processor: str) -> str:
    """Describe what the numbers are about: models and their size, tokens, seeds, hardware."""
    experiment = results.experiment
    finals = {scale: experiment.rows[rows[2]] for scale, rows in SCALES.items() if rows[2] in experiment.rows}
    seeds = f"{len(experiment.seeds)} seeds" if len(experiment.seeds) > 1 else "One seed"
    ran = f"{seeds}, measured on {processor}."
    if not finals:
        return f"No run of this experiment stands for a ProSparse row of the paper. {ran}"
    models = [_stands_for(results, scale, pair) for scale, pair in finals.items()]
    ours = [_since_original(experiment, scale, pair) for scale, pair in finals.items()]
    papers = [1e9 * float(published_tokens()[SCALES[scale][2]]) for scale in finals]
    return (
        f"Models: {_listed(models)}. They were made sparse on {_range(ours)} tokens; the paper's, on {_range(papers)}. "
        f"{ran}"
    )


def _stands_for(results: Results, scale: str, pair: str) -> str:
    """Return ``small (1.05 million parameters) in place of LLaMA2-7B``."""
    experiment, papers = results.experiment, SCALES[scale][0]
    run, _ = experiment.pair(pair)
    trained = results.layout.provenance(run, None, experiment.seeds[0])
    size = json.loads(trained.read_text(encoding="utf-8")).get("parameters") if trained.exists() else None
    model = model_label(experiment, run) + (f" ({_amount(size)} parameters)" if size else "")
    is_stand_in = stands_in(experiment, SCALES[scale][2], run).startswith("stand-in")
    return f"{model} in place of {papers}" if is_stand_in else model


def _since_original(experiment: Experiment, scale: str, pair: str) -> int:
    """Return the tokens that a pair's run was trained on after the original model."""
    seen = lineage_tokens(experiment, experiment.pair(pair)[0])
    original = experiment.rows.get(SCALES[scale][0])
    return seen if original is None else seen - lineage_tokens(experiment, experiment.pair(original)[0])


def _range(amounts: Sequence[float]) -> str:
    """Return the smallest and the largest amount, with their unit once if it is the same."""
    (least, unit), (most, larger) = (_amount(each(amounts)).split(" ") for each in (min, max))
    if (least, unit) == (most, larger):
        return f"{most} {larger}"
    return f"{least}{'' if unit == larger else f' {unit}'} to {most} {larger}"


def _amount(number: float) -> str:
    """Return ``0.205 million`` or ``34.6 billion``."""
    return f"{number / 1e9:.3g} billion" if number >= 1e9 else f"{number / 1e6:.3g} million"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def claims(layout: Layout) -> list[dict[str, Any]]:
    """Return the verdicts as ``snakemake claims`` wrote them.

    Raises:
        MissingResult: if they have not been judged.
    """
    path = layout.claims("json")
    if not path.exists():
        raise MissingResult(f"{path}: no such result")
    return json.loads(path.read_text(encoding="utf-8"))["claims"]


def key_numbers(results: Results) -> list[KeyNumber]:
    """Return sparsity and its cost in the first size that has both, the largest decoding speedup, and where it ran."""
    experiment = results.experiment
    found = []
    for original_row, _, final_row in SCALES.values():
        if original_row in experiment.rows and final_row in experiment.rows:
            original, final = experiment.rows[original_row], experiment.rows[final_row]
            found += _sparsity_and_cost(results, final_row, original_row, final, original)
            break
    return [*found, *speedup(results)]


def _sparsity_and_cost(
    results: Results, final_row: str, original_row: str, final: str, original: str
) -> list[KeyNumber]:
    experiment = results.experiment
    ours, before = (results.sparsity(*experiment.pair(pair)) for pair in (final, original))
    rows = {row["setting"]: row for row in published_table("table1_overall")}
    printed, printed_original = rows[final_row], rows[original_row]
    cost = ours.loss.minus(before.loss)
    losses = f"{ours.loss.mean:.3f} against {before.loss.mean:.3f}"
    if (vanilla := experiment.rows.get(final_row.replace("ProSparse", "Vanilla ReLU"))) is not None:
        losses += f"; Vanilla ReLU with as many tokens: {results.sparsity(*experiment.pair(vanilla)).loss.mean:.3f}"
    change = float(printed["average_performance"]) - float(printed_original["average_performance"])
    more, shown = ("higher", cost) if cost.mean > 0 else ("lower", before.loss.minus(ours.loss))
    return [
        KeyNumber(
            "of FFN activations are zero",
            f"{_spread(ours.sparsity, 1)}%",
            f"{printed['average_sparsity']}%",
            label(experiment, final),
            "table1",
        ),
        KeyNumber(
            f"nats per token {more} held-out loss than the original",
            _spread(shown, 3),
            f"{change:+.2f} points of average performance",
            losses,
            "frontier" if experiment.figures.frontier else "table1",
        ),
    ]


def _spread(value: Value, digits: int) -> str:
    """Format a mean with its standard deviation over seeds, if there are several."""
    return f"{value.mean:.{digits}f}" + ("" if value.spread is None else f" ± {value.spread:.{digits}f}")


def speedup(results: Results) -> list[KeyNumber]:
    """Return our largest speedup over our own dense decoding, if anything was decoded."""
    try:
        decodings = every_decoding(results)
    except MissingResult:
        return []
    models = [model for decoding in decodings for model in decoding.models]

    def largest(model: Model) -> float | None:
        found = [arm.speedup.median for mode in SKIPPING if (arm := model.modes.get(mode)) and arm.speedup]
        return max(found) if found else None

    best = best_model(models, largest)
    if best is None:
        return []
    papers = largest_speedup()
    return [
        KeyNumber(
            "faster than our own dense decoding",
            f"{largest(best):.2f}×",
            f"{papers.printed['speedup_to_dense']}× ({papers.name})",
            f"{named(results, best)}; {best.size}; {best.machine}",
            "table2",
        )
    ]
