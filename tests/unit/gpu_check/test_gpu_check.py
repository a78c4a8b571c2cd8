"""The check's rehearsal on a CPU, what becomes of parts that fail, hang or write nonsense, and its time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time

import pytest
from helpers.repository import ROOT

from prosparse.__main__ import main
from prosparse.gpu_check import run
from prosparse.gpu_check.parts import Part, parts
from prosparse.gpu_check.scale import REHEARSAL, SMOLLM2, WHOLE
from prosparse.gpu_check.steps import machine
from prosparse.gpu_check.table2 import TABLES, specification
from prosparse.published.shapes import published_shapes
from prosparse.system.errors import UserError


@pytest.mark.slow
def test_rehearsal_runs_every_part(tmp_path, monkeypatch):
    """As on a machine with two GPUs: the operators in Triton's interpreter, all else on the CPU."""
    monkeypatch.chdir(ROOT)
    assert main(["step", "gpu-check", "--rehearse", "--output", str(tmp_path)]) == 0
    found = {part["name"]: part for part in json.loads((tmp_path / "check.json").read_text())["parts"]}
    assert list(found) == ["machine", "tests", "operators", "data", "training", "fsdp", "decoding"]
    assert {part["verdict"] for part in found.values()} == {"passed"}
    assert found["tests"]["found"]["tests"] > 0
    assert found["tests"]["found"]["skipped"] == found["tests"]["found"]["failures"] == 0
    # a model that has learned nothing: about the entropy of its vocabulary
    for name in ("training", "fsdp"):
        assert found[name]["found"]["first_loss"] == pytest.approx(math.log(256), abs=0.5)
    assert found["fsdp"]["found"]["first_loss"] == pytest.approx(found["training"]["found"]["first_loss"], rel=1e-4)
    assert found["decoding"]["found"]["tokens_per_second"].keys() == {"dense", "exact", "predicted"}
    assert found["decoding"]["found"]["exact_gives_the_dense_tokens"] is True
    for name in TABLES:
        assert (tmp_path / "tables" / f"{name}.md").exists()
    assert "| **ProSparse-7B** | paper | 89.32 | 45.38 |" in (tmp_path / "tables" / "table2_operators.md").read_text()
    page = (tmp_path / "README.md").read_text()
    assert "| Decoding in every mode | passed |" in page


@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_a_check_takes_ten_minutes_at_most(tmp_path, gpus):
    listed = parts(WHOLE, tmp_path, tmp_path, gpus)
    assert sum(part.seconds + run.GRACE for part in listed) <= 610
    assert ("fsdp" in [part.name for part in listed]) == (gpus > 1)
    (launched,) = [part for part in listed if part.name == ("fsdp" if gpus > 1 else "training")]
    assert launched.command[launched.command.index("--processes") + 1] == str(gpus)


def test_the_whole_check_is_of_the_papers_and_a_real_models_shape():
    timed = specification(WHOLE)
    for scale, (hidden, intermediate) in timed.settings.shapes.items():
        shape = published_shapes()[scale]
        assert (hidden, intermediate) == (shape.hidden_size, shape.intermediate_size)
    assert timed.trained == {}
    assert (SMOLLM2.hidden_size, SMOLLM2.intermediate_size, SMOLLM2.layers) == (576, 1536, 30)


def python(program: str, seconds: int = 60, read=dict) -> Part:
    return Part("part", "A part", seconds, [sys.executable, "-c", program], read)


def test_a_part_that_fails_shows_its_last_lines(tmp_path):
    outcome = run.run(python("print('before'); raise SystemExit('the reason')"), tmp_path / "log")
    assert (outcome.verdict, outcome.found) == ("failed", {})
    assert sorted(outcome.last_lines) == ["before", "the reason"]


def test_a_part_that_hangs_is_ended_with_what_it_started(tmp_path):
    child = tmp_path / "child"
    program = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"child = subprocess.Popen(['sleep', '600']); open({str(child)!r}, 'w').write(str(child.pid)); time.sleep(600)"
    )
    started = time.monotonic()
    outcome = run.run(python(program, seconds=5), tmp_path / "log")
    assert outcome.verdict == "out of time"
    assert time.monotonic() - started < 60
    state = subprocess.run(["ps", "-o", "stat=", "-p", child.read_text()], capture_output=True, text=True).stdout
    assert state.strip()[:1] in ("", "Z")  # gone, or dead and not yet waited for


def test_a_part_that_writes_nonsense_has_failed(tmp_path):
    outcome = run.run(python("pass", read=lambda: json.loads("nonsense")), tmp_path / "log")
    assert outcome.verdict == "failed"
    assert "what it wrote cannot be read" in outcome.last_lines[-1]


def test_parts_after_a_failure_run_and_the_page_says_what_failed(tmp_path, monkeypatch, capsys):
    listed = [
        python("raise SystemExit('no driver')"),
        python("print(1)", 45, read=lambda: {"share": 0.5, "kinds": ["a", "b"]}),
    ]
    monkeypatch.setattr(run, "parts", lambda *_: listed)
    outcomes = run.check(REHEARSAL, tmp_path, 1)
    assert [outcome.verdict for outcome in outcomes] == ["failed", "passed"]
    # each part's time is printed before it starts, and recorded
    assert [line for line in capsys.readouterr().out.splitlines() if "at most" in line] == [
        "A part, at most 60 s", "A part, at most 45 s",
    ]  # fmt: skip
    assert [part["limit"] for part in json.loads((tmp_path / "check.json").read_text())["parts"]] == [60, 45]
    page = (tmp_path / "README.md").read_text()
    assert "no driver" in page
    assert "share: 0.5; kinds: a, b" in page


def test_a_machine_without_a_gpu_says_why(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UserError, match="sees no GPU: this torch was built without CUDA"):
        machine()
