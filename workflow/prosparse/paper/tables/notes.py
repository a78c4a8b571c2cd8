"""Notes that several tables share."""

from __future__ import annotations

from collections.abc import Iterable

from prosparse.published.tables import SCALES, published_tokens

SPREAD = (
    "Sparsity and scores in percent. Ours: mean ± standard error over benchmark rows (standard deviation over seeds, "
    "if there are several)."
)


LEGEND = f"{SPREAD} `*`: without activation threshold shifting. The paper reports no held-out loss and no bits/byte."


NORMALIZATION = (
    "Our λ multiplies the mean of |x1| over tokens and d_ff, summed over layers. The paper does not state its "
    "normalization, so compare sparsities, not values of λ."
)


def names_of(names: Iterable[str]) -> str:
    return "; ".join(f"`{name}`" for name in dict.fromkeys(names))


def count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def budgets() -> str:
    """Explain what the column of accumulated tokens counts, and the paper's own budgets."""
    return (
        "Accumulated tokens: those of the run and of the runs it started from, without any pretraining done elsewhere. "
        + published_budgets()
    )


def published_budgets() -> str:
    printed = ", ".join(f"{scale} {published_tokens()[final]} B" for scale, (_, _, final) in SCALES.items())
    return f"The paper's ProSparse runs, without pretraining: {printed} (Tables 6 and 7)."
