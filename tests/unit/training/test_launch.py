"""Processes of a training job: how many, where, for how long, and what their end looks like from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.tiny_training import STAGES, ledger, specification, weights

from prosparse.__main__ import main
from prosparse.training.launch import step_environment, time_budget


@pytest.mark.parametrize(
    ("minutes", "seconds"),
    [(0, None), (1, 20), (6, 320), (10, 540), (60, 54 * 60), (300, 270 * 60), (1440, 1410 * 60), (2880, 2850 * 60)],
)
def test_time_budget_keeps_a_tenth_within_40_seconds_and_half_an_hour(minutes, seconds):
    assert time_budget(minutes) == seconds


def test_a_step_inherits_nothing_of_the_step_that_asks_for_it():
    environment = {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "1",
        "SLURM_CPU_BIND": "mask",
        "SRUN_CPUS_PER_TASK": "1",
        "A": "b",
    }
    assert step_environment(environment) == {"SLURM_JOB_ID": "7", "A": "b"}


def test_several_nodes_need_slurm(capsys, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert main(["step", "launch", "--nodes", "2", "--processes", "4", "--", "train-stage", "--output", "x"]) == 1
    assert "only Slurm starts processes on several nodes" in capsys.readouterr().err


def test_one_process_is_this_one(capsys):
    specification = '{"split": "heldout", "activations": ["relu"], "corpora": {}, "precision": "float32"}'
    wanted = ["--specification", specification, "--run", "r", "--seed", "0", "--tokens", "t"]
    assert main(["step", "launch", "--", "sparsity", "nowhere/x", *wanted, "--output", "x"]) == 1
    assert "nowhere is not a checkpoint" in capsys.readouterr().err


def launch(data: Path, output: Path, processes: int, *more: str) -> list[str]:
    return [
        "step", "launch", "--processes", str(processes), "--", "train-stage", "--specification",
        specification(STAGES[:2], log_every=1).model_dump_json(), "--tokens", str(data / "tokens"), "--tokenizer",
        str(data / "tokenizer" / "tokenizer.json"), "--output", str(output / "provenance.json"), *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_out_of_time_is_75_whatever_starts_the_processes_and_one_process_may_go_on(data, tmp_path, capsys):
    """Two processes stop after a step; one ends what they began, with the weights of one alone."""
    command = [sys.executable, "-m", "prosparse", *launch(data, tmp_path / "two", 2, "--max-seconds", "0")]
    asked = tmp_path / "asked"  # by the script of a cluster's job
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PROSPARSE_OUT_OF_TIME": str(asked)}
    stopped = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert stopped.returncode == 75, stopped.stderr
    assert "saved at step 1 of 10" in stopped.stderr
    assert asked.read_text() == "out of time\n"
    for directory, earlier in (("two", [1]), ("one", [])):
        assert main(launch(data, tmp_path / directory, 1)) == 0
        assert [row["step"] for row in ledger(tmp_path / directory)] == list(range(1, 11))
        assert ("step 1/10" in capsys.readouterr().out) is not (1 in earlier)  # its step was not made again
    together, alone = weights(tmp_path / "two"), weights(tmp_path / "one")
    for name in alone:
        torch.testing.assert_close(together[name], alone[name], rtol=1e-3, atol=1e-4)
