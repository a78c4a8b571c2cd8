"""lm-eval's own multiple-choice accuracies, next to the paper's rule"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def accuracies(samples: Sequence[Mapping[str, Any]], tokens: Callable[[str, str], int]) -> dict[str, float] | None:
    """Return lm-eval's ``acc`` (largest sum of log-likelihoods) and ``acc_norm`` (largest sum per character).

    Args:
        samples: lm-eval's, whose log-likelihoods are means per token.
        tokens: how many tokens a continuation has after its context.

    Returns:
        Fractions; None if a row has no single right candidate by index.
    """
    if not samples or not all(isinstance(sample["target"], int) for sample in samples):
        return None
    sums, per_character = [], []
    for sample in samples:
        pairs = sample["arguments"]
        means = [response[0][0] for response in sample["resps"]]
        totals = [mean * tokens(*pair) for mean, pair in zip(means, pairs, strict=True)]
        lengths = [max(len(continuation.removeprefix(" ")), 1) for _, continuation in pairs]
        sums.append(_best(totals) == sample["target"])
        per_character.append(_best([t / length for t, length in zip(totals, lengths, strict=True)]) == sample["target"])
    return {"acc": statistics.fmean(sums), "acc_norm": statistics.fmean(per_character)}


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
