"""What jobs ask for under each profile, and mistakes in a profile, without a cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
import yte
from helpers.profiles import PROFILES, adapted
from helpers.repository import EXPERIMENTS, ROOT
from helpers.toy_experiment import toy_experiment
from helpers.workflow import Plan, snakemake

TIMED = {"overhead", "operators", "trained_operators", "decoding", "decoding_shape"}
MEASURED = {
    "sparsity", "stage_sparsity", "training_free", "benchmarks", "predictors", "prediction", "predicted_benchmarks",
}  # fmt: skip
ON_A_GPU = {"train_stage", *MEASURED, *TIMED}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Commands of a cluster without partition `nope`; what is asked of sbatch is in the file `asked`.

    All that Snakemake's plugin looks for (it refuses to load without squeue and sacct), since no other is seen.
    """
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "sbatch").write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncase "$*" in *--partition=nope*)\n'
        '  echo "allocation failure: Invalid partition name specified" >&2; exit 1;;\nesac\n'
    )
    for silent in ("sinfo", "squeue", "scontrol", "scancel"):
        (commands / silent).write_text("#!/bin/sh\n")
    for command in commands.iterdir():
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def resources(output: str) -> dict[str, dict[str, str]]:
    """Rule -> threads and resources of its jobs in a dry run."""
    return {job.rule: job.resources for job in Plan.read(output).jobs}


FOR_GPUS = [path for path in EXPERIMENTS if path.stem in ("node", "paper", "released")]


@pytest.mark.parametrize(
    ("option", "config"),
    [
        *(pytest.param("--workflow-profile", path, id=path.stem) for path in EXPERIMENTS),
        # the options differ in what else is loaded, whatever the experiment
        *(pytest.param("--profile", path, id=f"{path.stem} by --profile") for path in FOR_GPUS),
    ],
)
@pytest.mark.parametrize("profile", ["slurm", "cluster", "gpus"])
def test_experiments_have_a_dag_under_every_profile(cluster, config, profile, option):
    for_gpus = config in FOR_GPUS
    used = adapted(profile, cluster)
    targets = ["all", "publish", "plan", *(["release"] if for_gpus else [])]
    run = snakemake(cluster, *targets, "--dry-run", "--printshellcmds", option, str(used), config=config)
    assert run.returncode == 0, run.stdout + run.stderr
    asked = resources(run.stdout)
    assert {"start" if config.stem == "released" else "train_stage", "sparsity"} <= asked.keys()
    # a run asks for what its batch can use; the small experiments' of four sequences at once are one process's
    training = "8" if for_gpus else "1"
    for rule, its in asked.items():
        if profile == "slurm":
            number = training if rule == "train_stage" else "1"
            assert its.get("gres") == (f"gpu:a100:{number}" if rule in ON_A_GPU else None), rule
            assert (its.get("slurm_extra") == "--exclusive") == (rule in TIMED), rule
        else:
            number = training if rule == "train_stage" else "8" if rule in TIMED else "1"
            assert its.get("gpu", "0") == (number if rule in ON_A_GPU else "0"), rule
        if profile != "gpus" and rule in TIMED and option == "--workflow-profile":
            assert its["threads"] == "64", rule  # else this machine's cores, until the job is on its node


def test_five_lines_adapt_the_slurm_profile(cluster):
    used = adapted(
        "slurm", cluster, partition="{gpu: all, cpu: short}", account="physics", gpu_type="h200", gpus="4", nodes="3"
    )
    config = toy_experiment(cluster)
    config["training"] |= {"batch_size": 24, "micro_batch_size": 1}
    (cluster / "toy.yaml").write_text(yaml.safe_dump(config))
    run = snakemake(
        cluster, "table1", "--dry-run", "--printshellcmds", "--workflow-profile", str(used), config=cluster / "toy.yaml"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    asked = resources(run.stdout)
    stage = {"slurm_partition": "all", "slurm_account": "physics", "gres": "gpu:h200:4", "nodes": "3", "processes": "4"}
    assert stage.items() <= asked["train_stage"].items()
    assert asked["train_stage"]["runtime"] == "1440"
    assert {"slurm_partition": "all", "gres": "gpu:h200:1", "cpus_per_task": "16"}.items() <= asked["sparsity"].items()
    assert {"slurm_partition": "short", "slurm_account": "physics"}.items() <= asked["tokens"].items()
    # what is asked of Slurm in advance is what the jobs will be
    asked_in_advance = (cluster / "asked").read_text().splitlines()
    assert (
        "--test-only --partition=all --account=physics --nodes=3 --gres=gpu:h200:4 --cpus-per-task=64 --mem=480000 "
        "--time=1440 --open-mode=append --wrap=true" in asked_in_advance
    )
    assert len(asked_in_advance) == len(set(asked_in_advance))


def test_nobody_is_charged_where_there_are_no_accounts(cluster):
    used = adapted("slurm", cluster, account='""')
    profile = yte.process_yaml((used / "profile.yaml").read_text())
    assert "slurm_account" not in profile["default-resources"]


def refused(directory: Path, profile: Path) -> str:
    run = snakemake(directory, "table6", "--dry-run", "--printshellcmds", "--workflow-profile", str(profile))
    assert run.returncode != 0
    assert not (directory / "results").exists()
    return run.stdout + run.stderr


def test_an_unknown_partition_is_said_before_any_work(cluster):
    said = refused(cluster, adapted("slurm", cluster, partition="{gpu: nope, cpu: cpu}", gpus="1"))
    assert "Slurm refuses jobs of train_stage: allocation failure: Invalid partition name specified" in said


def test_a_slurm_that_does_not_answer_is_no_fault_of_the_profile(cluster):
    (cluster / "commands" / "sinfo").write_text('#!/bin/sh\necho "Unable to contact slurm controller" >&2; exit 1\n')
    said = refused(cluster, adapted("slurm", cluster, gpus="1"))
    assert "Slurm does not answer on this machine: Unable to contact slurm controller" in said


@pytest.mark.parametrize(
    ("key", "rule", "mistaken", "meant"),
    [
        ("set-resources", "  sparsity: ", "  sparseness: ", ""),
        ("set-threads", "  overhead: ?cores", "  overhed: ?cores", " (did you mean overhead?)"),
    ],
)
def test_an_unknown_rule_is_said_before_any_work(cluster, key, rule, mistaken, meant):
    used = adapted("slurm", cluster, gpus="1")
    text = (used / "profile.yaml").read_text()
    (used / "profile.yaml").write_text(text.replace(rule, mistaken))
    name = mistaken.split(":")[0].strip()
    said = refused(cluster, used)
    assert f"{key}: no rule is called {name}{meant}; allowed: " in said


def test_each_run_asks_for_what_its_batch_can_use(cluster):
    """On four nodes of eight GPUs: the batches of Table 6 divide among 32, MiniCPM's 1,200 and 248 do not."""
    used = adapted("slurm", cluster, nodes="4")
    config = ROOT / "workflow" / "experiments" / "paper.yaml"
    run = snakemake(cluster, "all", "--dry-run", "--printshellcmds", "--workflow-profile", str(used), config=config)
    assert run.returncode == 0, run.stdout + run.stderr
    stages = [job for job in Plan.read(run.stdout).jobs if job.rule == "train_stage"]
    by_run = {re.search(r"run=([^,]+)", job.wildcards)[1]: job.resources for job in stages}
    whole = {"processes": "8", "gres": "gpu:a100:8", "cpus_per_task": "64", "mem_mb": "480000"}
    # 1,200 sequences, 5 at once: 240 = 3 x 8 x 10
    for name, nodes in {"prosparse-7b": "4", "prosparse-13b": "4", "prosparse-1b": "3", "sft-1b": "1"}.items():
        assert by_run[name].items() >= {"nodes": nodes, **whole}.items()


def test_a_run_on_a_part_of_a_node_asks_for_that_part(cluster):
    config = toy_experiment(cluster)
    config["training"] |= {"batch_size": 12, "micro_batch_size": 2}
    (cluster / "toy.yaml").write_text(yaml.safe_dump(config))
    used = adapted("slurm", cluster)
    run = snakemake(
        cluster, "table1", "--dry-run", "--printshellcmds", "--workflow-profile", str(used), config=cluster / "toy.yaml"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    part = {"processes": "6", "gres": "gpu:a100:6", "cpus_per_task": "48", "mem_mb": "360000"}
    assert resources(run.stdout)["train_stage"].items() >= part.items()
    # what is asked of Slurm in advance is what the jobs will be
    asked = (cluster / "asked").read_text()
    assert "--nodes=1 --gres=gpu:a100:6 --cpus-per-task=48 --mem=360000 --time=1440" in asked


def test_nodes_may_differ_by_run(cluster):
    used = adapted("slurm", cluster, nodes="\"4 if '13b' in wildcards.run else 1\"")
    config = ROOT / "workflow" / "experiments" / "paper.yaml"
    run = snakemake(cluster, "all", "--dry-run", "--printshellcmds", "--workflow-profile", str(used), config=config)
    assert run.returncode == 0, run.stdout + run.stderr
    stages = [job for job in Plan.read(run.stdout).jobs if job.rule == "train_stage"]
    nodes = {re.search(r"run=([^,]+)", job.wildcards)[1]: job.resources["nodes"] for job in stages}
    assert nodes["prosparse-13b"] == "4"
    assert nodes["prosparse-7b"] == nodes["sft-1b"] == "1"


def test_jobs_with_one_gpu_each_get_different_ones(tmp_path):
    """Two jobs hold a GPU each; a third finds none; when one ends, its GPU is the next job's."""
    bash = str(PROFILES / "gpus" / "bash")
    gpus = f"{os.getpid()}a", f"{os.getpid()}b"  # locks that no other process has
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    command = [bash, "-c", "echo $CUDA_VISIBLE_DEVICES; read line"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    jobs = [subprocess.Popen(command, **pipes) for _ in gpus]
    held = [job.stdout.readline().strip() for job in jobs]
    assert sorted(held) == sorted(gpus)
    third = subprocess.run([bash, "-c", "true"], env=environment, capture_output=True, text=True)
    assert third.returncode == 1
    assert "0 are free and 1 are needed" in third.stderr
    jobs[0].communicate("\n")
    again = subprocess.run([bash, "-c", "echo $CUDA_VISIBLE_DEVICES"], env=environment, capture_output=True, text=True)
    assert again.stdout.strip() == held[0]
    # a stage takes as many as it has processes
    stage = [bash, "-c", "echo $CUDA_VISIBLE_DEVICES # launch --nodes 1 --processes 2 -- train-stage"]
    refused = subprocess.run(stage, env=environment, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "1 are free and 2 are needed" in refused.stderr
    jobs[1].communicate("\n")
    assert subprocess.run(stage, env=environment, capture_output=True, text=True).stdout.strip() == ",".join(gpus)
    for gpu in gpus:
        Path(f"/tmp/prosparse-{os.getuid()}-gpu-{gpu}.lock").unlink()


QSUB = """#!/usr/bin/env bash
# starts the job beside this process, as a scheduler would; the last argument is its script
echo "$@" >> asked
id=$(date +%s%N)
(setsid bash -c '/bin/bash "$1" > /dev/null 2>&1; echo $? > "status-$2"' job "${@: -1}" "$id" &) \\
  > /dev/null 2>&1 < /dev/null
echo "$id"
"""
QSTAT = """#!/usr/bin/env bash
if [ -e silent ]; then rm silent; echo "qstat: cannot connect to server" >&2; exit 1; fi
echo "Job Id: $3"
if [ -f "status-$3" ]; then printf '    job_state = F\\n    Exit_status = %s\\n' "$(cat "status-$3")"
else echo "    job_state = R"; fi
"""
STAGES = """
rule all:
    input: "long", "broken"

rule long:  # as a stage that takes three jobs
    output: "long"
    shell: "echo >> times; test $(wc -l < times) = 3 && touch {output} || (echo > $PROSPARSE_OUT_OF_TIME; exit 75)"

rule broken:
    output: "broken"
    shell: "exit 1"
"""


@pytest.fixture
def other_cluster(cluster):
    """The options of a profile whose commands run a job at once, and remember what was asked of them."""
    for name, text in (("qsub", QSUB), ("qstat", QSTAT), ("qdel", '#!/bin/sh\necho "$@" >> deleted\n')):
        (cluster / "commands" / name).write_text(text)
        (cluster / "commands" / name).chmod(0o755)
    used = adapted("cluster", cluster, gpus="2", folder=str(cluster / "cluster"))
    return ["--workflow-profile", str(used), "--seconds-between-status-checks", "1", "--latency-wait", "10"]


def test_another_scheduler_runs_a_job_and_sees_one_fail(cluster, other_cluster):
    (cluster / "toy.yaml").write_text(yaml.safe_dump(toy_experiment(cluster)))
    rows = "results/toy/data/benchmark_rows/rows.json"
    options = [*other_cluster, "--retries", "0"]
    (cluster / "silent").touch()  # a server that is busy once is no failure
    run = snakemake(cluster, rows, *options, config=cluster / "toy.yaml")
    assert run.returncode == 0, run.stdout + run.stderr
    assert not (cluster / "silent").exists()
    assert json.loads((cluster / rows).read_text())["rows"]["piqa"] == 6
    told = run.stdout + run.stderr
    assert re.search(r"^\[1/1\] benchmark_rows: \d+ s$", told, re.M), told
    assert not re.search("^    (input|output|resources): |external jobid", told, re.M)
    submitted = (cluster / "asked").read_text().splitlines()[-1]
    assert "-q batch -l select=1:ncpus=1:ngpus=0:mem=16000mb -l walltime=240:00 " in submitted
    (cluster / rows).unlink()
    (cluster / "rows" / "piqa.jsonl").write_text("no JSON")
    started = time.time()
    run = snakemake(cluster, rows, *options, config=cluster / "toy.yaml")
    assert run.returncode == 1
    assert "Error in rule benchmark_rows" in run.stdout + run.stderr
    assert time.time() - started < 300


def test_another_scheduler_continues_what_is_out_of_time_and_tries_failures_three_times(cluster, other_cluster):
    (cluster / "Snakefile").write_text(STAGES)
    command = [sys.executable, "-m", "snakemake", "--directory", cluster, *other_cluster]
    run = subprocess.run(command, cwd=cluster, capture_output=True, text=True, timeout=600)
    said = run.stdout + run.stderr
    assert run.returncode == 1, said
    assert (cluster / "long").exists()
    asked = (cluster / "asked").read_text()
    for rule in ("long", "broken"):
        assert len(re.findall(rf"snakejob\.{rule}\.", asked)) == 3, rule
    # three jobs of the scheduler, each with the same command, are one of Snakemake's that never failed
    assert len(set(re.findall(r".*snakejob\.long\..*", asked))) == 1
    assert "Error in rule long" not in said
    assert "Error in rule broken" in said
    # the job that was asked for is ended by the id of the one that continued it
    first, last = next(
        (path.stem, path.read_text().strip())
        for path in (cluster / ".snakemake" / "cluster").glob("*.now")
        if path.stem != path.read_text().strip()
    )
    subprocess.run([cluster / "cluster" / "cancel", first, "another"], cwd=cluster, check=True)
    assert (cluster / "deleted").read_text() == f"{last} another\n"
