"""What a run prints at its end: verdicts, loss over sparsity, and what to open"""

from __future__ import annotations

from typing import Any

from prosparse.experiment.layout import Layout
from prosparse.paper.opening import claims, speedup
from prosparse.paper.results.reader import MissingResult, Results
from prosparse.published.tables import SCALES

WIDTH = 48


def summary(layout: Layout) -> str:
    """Return a dozen lines on the results that exist; without verdicts, only what to open."""
    results = Results(layout)
    try:
        lines = [_verdict(claim) for claim in claims(layout)]
        lines += _frontiers(results)
        lines += [f"{each.ours} {each.title} (paper: {each.paper})" for each in speedup(results)]
    except MissingResult:
        lines = []
    if layout.html().exists():
        lines.append(f"Open {layout.html()} in a browser, or {layout.page()}.")
    return "\n".join(lines)


def _verdict(claim: dict[str, Any]) -> str:
    part = claim["deciding"]
    number = f"  {part['quantity']} {part['ours'].partition(' (')[0]}, required {part['limit']}" if part else ""
    return f"{claim['number']:2} {claim['title']:{WIDTH}} {claim['verdict']:13}{number}"


def _frontiers(results: Results) -> list[str]:
    """Return a line per model: the loss of the original, and of each method where it is about as sparse as ProSparse.

    Models without a ProSparse row of the paper have none.
    """
    experiment = results.experiment
    finals = {experiment.pair(experiment.rows[final]) for _, _, final in SCALES.values() if final in experiment.rows}
    lines = []
    for name, frontier in experiment.figures.frontier.items():
        measured = {pair: results.sparsity(*experiment.pair(pair)) for pair in frontier.pairs()}
        at = next((measured[pair].sparsity.mean for pair in measured if experiment.pair(pair) in finals), None)
        if at is not None:
            losses = [f"original {measured[frontier.original].loss.mean:.3f}"]
            for method, pairs in frontier.methods.items():
                near = min((measured[pair] for pair in pairs), key=lambda each: abs(each.sparsity.mean - at))
                losses.append(f"{method} {near.loss.mean:.3f} at {near.sparsity.mean:.1f}%")
            lines.append(f"  {name}: {'; '.join(losses)}")
    words = "Held-out loss in nats per token, of each method at about the sparsity of ProSparse:"
    return [words, *lines] if lines else []
