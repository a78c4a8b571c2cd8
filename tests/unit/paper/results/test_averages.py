"""The paper's averages are those that we compute."""

from __future__ import annotations

import pytest

from prosparse.paper.results.benchmarks import Benchmarks
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
