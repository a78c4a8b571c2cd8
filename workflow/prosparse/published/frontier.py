"""Average performance over average sparsity, as printed for each of the paper's methods."""

from __future__ import annotations

from dataclasses import dataclass

from prosparse.published.tables import SCALES, published_table

VANILLA, SHIFTED, CONSTANT, PROGRESSIVE, RELULLAMA = METHODS = (
    "Vanilla ReLU",
    "Shifted ReLU",
    "Constant λ",
    "Progressive λ (ProSparse)",
    "ReluLLaMA",
)


@dataclass(frozen=True)
class PublishedPoint:
    """A printed pair of average sparsity and average performance, both in percent.

    Attributes:
        source: the table and row that print it.
        comparable: whether it belongs on a line with its method's other points; Fixed L1, an early baseline, and
            Table 4's longer runs do not.
    """

    method: str
    source: str
    sparsity: float
    performance: float
    comparable: bool = True


def published_original(scale: str) -> float:
    """Return the average performance of a scale's original model (Table 1)."""
    (row,) = (row for row in published_table("table1_overall") if row["setting"] == SCALES[scale][0])
    return float(row["average_performance"])


def published_points(scale: str) -> tuple[PublishedPoint, ...]:
    """Return the points of Tables 1, 3, 4, 5 and 9, each once, by method and in order of sparsity."""
    found: list[PublishedPoint] = []

    def add(method: str, source: str, row: dict[str, str], comparable: bool = True) -> None:
        point = float(row["average_sparsity"]), float(row["average_performance"])
        if (method, *point) not in {(other.method, other.sparsity, other.performance) for other in found}:
            found.append(PublishedPoint(method, source, *point, comparable))

    for row in published_table("table9_threshold_sweep"):
        if row["model"] == scale:
            add(PROGRESSIVE, f"Table 9, threshold {row['threshold']}", row)
    for row in published_table("table5_constant_factor"):
        if row["scale"] == scale and row["lambda"] != "ProSparse":  # Table 1's
            add(CONSTANT, f"Table 5, λ = {row['lambda']}", row)
    of_settings = {
        f"ReluLLaMA-{scale}": RELULLAMA,
        f"Vanilla ReLU-{scale}": VANILLA,
        f"Shifted ReLU-{scale}": SHIFTED,
        f"Fixed L1-{scale}": CONSTANT,
        **dict.fromkeys(SCALES[scale][1:], PROGRESSIVE),
    }
    for row in (*published_table("table1_overall"), *published_table("table1_early_baselines")):
        if row["setting"] in of_settings:
            add(of_settings[row["setting"]], f"Table 1, {row['setting']}", row, not row["setting"].startswith("Fixed"))
    if scale == "7B":  # Table 4 trains the 7B model only
        for row in published_table("table4_regularization_free"):
            method = PROGRESSIVE if row["setting"] == "ProSparse" else row["setting"]
            source = f"Table 4, {row['setting']}, {row['accumulated_tokens_billion']} billion tokens"
            add(method, source, row, comparable=False)  # the shorter runs are Table 1's, added above
    return tuple(sorted(found, key=lambda point: (METHODS.index(point.method), point.sparsity)))
