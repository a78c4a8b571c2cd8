"""A toy experiment on a real Slurm of two pretended nodes: what is submitted, stopped, orphaned and lost."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from helpers.profiles import adapted
from helpers.repository import ROOT
from helpers.toy_experiment import dry_run, toy_experiment
from helpers.workflow import snakemake as run_snakemake
from safetensors.torch import load_file

TESTBED = ROOT / "tests" / "helpers" / "slurm_testbed.sh"
pytestmark = [
    pytest.mark.commands("slurmctld", "slurmd", "munged", "sbatch"),  # slurm_testbed.sh says what to install
    pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root may start a Slurm"),
]  # fmt: skip

STEPS, CHECKPOINT_EVERY = 240, 20
LONG = {"init": {"architecture": "tiny"}, "activation": "silu", "mixture": "mixed", "stages": [{"until": STEPS}]}
OPTIONS = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10"]


def snakemake(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_snakemake(root, *arguments, config=root / "toy.yaml", timeout=7200)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    state = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([TESTBED, "start", state], capture_output=True, text=True)
    if started.returncode:
        pytest.skip(f"no Slurm could be started: {started.stderr.strip()}")
    yield
    subprocess.run([TESTBED, "stop", state], check=True, capture_output=True)


@pytest.fixture(scope="module")
def toy(slurm, tmp_path_factory):
    """The toy experiment with two stages and five longer runs, and its tokens, made by Slurm jobs."""
    root = tmp_path_factory.mktemp("toy")
    config = toy_experiment(root)
    config["training"] |= {"batch_size": 4, "micro_batch_size": 2}
    config["runs"]["prosparse"]["stages"] = [{"until": 4}, {"until": 8, "peak": 0.5}]
    for index, name in enumerate(("stopped", "paused", "orphaned", "unlucky")):
        training = {"batch_size": 64, "learning_rate": 1e-3 * (1 + index), "checkpoint_every": CHECKPOINT_EVERY}
        config["runs"][name] = {**LONG, "training": training}
    wild = {"batch_size": 2, "learning_rate": 1e30, "gradient_clip": 1e30}
    config["runs"]["diverging"] = {**LONG, "training": wild}
    (root / "toy.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    tokens = [f"results/toy/data/tokens/bpe/{corpus}/manifest.json" for corpus in ("code", "prose")]
    run = snakemake(root, *tokens, "--workflow-profile", str(profile(root, nodes=1)), *OPTIONS)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-6000:]
    return root


def profile(root: Path, nodes: int, runtime: str = "24h") -> Path:
    lines = {"partition": "{gpu: gpu, cpu: gpu}", "account": '""', "gpu_type": "fake", "gpus": "1", "nodes": str(nodes)}
    used = adapted("slurm", root / f"{nodes} nodes {runtime}", **lines, cores="4", megabytes="8000")
    text = (used / "profile.yaml").read_text()
    (used / "profile.yaml").write_text(text.replace("runtime: 24h", f"runtime: {runtime}"))
    return used


def stage(run: str, index: int = 0) -> str:
    return f"results/toy/checkpoints/{run}/seed0/stage{index}/provenance.json"


def jobs(run: str) -> list[dict[str, str]]:
    """What Slurm knows of the jobs that trained a run's stages."""
    shown = subprocess.run(["scontrol", "--oneliner", "show", "job"], capture_output=True, text=True, check=True).stdout
    rows = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in shown.splitlines()]
    return [row for row in rows if row.get("Comment", "").startswith(f"rule_train_stage_wildcards_{run}_")]


def wait_for(condition, what: str, seconds: float = 600) -> None:
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.2)


def checkpoints(root: Path, run: str) -> list[int]:
    folder = (root / stage(run)).parent / "resume"
    states = folder.glob("checkpoint-*/trainer_state.json")
    return sorted(int(path.parent.name.split("-")[1]) for path in states)


def submit(root: Path, used: Path, target: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "snakemake", target, "--snakefile", ROOT / "Snakefile", "--directory", root]
    command += ["--workflow-profile", used, *OPTIONS, "--configfile", root / "toy.yaml"]
    return subprocess.Popen(command, stdout=(root / "main.log").open("w"), stderr=subprocess.STDOUT)


def assert_whole(root: Path, run: str) -> None:
    with open((root / stage(run)).parent / "ledger.csv", newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [1, *range(2, STEPS + 1, 2)]


def test_two_nodes_end_to_end_give_what_one_process_gives(toy, tmp_path):
    sparsity = "results/toy/measurements/prosparse/seed0/sparsity.json"
    used = profile(toy, nodes=2)
    run = snakemake(toy, "table6", sparsity, "--workflow-profile", str(used), *OPTIONS)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-6000:]
    assert (toy / "results/toy/tables/table6.md").exists()
    for name in ("base", "prosparse"):
        for job in jobs(name):
            assert (job["NumNodes"], job["JobState"]) == ("2", "COMPLETED")
    assert [len(jobs(name)) for name in ("base", "prosparse")] == [1, 2]
    # the number of processes is no reason to train again
    assert "Nothing to be done" in dry_run(toy, None, "table6", sparsity)
    shutil.copytree(toy / "results/toy/data", tmp_path / "results/toy/data")
    for name in ("toy.yaml", "rows", "text", "code"):
        (tmp_path / name).symlink_to(toy / name)
    alone = snakemake(tmp_path, stage("prosparse", 1), "--cores", "1")
    assert alone.returncode == 0, alone.stderr[-6000:]
    for path in (stage("base"), stage("prosparse", 1)):
        expected = load_file((tmp_path / path).parent / "model.safetensors")
        found = load_file((toy / path).parent / "model.safetensors")
        assert found.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("run", "nodes"), [("stopped", 1), ("paused", 2)])
def test_a_stage_that_is_out_of_time_goes_on_without_a_retry(toy, run, nodes):
    used = profile(toy, nodes=nodes, runtime="1m")
    options = ["--retries", "99", "--slurm-keep-successful-logs"]
    made = snakemake(toy, stage(run), "--workflow-profile", str(used), *OPTIONS, *options)
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-6000:]
    *failed, last = jobs(run)
    assert (last["JobState"], last["NumNodes"]) == ("COMPLETED", str(nodes))
    # Slurm itself ends a job only if this machine is so busy that the stage begins late: that is a failure
    assert {job["JobState"] for job in failed} <= {"TIMEOUT"}
    times = sum(int(job["Restarts"]) for job in jobs(run))
    assert times > 0
    logs = [path.read_text() for path in toy.glob(f".snakemake/slurm_logs/rule_train_stage/{run}*/*.log")]
    assert sum(len(re.findall(r"job \d+ is requeued", log)) for log in logs) == times
    assert_whole(toy, run)


def test_a_stage_that_cannot_succeed_is_tried_three_times(toy):
    run = snakemake(toy, stage("diverging"), "--workflow-profile", str(profile(toy, nodes=1)), *OPTIONS)
    assert run.returncode == 1
    assert "loss is nan at step" in run.stdout + run.stderr
    assert [(job["JobState"], job["Restarts"]) for job in jobs("diverging")] == [("FAILED", "0")] * 3


def test_snakemake_is_killed_and_its_job_is_not_started_twice(toy):
    used = profile(toy, nodes=1)
    main = submit(toy, used, stage("orphaned"))
    wait_for(lambda: checkpoints(toy, "orphaned"), "a checkpoint")
    main.send_signal(signal.SIGKILL)
    main.wait()
    again = ["--workflow-profile", str(used), *OPTIONS]
    unlocked = snakemake(toy, "--unlock", *again)
    assert unlocked.returncode == 0, unlocked.stderr
    run = snakemake(toy, stage("orphaned"), *again)
    (job,) = jobs("orphaned")
    if job["JobState"] == "RUNNING":
        assert run.returncode == 1
        assert f"cancel them: scancel {job['JobId']}" in run.stdout + run.stderr
    wait_for(lambda: jobs("orphaned")[0]["JobState"] == "COMPLETED", "the job's end")
    run = snakemake(toy, stage("orphaned"), *again)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Nothing to be done" in run.stdout + run.stderr
    assert len(jobs("orphaned")) == 1
    assert_whole(toy, "orphaned")


def test_a_failed_node_costs_at_most_one_checkpoint_interval(toy):
    main = submit(toy, profile(toy, nodes=2), stage("unlucky"))
    try:
        wait_for(lambda: len(checkpoints(toy, "unlucky")) > 0, "a checkpoint")
        subprocess.run(["scontrol", "update", "nodename=n2", "state=down", "reason=test"], check=True)
        wait_for(lambda: jobs("unlucky")[0]["JobState"] != "RUNNING", "the job's end")
        saved = checkpoints(toy, "unlucky")[-1]
        log = toy / "results/toy/logs/train/unlucky.seed0.stage0.log"
        reached = max(map(int, re.findall(rf"step (\d+)/{STEPS}", log.read_text())))
        subprocess.run(["scontrol", "update", "nodename=n2", "state=resume"], check=True)
        assert main.wait(900) == 0, (toy / "main.log").read_text()[-6000:]
    finally:
        main.kill()
    first = min(map(int, re.findall(rf"step (\d+)/{STEPS}", log.read_text())))
    assert reached - saved <= CHECKPOINT_EVERY
    assert first > saved
    assert_whole(toy, "unlucky")
