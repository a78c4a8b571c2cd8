"""What Snakemake prints with our logger, and a run's last lines."""

from __future__ import annotations

import logging
import os
from io import StringIO
from types import SimpleNamespace

import pytest
from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

from prosparse.paper.claims import registry as claims
from prosparse.paper.summary import summary
from snakemake_logger_plugin_prosparse import LogHandler, duration, named


@pytest.fixture
def handler():
    settings = SimpleNamespace(stdout=True, nocolor=True, verbose=False, dryrun=False, printshellcmds=False)
    made = LogHandler(settings, None)
    made.setFormatter(DefaultFormatter())
    made.started = 0.0
    made.plain.setStream(StringIO())
    return made


def send(handler, event=None, message="", level=logging.INFO, at=0.0, **extra):
    record = logging.LogRecord("snakemake", level, "", 0, message, (), None)
    record.created = at
    record.__dict__.update(extra, **({"event": event} if event else {}))
    handler.emit(record)


def told(handler):
    """What was printed since the last call."""
    printed = handler.plain.stream.getvalue()
    handler.plain.setStream(StringIO())
    return printed


def test_a_finished_job_is_one_line(handler):
    for number, start in ((1, 0.0), (2, 5.0)):
        wildcards = {"run": "small-base", "seed": "0", "stage": str(number)}
        job = {"jobid": number, "rule_name": "train_stage", "wildcards": wildcards, "input": ["a"] * 100}
        send(handler, LogEvent.JOB_INFO, at=start, **job)
    send(handler, LogEvent.JOB_FINISHED, "Finished jobid: 2", at=35.0, job_id=2)
    send(handler, LogEvent.PROGRESS, at=40.0, done=1, total=4)
    assert told(handler) == "[1/4] train_stage small-base, seed 0, stage 2: 35 s; about 2:00 min left\n"
    send(handler, LogEvent.JOB_FINISHED, "Finished jobid: 1", at=3999.0, job_id=1)
    send(handler, LogEvent.PROGRESS, at=4000.0, done=4, total=4)
    assert told(handler) == "[4/4] train_stage small-base, seed 0, stage 1: 1:06 h\n"


def test_a_line_tells_what_was_measured(handler, tmp_path):
    stage, measured, rows = (tmp_path / f"{name}.json" for name in ("provenance", "sparsity", "rows"))
    stage.write_text('{"final": {"sparsity": 0.8912, "lm_loss": 3.4956}}')
    measured.write_text('{"measurements": [{"sparsity": 0.5, "loss": 4}, {"sparsity": 0.9, "loss": 3.25}]}')
    rows.write_text("[1, 2]")
    for path, said in (
        (stage, "89.1% sparse, loss 3.496, 1 s"),
        (measured, "90.0% sparse, loss 3.250, 1 s"),
        (rows, "1 s"),
    ):
        job = {
            "jobid": 1,
            "rule_name": "made",
            "wildcards": {},
            "output": [str(tmp_path / "a.csv"), str(rows), str(path)],
        }
        send(handler, LogEvent.JOB_INFO, **job)
        send(handler, LogEvent.JOB_FINISHED, "Finished jobid: 1", at=1.0, job_id=1)
        send(handler, LogEvent.PROGRESS, at=1.0, done=2, total=2)
        assert told(handler) == f"[2/2] made: {said}\n"


def test_running_jobs_tell_how_far_they_are_where_nothing_else_is_told(handler, tmp_path):
    for number in range(5):  # the first has not written yet, but an earlier attempt has
        log = tmp_path / f"{number}.log"
        log.write_text(f"step 1/9\rstep 2/9\nstep {number}/9 | loss 3\n\n" if number else "step 9/9")
        os.utime(log, times=(0, 10.0 * number + 1 if number else -1))
        job = {"jobid": number, "rule_name": "train", "wildcards": {"stage": str(number)}, "log": [str(log)]}
        send(handler, LogEvent.JOB_INFO, at=10.0 * number, **job)
    handler.told = 60.0
    handler.tell_running(119.0)
    assert told(handler) == ""
    handler.tell_running(121.0)
    assert told(handler).splitlines() == [
        "  train stage 0, 2:01 min",
        "  train stage 1, 1:51 min: step 1/9 | loss 3",
        "  train stage 2, 1:41 min: step 2/9 | loss 3",
        "  and 2 more",
    ]
    handler.tell_running(180.0)
    assert told(handler) == ""
    handler.told = day = 24 * 3600.0
    handler.tell_running(day + 1000)  # once an hour has passed, a sixtieth of the run's time
    assert told(handler) == ""
    send(handler, LogEvent.JOB_ERROR, "Error in rule train", level=logging.ERROR, at=day, jobid=0)
    told(handler)
    handler.tell_running(day + 2000)
    assert "stage 0" not in told(handler)


def test_a_jobs_warnings_are_told_with_it_once(handler, tmp_path):
    log = tmp_path / "job.log"
    for number in (1, 2):
        log.write_text(f"step 1\nwarning: corpus a is exhausted: {number},000 samples repeat\nno warning here\n")
        send(handler, LogEvent.JOB_INFO, jobid=1, rule_name="train", wildcards={}, log=[str(log)])
        send(handler, LogEvent.JOB_FINISHED, "Finished jobid: 1", at=1.0, job_id=1)
        send(handler, LogEvent.PROGRESS, at=1.0, done=2, total=2)
    assert told(handler).splitlines() == [
        "[2/2] train: 1 s",
        "  warning: corpus a is exhausted: 1,000 samples repeat",
        "[2/2] train: 1 s",
    ]


def test_a_warning_is_told_once_and_an_error_in_full(handler):
    for _ in range(3):
        send(handler, message="the disk is slow", level=logging.WARNING)
    send(handler, message="Building DAG of jobs...")
    send(handler, LogEvent.ERROR, "no such file", level=logging.ERROR)
    send(handler, LogEvent.ERROR, "no such file", level=logging.ERROR)
    assert told(handler) == "the disk is slow\nno such file\nno such file\n"


def test_a_plan_counts_jobs_by_rule_once(handler):
    for _ in range(2):
        send(handler, LogEvent.RUN_INFO, stats={"table": 1, "train_stage": 18, "total": 19})
    assert told(handler) == "19 jobs: 18 train_stage, 1 table\n"


def test_durations_and_names():
    assert [duration(seconds) for seconds in (0.4, 59.4, 60, 3599, 3600, 7830)] == [
        "0 s", "59 s", "1:00 min", "59:59 min", "1:00 h", "2:10 h",
    ]  # fmt: skip
    assert named({"rule_name": "publish", "wildcards": None}) == "publish"
    assert named({"rule_name": "table", "wildcards": {"table": "table5"}}) == "table table5"


def test_a_run_ends_with_verdicts_numbers_and_what_to_open(tmp_path):
    from helpers.synthetic_results import Synthetic

    synthetic = Synthetic(tmp_path / "synthetic").write()
    assert summary(synthetic.layout) == ""
    claims.write(synthetic.layout)
    synthetic.layout.html().touch()
    lines = summary(synthetic.layout).splitlines()
    assert lines[7].startswith(" 8 Sparsity raises recall and speed, up to 4.52×")
    assert "does not hold" in lines[7]
    assert "Largest speedup with predictors 1.69×, required at least 4.52×" in lines[7]
    frontiers = synthetic.experiment.figures.frontier
    assert len(lines) == 10 + 2 + 2  # the second model has no ProSparse row
    original = synthetic.results.sparsity(*synthetic.experiment.pair(next(iter(frontiers.values())).original))
    assert f": original {original.loss.mean:.3f}; " in lines[11]
    assert lines[-2].startswith("1.69× faster than our own dense decoding (paper: 4.52×")
    assert lines[-1] == f"Open {synthetic.layout.html()} in a browser, or {synthetic.layout.page()}."
