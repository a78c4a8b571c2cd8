"""A message about a mistyped name suggests the one that was meant."""

from __future__ import annotations

import pytest
import yaml
from helpers.repository import ROOT

from prosparse.experiment.loading import load
from prosparse.system.errors import ConfigError
from prosparse.system.problems import did_you_mean


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
