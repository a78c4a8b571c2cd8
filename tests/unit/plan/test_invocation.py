"""Mistakes on Snakemake's command line: one line says what is meant, before any work."""

from __future__ import annotations

import sys

import pytest
import yaml
from helpers.repository import ROOT
from helpers.workflow import run_in

from prosparse.experiment.loading import load
from prosparse.experiment.problems import did_you_mean
from prosparse.plan import invocation
from prosparse.system.errors import ConfigError

NAMES = ["all", "tables", "figures", "claims", "release", "publish", "plan", "table1", "table9", "figure_decoding"]
FILES = ["results/laptop/tables/table1.md", "results/laptop/measurements/small-base/seed0/sparsity.json"]


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("tabel1", "table1"), ("Table9", "table9"), ("figure-decoding", "figure_decoding"), ("relase", "release"),
        ("plans", "plan"), ("results/laptop/tables/tabel1.md", FILES[0]),
        ("results/laptop/measurements/smal-base/seed0/sparsity.json", FILES[1]),
    ],
)  # fmt: skip
def test_a_mistyped_target_is_said_with_what_is_meant(target, meant):
    with pytest.raises(ConfigError) as caught:
        invocation.check_targets([target], NAMES, FILES, [])
    assert str(caught.value) == f"no target or file is called {target} (did you mean {meant}?)"


def test_a_target_like_no_other_gets_the_list():
    with pytest.raises(ConfigError, match="targets: all, tables"):
        invocation.check_targets(["qqq"], NAMES, FILES, [])
    invocation.check_targets(["table1", "some/file"], NAMES, FILES, ["some/file"])


@pytest.mark.parametrize(
    ("profile", "meant"),
    [("profiles/slrum", "slurm"), ("slurm2", "slurm"), ("profile/gpu", "gpus"), ("clutser", "cluster")],
)
def test_a_mistyped_profile_is_no_run_on_this_machine(tmp_path, monkeypatch, profile, meant):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"no such profile \(did you mean {meant}\?\)"):
        invocation.check_profile(profile, ROOT)


@pytest.mark.parametrize("profile", [None, "none", "slurm", "profiles/slurm", str(ROOT / "profiles" / "gpus")])
def test_a_profile_that_is_there_is_taken(monkeypatch, profile):
    monkeypatch.chdir(ROOT)
    invocation.check_profile(profile, ROOT)


def test_a_call_is_read_as_snakemake_reads_it(monkeypatch):
    call = invocation.parsed(["-n", "--config", "experiment=x", "seeds=[1]", "--workflow-profile", "p", "--", "table1"])
    assert (call.targets, call.workflow_profile) == (["table1"], "p")
    assert invocation.parsed(["--no-such-option"]) is None
    monkeypatch.setattr(sys, "argv", ["/bin/pytest", "table1"])
    assert invocation.called() is None


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
    run = run_in(tmp_path, "table6", "--dry-run", "--config", "experiment=mine", "seeds=[3]")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "results/mine/checkpoints/small-base/seed3/stage0/provenance.json" in run.stdout
    assert "results/laptop" not in run.stdout


# ----------------------------------------------------------------------------------- in the config


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        (("runs", "small-vanilla", "init"), {"run": "smal-base"}, "small-base"),
        (("runs", "small-vanilla", "mixture"), "mixd", "mixed"),
        (("rows", "LLaMA2-7B"), "medium-prosprase", "medium-prosparse"),
        (("rows", "ProSparse-7B"), "small-prosparse@fatrleu-0.05", "fatrelu-0.05"),
        (("stages", "7B"), ["small_prosparse"], "small-prosparse"),
        (("supervised_finetuning", "same"), "minicpm-sft-sam", "minicpm-sft-same"),
        (("runs", "small-base", "activation"), "sillu", "silu"),
        (("runs", "small-base", "trainig"), {}, "training"),
        (("benchmraks",), {}, "benchmarks"),
    ],
    ids=lambda value: str(value),
)
def test_a_mistyped_name_is_said_with_what_is_meant(key, value, meant):
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    section = config
    for part in key[:-1]:
        section = section[part]
    section[key[-1]] = value
    with pytest.raises(ConfigError, match=rf"did you mean {meant}\?"):
        load(config)


def test_nothing_is_suggested_that_is_far_from_it():
    assert did_you_mean("zebra", ["relu", "silu"]) == ""
