"""Averages against those of the paper; which scores are above chance."""

from __future__ import annotations

import pytest

from prosparse.paper.results.benchmarks import Benchmarks, above_chance
from prosparse.paper.results.value import Value
from prosparse.published.tables import BENCHMARKS, GROUPS, published_table


def _benchmarks(scores: dict[str, float]) -> Benchmarks:
    missing = {name: "not given" for name in BENCHMARKS if name not in scores}
    return Benchmarks({name: Value((score,)) for name, score in scores.items()}, {}, {}, missing)


@pytest.mark.parametrize("row", published_table("table3_benchmarks"), ids=lambda row: row["setting"])
def test_group_means_of_table_3_are_table_1(row):
    printed = next(r for r in published_table("table1_overall") if r["setting"] == row["setting"])
    ours = _benchmarks({name: float(score) for name, score in row.items() if name != "setting"})
    for group in ("code_generation", "commonsense_reasoning", "reading_comprehension"):
        column = ours.column(group)
        assert column.missing == {}
        assert column.value.mean == pytest.approx(float(printed[group]), abs=0.0101)


@pytest.mark.parametrize("table", ["table1_overall", "table1_early_baselines", "table9_threshold_sweep"])
def test_average_performance_is_the_mean_of_seven_columns(table):
    for row in published_table(table):
        # every benchmark of a group gets the group's printed mean, so each column is that mean
        ours = _benchmarks({b: float(row[group]) for group, members in GROUPS.items() for b in members})
        assert ours.average().value.mean == pytest.approx(float(row["average_performance"]), abs=0.0101)
        assert ours.complete


def test_a_group_lacking_a_benchmark_is_the_mean_of_the_others_and_says_so():
    ours = _benchmarks({"humaneval": 10.0, "gsm8k": 4.0})
    code = ours.column("code_generation")
    assert code.value.mean == 10.0
    assert code.missing == {"mbpp": "not given"}
    average = ours.average()
    assert average.value.mean == 7.0  # (10 + 4) / 2
    assert set(average.missing) == set(GROUPS) - {"code_generation", "gsm8k"}
    assert ours.column("mmlu").value is None


@pytest.mark.parametrize(
    ("score", "error", "chance", "expected"),
    [(0.0, 0.0, 0.0, False), (45.0, 5.0, 25.0, True), (35.0, 5.0, 25.0, False), (35.01, 5.0, 25.0, True)],
)
def test_above_chance_means_by_more_than_two_standard_errors(score, error, chance, expected):
    assert above_chance(Value((score,), (error,)), Value((chance,))) is expected


def test_the_error_includes_the_spread_over_seeds():
    scores = Value((30.0, 40.0), (0.5, 0.5))  # 35, and an error over seeds of 5
    assert not above_chance(scores, Value((25.1,)))
    assert above_chance(scores, Value((24.0,)))
