"""What `snakemake` prints: one line per finished job, and errors in full."""

from __future__ import annotations

import json
import sys
import time
from logging import WARNING, LogRecord
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

#: Events that say nothing to a reader whose jobs run: what a job is called and how it went is told when it ends.
UNTOLD = {
    LogEvent.WORKFLOW_STARTED,
    LogEvent.RESOURCES_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.SHELLCMD,
    LogEvent.GROUP_INFO,
    LogEvent.RULEGRAPH,
}
#: Beginnings of messages without an event that say nothing either.
ROUTINE = (
    "Assuming unrestricted",
    "Building DAG",
    "Conda environments",
    "Reasons:",
    "Select jobs",
    "Using shell",
    "host:",
)


class LogHandler(LogHandlerBase):
    """Snakemake's own handler for what a reader wants in full; the rest in one line per job."""

    def __post_init__(self) -> None:
        self.jobs: dict[int, tuple[dict[str, Any], float]] = {}  # what it is, and when it started
        self.finished: list[int] = []
        self.warned: set[str] = set()
        self.started = time.time()
        self.is_planned = False
        stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self.plain = ColorizingTextHandler(nocolor=self.common_settings.nocolor, stream=stream)

    def emit(self, record: LogRecord) -> None:
        self.plain.setFormatter(self.formatter)
        event = getattr(record, "event", None)
        if self.common_settings.verbose or (self.common_settings.dryrun and self.common_settings.printshellcmds):
            self.plain.emit(record)
        elif event is LogEvent.JOB_INFO:
            self.jobs[record.__dict__["jobid"]] = (record.__dict__, record.created)
        elif event is LogEvent.JOB_FINISHED:
            self.finished.append(record.__dict__["job_id"])
        elif event is LogEvent.PROGRESS:
            self._tell_finished(record)
        elif event is LogEvent.RUN_INFO:
            self._tell_plan(record.__dict__["stats"])
        elif event not in UNTOLD and not self._is_known(record, event):
            self.plain.emit(record)

    def _is_known(self, record: LogRecord, event: LogEvent | None) -> bool:
        """Return whether a message is routine, or a warning that was told already."""
        words = record.getMessage()
        if record.levelno == WARNING:
            known = words in self.warned
            self.warned.add(words)
            return known
        return event is None and words.startswith(ROUTINE)

    def _tell_finished(self, record: LogRecord) -> None:
        """Say which jobs ended, how long they took, and how much is left."""
        done, total = (record.__dict__[key] for key in ("done", "total"))
        for job in self.finished:
            described, start = self.jobs.pop(job, ({"rule_name": f"job {job}", "wildcards": {}}, record.created))
            made = result(described.get("output", []))
            words = f"[{done}/{total}] {named(described)}: {made}{duration(record.created - start)}"
            if done < total:
                words += f"; about {duration((record.created - self.started) / done * (total - done))} left"
            self._tell(words)
        self.finished.clear()

    def _tell_plan(self, stats: dict[str, Any]) -> None:
        """Say which jobs run; a dry run would say so twice."""
        if self.is_planned:
            return
        self.is_planned = True
        counts = {rule: number for rule, number in stats.items() if rule != "total"}
        most_first = sorted(counts.items(), key=lambda item: -item[1])
        self._tell(f"{stats['total']} jobs: " + ", ".join(f"{number} {rule}" for rule, number in most_first))
        if self.common_settings.dryrun:
            self._tell("`snakemake -n -p` lists each of them with its files and command.")

    def _tell(self, words: str) -> None:
        self.plain.stream.write(words + "\n")
        self.plain.flush()

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return False  # Snakemake's, by --quiet

    @property
    def has_formatter(self) -> bool:
        return False  # Snakemake's, for what is printed in full

    @property
    def needs_rulegraph(self) -> bool:
        return False


def named(job: dict[str, Any]) -> str:
    """Name a job by its rule and wildcards: ``train_stage small-prosparse, seed 0, stage 2``."""
    plain = ("run", "table", "figure", "corpus", "package", "shape")  # what these are called says what they are
    words = [value if key in plain else f"{key} {value}" for key, value in dict(job["wildcards"] or {}).items()]
    return " ".join([job["rule_name"], ", ".join(words)]).strip()


def result(outputs: list[str]) -> str:
    """Return the sparsity and loss that a job's JSON files end with, followed by a comma; empty for other jobs."""
    return next(filter(None, (_measured(Path(each)) for each in outputs if each.endswith(".json"))), "")


def _measured(path: Path) -> str:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        last = record.get("final") or record["measurements"][-1]
        return f"{100 * last['sparsity']:.1f} % sparse, loss {last.get('lm_loss', last.get('loss')):.3f}, "
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):  # another kind of result
        return ""


def duration(seconds: float) -> str:
    """Format as ``42 s``, ``3:05 min`` or ``2:10 h``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{seconds:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"
