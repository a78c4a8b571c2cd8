"""Mistakes on Snakemake's command line: one line says what is meant, before any work."""

from __future__ import annotations

import sys

import pytest
import yaml
from helpers.repository import ROOT

from prosparse.experiment.loading import load
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
    ("changed", "told"),
    [
        ({"seeds": [0]}, True), ({"seeds": [0, 1]}, False),
        ({"seeds": [0], "seed_deviation": {"loss": 0.01, "sparsity": 0.2}}, False),
    ],
)  # fmt: skip
def test_one_seed_is_told_what_it_cannot_decide(changed, told):
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")) | {"seed_deviation": None} | changed
    notice = invocation.notice_of_seeds(load(config))
    assert (notice is not None) == told
    assert notice is None or "undecided" in notice
