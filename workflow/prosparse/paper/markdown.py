"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable


def markdown_table(header: list[str], rows: list[list[str]], numbers: int = 0) -> list[str]:
    """Return the lines of a Markdown table whose last ``numbers`` columns are right-aligned."""
    align = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    return [bar(cells) for cells in [header, align, *rows]]


def bar(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
