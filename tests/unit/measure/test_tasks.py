"""Definitions of benchmarks against the paper and lm-eval."""

from __future__ import annotations

import pytest

from prosparse.measure import tasks
from prosparse.system.errors import ConfigError

#: Shots and answer rule of the paper's evaluation section.
PAPER = {
    "humaneval": (0, "pass_at_1"),
    "mbpp": (3, "pass_at_1"),
    "piqa": (0, "lowest_perplexity"),
    "siqa": (0, "lowest_perplexity"),
    "hellaswag": (0, "lowest_perplexity"),
    "winogrande": (0, "lowest_perplexity"),
    "copa": (0, "lowest_perplexity"),
    "boolq": (0, "lowest_perplexity"),
    "lambada": (0, "lowest_perplexity"),
    "tydiqa": (0, "lowest_perplexity"),
    "gsm8k": (8, "generation"),
    "mmlu": (5, "generation"),
    "bbh": (3, "generation"),
    "agi_eval": (0, "lowest_perplexity"),
}


def test_the_benchmarks_are_the_papers_with_its_shots_and_answer_rules() -> None:
    loaded = map(tasks.load, tasks.names())
    assert {task.name: (task.shots, task.answer) for task in loaded if task.rows_of is None} == PAPER


def test_what_the_paper_generates_is_also_answered_by_likelihood_with_as_many_shots() -> None:
    also = [task for task in map(tasks.load, tasks.names()) if task.rows_of]
    assert {task.name: task.rows for task in also} == {"bbh_likelihood": "bbh", "mmlu_likelihood": "mmlu"}
    for task in also:
        paper = tasks.load(task.rows)
        assert (task.answer, task.shots) == ("lowest_perplexity", paper.shots)
        assert (task.hub, task.package) == (paper.hub, paper.package)
        assert set(task.bases()) == set(paper.bases())
        for subtask, base in task.bases().items():  # so no row to answer is a shot
            shown = [[shot["input"] for shot in tasks.fixed_shots(each)] for each in (base, paper.bases()[subtask])]
            assert shown[0] == shown[1]


@pytest.mark.parametrize("name", tasks.names())
def test_every_definition_names_lm_eval_tasks_and_enough_shots(name: str) -> None:
    task = tasks.load(name)
    assert task.protocol.endswith(".")
    for base in task.bases().values():
        assert base.is_file()
        fixed = tasks.fixed_shots(base)
        if task.shots and not (task.package and task.package.shots):
            assert len(fixed) >= task.shots


def test_subtasks_are_those_of_the_benchmark() -> None:
    assert len(tasks.load("mmlu").bases()) == 57
    bbh = tasks.load("bbh")
    assert len(bbh.bases()) == 27  # 23 tasks, two of them in three sizes
    assert bbh.package is not None
    assert set(bbh.package.source_tasks) < set(bbh.bases())
    assert len({source.source.split("/")[0] for source in bbh.package.source_tasks.values()}) == 20


def test_mbpp_shots_are_its_tasks_2_to_4() -> None:
    assert [shot["task_id"] for shot in tasks.fixed_shots(tasks.load("mbpp").bases()[None])] == [2, 3, 4]


def test_an_unknown_benchmark_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'arc'.*piqa"):
        tasks.load("arc")
