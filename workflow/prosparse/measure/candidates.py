"""The candidate answers of a BBH row, which are part of its question."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

LETTER = re.compile(r"\([A-Z]\)(?=\s)")


def candidates(row: Mapping[str, Any], unlisted: Sequence[str] = ()) -> list[str]:
    """The candidates that include a row's answer: ``(A)``, ``(B)``, ... or the words that its question lists.

    Args:
        row: ``input`` and ``target``.
        unlisted: candidates of a question that lists none.

    Returns:
        The candidates in their order; none if the answer is open, or not among them.
    """
    _, _, listed = row["input"].partition("\nOptions:\n")
    lines = [line.strip() for line in listed.splitlines()]
    letters = [match[0] for line in lines if (match := LETTER.match(line))]
    words = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    found = letters or words or list(unlisted)
    return found if row["target"] in found else []
