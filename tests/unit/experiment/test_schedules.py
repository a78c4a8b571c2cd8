"""Section ``schedules`` refuses what cannot be compared, and names the key."""

from __future__ import annotations

import copy

import pytest
from helpers.synthetic_results import CONFIG

from prosparse.experiment.lineage import measured_activations
from prosparse.experiment.loading import load
from prosparse.system.errors import ConfigError


def config():
    return copy.deepcopy(CONFIG)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("reference", "Progresive", r"reference: unknown name 'Progresive' \(did you mean Progressive\?\)"),
        ("methods", {"Progressive": ["progressive"]}, r"shapes\.methods: .*at least 2 items"),
        ("methods", {"Progressive": ["progressive"], "None": []}, r"methods\.None: .*at least 1 item"),
        (
            "methods",
            {"Progressive": ["progressive"], "Other": ["vanila"]},
            r"schedules\.comparisons\.shapes\.methods\.Other: unknown name 'vanila' \(did you mean vanilla\?\)",
        ),
        (
            "methods",
            {"Progressive": ["progressive"], "Other": ["constant-0.3"]},
            r"schedules: constant-0\.3 is in search, whose runs are measured on tuning rows only",
        ),
    ],
)
def test_bad_comparisons(key, value, message):
    raw = config()
    raw["schedules"]["comparisons"]["shapes"][key] = value
    with pytest.raises(ConfigError, match=message):
        load(raw)


@pytest.mark.parametrize(
    ("sparsities", "message"),
    [([90, 80], "sparsities must rise"), ([90, 90], "sparsities must rise"), ([0], "greater than 0"),
     ([100], "less than 100"), ([], "at least 1 item")],
)  # fmt: skip
def test_bad_sparsities(sparsities, message):
    raw = config()
    raw["schedules"]["sparsities"] = sparsities
    with pytest.raises(ConfigError, match=message):
        load(raw)


def test_a_comparisons_name_becomes_a_target():
    raw = config()
    raw["schedules"]["comparisons"]["λ shapes"] = raw["schedules"]["comparisons"].pop("shapes")
    with pytest.raises(ConfigError, match=r"schedules\.comparisons\.λ shapes"):
        load(raw)


def test_every_pair_is_measured():
    raw = config()
    raw["schedules"]["comparisons"]["shapes"]["methods"]["Constant"].append("constant-0.05@fatrelu-0.2")
    assert "fatrelu-0.2" in map(str, measured_activations(load(raw), "constant-0.05"))
