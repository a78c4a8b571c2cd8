"""Run the parts of a check, each within its time limit, and write the results after each."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prosparse.gpu_check import page, table2
from prosparse.gpu_check.parts import Part, parts
from prosparse.gpu_check.scale import Scale
from prosparse.paper.results.reader import MissingResult
from prosparse.system.files import write_json, write_text

LAST_LINES = 15
#: Seconds between asking a part to stop and stopping it.
GRACE = 5


@dataclass(frozen=True)
class Outcome:
    """The outcome of a part."""

    name: str
    title: str
    verdict: str  # passed, failed, out of time
    seconds: float
    limit: int
    found: dict[str, Any]
    last_lines: list[str]  # of what a part that did not pass printed


def check(scale: Scale, results: Path, gpus: int) -> list[Outcome]:
    """Run every part; the failure of one does not affect the others.

    Args:
        results: folder of check.json, README.md and the tables, which earlier results leave first.
        gpus: that train together.
    """
    for old in ("check.json", "README.md", "tables", "measurements"):
        path = results / old
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="prosparse-gpu-check-") as work:
        for part in parts(scale, Path(work), results.absolute(), gpus):
            print(f"{part.title}, at most {part.seconds} s", flush=True)
            outcomes.append(outcome := run(part, Path(work) / f"{part.name}.log"))
            print(f"  {outcome.verdict} after {outcome.seconds:.0f} s", flush=True)
            _write(outcomes, scale, results)
    return outcomes


def _write(outcomes: list[Outcome], scale: Scale, results: Path) -> None:
    write_json(results / "check.json", {"parts": [asdict(outcome) for outcome in outcomes]})
    try:
        tables = [path for path in table2.write(scale, results) if path.suffix == ".md"]
    except MissingResult:  # not timed yet, or not at all
        tables = []
    write_text(results / "README.md", page.text(outcomes, [path.relative_to(results) for path in tables]))


def run(part: Part, log: Path) -> Outcome:
    """Run a part, and stop it with all its processes when its time is up."""
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(part.command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status: int | None = process.wait(part.seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    seconds, found = time.monotonic() - started, {}
    verdict = "out of time" if status is None else "passed" if status in part.successes else "failed"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    if verdict == "passed":
        try:
            found = part.read()
        except (OSError, ValueError, LookupError) as error:
            verdict, lines = "failed", [*lines, f"what it wrote cannot be read: {error!r}"]
    return Outcome(part.name, part.title, verdict, seconds, part.seconds, found, [] if verdict == "passed" else lines)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and those it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:  # all have ended
            return
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
