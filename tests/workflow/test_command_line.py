"""Snakemake's command line: mistakes are one line before any work, and what it leaves out is not counted."""

from __future__ import annotations

import re

import pytest
import yaml
from helpers.toy_experiment import toy_experiment
from helpers.workflow import run_in, snakemake, warm_jobs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tabel6"], "no target or file is called tabel6 (did you mean table6?)"),
        (["table6", "--workflow-profile", "profiles/slrum"], "no such profile (did you mean slurm?)"),
        (["table6", "--config", "experiment=paper"], "--configfile workflow/experiments/paper.yaml"),
        (["table1", "--config", "rows={LLaMA2-7B: smal-base}"], "'smal-base' (did you mean small-base?)"),
        (["table1", "--config", "sedes=[1]"], "sedes: unknown key (did you mean seeds?)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_snakemake_says_what_is_meant(tmp_path, arguments, said):
    run = run_in(tmp_path, *arguments, "--dry-run")
    output = run.stdout + run.stderr
    assert run.returncode == 1
    assert said in output
    assert "Traceback" not in output


def test_values_are_laid_over_the_default_experiment(tmp_path):
    run = run_in(tmp_path, "table6", "--dry-run", "--printshellcmds", "--config", "experiment=mine", "seeds=[3]")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "results/mine/checkpoints/small-base/seed3/stage0/provenance.json" in run.stdout
    assert "results/laptop" not in run.stdout


CHAIN = """
rule all:
    input: "1.last", "2.last"

rule last:
    input: "{number}.first"
    output: "{number}.last"
    shell: "touch {output}"

rule first:
    output: "{number}.first"
    shell: "touch {output}"
"""


def test_jobs_that_until_leaves_out_are_not_counted(tmp_path):
    (tmp_path / "Snakefile").write_text(CHAIN)
    options = ["--snakefile", str(tmp_path / "Snakefile"), "--workflow-profile", "none", "--logger", "prosparse"]
    run = run_in(tmp_path, *options, "--cores", "1", "--until", "first")
    told = run.stdout + run.stderr
    assert run.returncode == 0, told
    assert re.findall(r"^\[(\d/\d)\] first", told, re.M) == ["1/2", "2/2"], told


def test_ready_jobs_are_only_evaluated_when_a_job_starts_or_finishes(tmp_path):
    """By Snakemake's default, each finished job adds an evaluation per second."""
    config = toy_experiment(tmp_path)
    config["data"]["corpora"]["prose"]["shards"] = 12
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    target = ["results/toy/data/tokens/bpe/prose/manifest.json", "--until", "documents"]
    run = snakemake(
        tmp_path, *target, "--cores", "1", "--verbose", config=tmp_path / "toy.yaml", environment=warm_jobs()
    )
    told = run.stdout + run.stderr
    assert run.returncode == 0, told
    jobs = told.count("Finished jobid")
    assert jobs > 12
    assert jobs <= told.count("Ready jobs:") <= 2 * jobs
