"""The verdicts on the paper's claims, then and now, in the words of each side."""

from __future__ import annotations

import json
from dataclasses import dataclass

from prosparse.experiment.layout import Layout

MISSING = "missing"


@dataclass(frozen=True)
class Verdicts:
    """One claim's verdicts; ``same_test`` is whether both sides judged it by the same test and tolerance."""

    number: int
    ours: str
    published: str
    same_test: bool

    @property
    def same(self) -> bool:
        return self.ours == self.published


def verdicts(ours: Layout, published: Layout) -> list[Verdicts]:
    sides = [_claims(layout) for layout in (ours, published)]
    found = []
    for number in sorted(sides[0].keys() | sides[1].keys()):
        here, there = (side.get(number, {}) for side in sides)
        same_test = all(here.get(key) == there.get(key) for key in ("test", "tolerance"))
        found.append(Verdicts(number, here.get("verdict", MISSING), there.get("verdict", MISSING), same_test))
    return found


def _claims(layout: Layout) -> dict[int, dict]:
    path = layout.claims("json")
    if not path.exists():
        return {}
    return {claim["number"]: claim for claim in json.loads(path.read_text(encoding="utf-8"))["claims"]}
