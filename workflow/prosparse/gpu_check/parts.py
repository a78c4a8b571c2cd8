"""The parts of a check: each a process with a time limit, and what is read from its files."""

from __future__ import annotations

import csv
import json
import statistics
import sys
import xml.etree.ElementTree as xml
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from prosparse.experiment.activation import Activation
from prosparse.experiment.layout import LEDGER
from prosparse.experiment.specifications import StageSpecification
from prosparse.experiment.training import Stage, Training
from prosparse.gpu_check.scale import TOKENIZER, TOKENS, Scale
from prosparse.gpu_check.table2 import operators_file, specification
from prosparse.system.errors import OUT_OF_TIME


@dataclass(frozen=True)
class Part:
    """One part of the check.

    Attributes:
        seconds: after which it is stopped.
        successes: its exit statuses that are not failures.
        read: what to show of its files; called only after a success.
    """

    name: str
    title: str
    seconds: int
    command: list[str]
    read: Callable[[], dict[str, Any]]
    successes: tuple[int, ...] = (0,)


def parts(scale: Scale, work: Path, results: Path, gpus: int) -> list[Part]:
    """Return the parts in the order in which they run; together at most ten minutes.

    Args:
        work: folder of what is not kept.
        results: folder of what is.
        gpus: one process trains on each.
    """
    tests, machine, decoding = work / "tests.xml", work / "machine.json", work / "decoding.json"
    pytest = [sys.executable, "-m", "pytest", "-q", "tests/unit/operators/test_gpu.py", f"--junitxml={tests}"]
    rehearsed = ["--rehearse"] if scale.rehearsed else []
    look = _step("gpu-check-machine", "--output", machine, *rehearsed)
    timed = operators_file(scale, results)
    operators = _step("operators", "--specification", specification(scale).model_dump_json(), "--output", timed)
    found = [
        Part("machine", "The machine", 30, look, partial(_json, machine)),
        Part("tests", "Tests of the GPU operators", 110, [*pytest, "-k", scale.tests], partial(read_tests, tests)),
        Part("operators", "Operators at the paper's shapes", 95, operators, lambda: {"file": timed.name}),
        Part("data", "Random tokens to train on", 30, _step("gpu-check-data", "--output", work, *rehearsed), dict),
        _training("training", "A minute of training, compiled", scale, work, 1),
    ]
    if gpus > 1:
        found.append(_training("fsdp", f"A minute of training, sharded over {gpus} GPUs", scale, work, gpus))
    decode = _step("gpu-check-decoding", "--output", decoding, *rehearsed)
    found.append(Part("decoding", "Decoding in every mode", 80, decode, partial(_json, decoding)))
    return [replace(part, seconds=scale.patience * part.seconds) for part in found]


def _step(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "prosparse", "step", *map(str, words)]


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _training(name: str, title: str, scale: Scale, work: Path, processes: int) -> Part:
    output = work / name
    wanted = StageSpecification(
        seed=0, start=scale.model, activation=Activation(name="relu"), mixture={"random": 1.0},
        context_length=scale.context_length, stages=[Stage(until=100_000, peak=0.1)], total_steps=100_000,
        training=Training(
            learning_rate=1e-4, batch_size=scale.batch_size, micro_batch_size=scale.micro_batch_size,
            precision=scale.precision, compile=scale.compile, fsdp=processes > 1, log_every=1, checkpoint_every=100_000,
        ),
    )  # fmt: skip
    command = _step(
        "launch", "--processes", str(processes), "--", "train-stage", "--specification", wanted.model_dump_json(),
        "--tokens", work / TOKENS, "--tokenizer", work / TOKENIZER / "tokenizer.json", "--max-seconds",
        str(scale.training_seconds), "--output", output / "provenance.json",
    )  # fmt: skip
    # a stage stops when its longest step, the one that compiles, would no longer fit
    return Part(name, title, 110, command, lambda: read_ledger(output / "resume" / LEDGER), (0, OUT_OF_TIME))


def read_tests(path: Path) -> dict[str, Any]:
    """Return the counts of a JUnit file, and why tests were skipped."""
    (suite,) = xml.parse(path).getroot().iter("testsuite")
    counts = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    reasons = {each.attrib["message"] for each in suite.iter("skipped")}
    return {**counts, "why_skipped": sorted(reasons)}


def read_ledger(path: Path) -> dict[str, Any]:
    """Return the speed of the later half of the logged steps, and the loss at both ends."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    later = rows[len(rows) // 2 :]
    return {
        "steps": int(rows[-1]["step"]),
        "tokens_per_second": statistics.median(row["tokens_per_second"] for row in later),
        "first_loss": rows[0]["lm_loss"],
        "last_loss": rows[-1]["lm_loss"],
    }
