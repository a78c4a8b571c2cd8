"""Format numbers, list items and tables for both a terminal and Markdown."""

from __future__ import annotations

import math
import textwrap

UNKNOWN = "unknown"


NONE = "–"


WIDTH = 118


def count(number: float) -> str:
    """Format a count to at most four significant digits, with K, M, B or T."""
    if number < 1000:
        return f"{number:.0f}" if number else NONE
    power = min(4, int(math.log10(number)) // 3)
    return f"{number / 1000**power:.4g} {' KMBT'[power]}"


def flops(number: float) -> str:
    return f"{number:.2e}" if number else NONE


def hour_count(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def gigabytes(number: float) -> str:
    gigabytes = number / 1e9
    if gigabytes < 0.1:
        return "< 0.1"
    return f"{gigabytes:,.0f}" if gigabytes >= 100 else f"{gigabytes:.1f}"


def item(text: str) -> list[str]:
    """Format a list item no wider than a terminal."""
    return textwrap.wrap(
        text, WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    """Format a Markdown table whose columns also line up in a terminal; all but the first are right-aligned."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        first, *rest = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *rest])} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(header), line(rule), *map(line, rows)]
