"""The default experiment's deviation over seeds is the one in the published runs of three seeds."""

from __future__ import annotations

import json
from statistics import stdev

import pytest
import yaml
from helpers.repository import ROOT

PAIRS = [
    ("small-prosparse@relu", "small-vanilla@relu"),
    ("small-prosparse@fatrelu-0.05", "small-constant-middle@fatrelu-0.05"),
    ("minicpm-sft@relu", "minicpm-sft-without@relu"),
]


def by_seed(pair: str, quantity: str) -> list[float]:
    run, activation = pair.split("@")
    folder = ROOT / "results/published/seeds/measurements" / run
    files = [json.loads((folder / f"seed{seed}/sparsity.json").read_text(encoding="utf-8")) for seed in range(3)]
    found = [{each["activation"]: each for each in file["measurements"]} for file in files]
    return [measured[activation][quantity] for measured in found]


@pytest.mark.parametrize(("quantity", "scale", "digits"), [("loss", 1, 4), ("sparsity", 100, 2)])
def test_deviation(quantity, scale, digits):
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    largest = max(
        stdev(scale * (a - b) for a, b in zip(by_seed(one, quantity), by_seed(other, quantity), strict=True))
        for one, other in PAIRS
    )
    assert config["seed_deviation"][quantity] == pytest.approx(largest, abs=10**-digits)
