"""Benchmark scores as a table for a terminal, as lm-eval prints them"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADER = ("Benchmark", "Score", "± error", "Chance", "Shots", "Rows", "lm-eval's acc", "acc_norm")


def score_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a line per benchmark in percent: the paper's rule, then lm-eval's own accuracies where they differ."""
    rows = [HEADER, *(_row(name, entry) for name, entry in scores.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _row(name: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    own = entry.get("lm_eval") or {}
    shares = [entry["score"], entry["standard_error"], entry["chance"]]
    score, error, chance = ("–" if share is None else f"{100 * share:.2f}" for share in shares)
    accuracies = (f"{100 * own[key]:.2f}" if key in own else "–" for key in ("acc", "acc_norm"))
    return name, score, error, chance, str(entry["shots"]), str(entry["n"]), *accuracies
