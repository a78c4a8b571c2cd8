"""The paper's claims, how we test them, and the tolerances (``data/claims.yaml``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from prosparse.published.tables import DATA


@dataclass(frozen=True)
class Claim:
    number: int
    title: str  # in a few words
    statement: str
    where: str  # in the paper
    test: str
    tolerance: dict[str, float] = field(default_factory=dict)


@cache
def published_claims() -> dict[int, Claim]:
    """Return the claims by number, in the paper's order."""
    return {entry["number"]: Claim(**entry) for entry in _file()["claims"]}


def history() -> str:
    """Say when the tolerances were set, and which tests changed after results had been seen."""
    return str(_file()["history"]).strip()


@cache
def _file() -> Any:
    import yaml

    return yaml.safe_load((DATA / "claims.yaml").read_text(encoding="utf-8"))
