"""What `snakemake` prints: one line per finished job, how far running jobs are, and errors in full."""

from __future__ import annotations

import json
import re
import sys
import time
from itertools import islice
from logging import WARNING, LogRecord
from pathlib import Path
from threading import Thread
from typing import Any

from snakemake.logging import ColorizingTextHandler
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_prosparse.job_log import last_line, warnings

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
    "Job ",  # has been submitted
    "Reasons:",
    "SLURM run ID",
    "Select jobs",
    "Submitted job",
    "Using shell",
    "host:",
)
#: Seconds without a line after which running jobs tell how far they are; in a run of hours, a share of its time.
QUIET, QUIET_SHARE = 60.0, 1 / 60
RUNNING_SHOWN = 3
#: Warnings of jobs that differ in their numbers only are told once.
NUMBERS = re.compile(r"\d[\d.,]*")


class LogHandler(LogHandlerBase):
    """Snakemake's own handler for what a reader wants in full; the rest in one line per job."""

    def __post_init__(self) -> None:
        self.jobs: dict[int, tuple[dict[str, Any], float]] = {}  # what it is, and when it started
        self.finished: list[int] = []
        self.warned: set[str] = set()
        self.started = self.told = time.time()
        self.planned: int | None = None  # jobs
        self.watch: Thread | None = None
        stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self.plain = ColorizingTextHandler(nocolor=self.common_settings.nocolor, stream=stream)

    def emit(self, record: LogRecord) -> None:
        self.plain.setFormatter(self.formatter)
        event = getattr(record, "event", None)
        if self.common_settings.verbose or (self.common_settings.dryrun and self.common_settings.printshellcmds):
            self.plain.emit(record)
        elif event is LogEvent.JOB_INFO:
            self._begin(record)
        elif event is LogEvent.JOB_FINISHED:
            self.finished.append(record.__dict__["job_id"])
        elif event is LogEvent.PROGRESS:
            self._tell_finished(record)
            self.told = record.created
        elif event is LogEvent.RUN_INFO:
            self._tell_plan(record.__dict__["stats"])
        elif event not in UNTOLD and not self._is_known(record, event):
            if event is LogEvent.JOB_ERROR:
                self.jobs.pop(record.__dict__["jobid"], None)
            self.plain.emit(record)
            self.told = record.created

    def _begin(self, record: LogRecord) -> None:
        self.jobs[record.__dict__["jobid"]] = (record.__dict__, record.created)
        if self.watch is None and not self.common_settings.dryrun:
            self.watch = Thread(target=self._keep_watch, daemon=True)
            self.watch.start()

    def _keep_watch(self) -> None:
        while True:
            time.sleep(QUIET / 10)
            with self.lock:  # type: ignore[union-attr]  # logging.Handler has made one
                self.tell_running(time.time())

    def tell_running(self, now: float) -> None:
        """Say how far the jobs are that have run longest, if nothing was said for a while."""
        if now - self.told < max(QUIET, (now - self.started) * QUIET_SHARE):
            return
        for described, start in islice(self.jobs.values(), RUNNING_SHOWN):
            line = next(filter(None, (last_line(Path(each), start) for each in described.get("log", []))), "")
            self._tell(f"  {named(described)}, {duration(now - start)}" + (f": {line}" if line else ""))
        if (more := len(self.jobs) - RUNNING_SHOWN) > 0:
            self._tell(f"  and {more} more")
        self.told = now

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
        done = record.__dict__["done"]
        total = self.planned or record.__dict__["total"]  # which counts jobs that --until and --omit-from leave out
        for job in self.finished:
            described, start = self.jobs.pop(job, ({"rule_name": f"job {job}", "wildcards": {}}, record.created))
            made = result(described.get("output", []))
            words = f"[{done}/{total}] {named(described)}: {made}{duration(record.created - start)}"
            if done < total:
                words += f"; about {duration((record.created - self.started) / done * (total - done))} left"
            self._tell(words)
            for line in (line for log in described.get("log", []) for line in warnings(Path(log))):
                alike = NUMBERS.sub("", line)
                if alike not in self.warned:
                    self.warned.add(alike)
                    self._tell(f"  {line}")
        self.finished.clear()

    def _tell_plan(self, stats: dict[str, Any]) -> None:
        """Say which jobs run; a dry run would say so twice."""
        if self.planned is not None:
            return
        self.planned = stats["total"]
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
        return f"{100 * last['sparsity']:.1f}% sparse, loss {last.get('lm_loss', last.get('loss')):.3f}, "
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
