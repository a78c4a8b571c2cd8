"""Mutated experiments: an error of the config that names the key or the file, or an experiment; never a stack."""

from __future__ import annotations

import copy
import random

import pytest
import yaml
from helpers.mutations import cases, mutated_bytes, mutated_tree
from helpers.repository import EXPERIMENTS, ROOT

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.loading import load
from prosparse.system.errors import ConfigError


@pytest.fixture(scope="module")
def experiments():
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in EXPERIMENTS]


@cases(120)
def test_experiments(seed, experiments):
    """As Snakemake reads them."""
    chance = random.Random(seed)
    raw = mutated_tree(chance.choice(experiments), chance)
    try:
        read: Experiment | str = load(raw)
    except ConfigError as error:
        read = str(error)
    assert isinstance(read, Experiment) or len(read) > 20


@cases(20)
def test_files_of_corpora(seed, tmp_path, experiments):
    """The file that an experiment's ``data.corpora`` names, which is ours to read."""
    chance = random.Random(seed)
    raw = copy.deepcopy(next(each for each in experiments if isinstance(each["data"]["corpora"], str)))
    path = tmp_path / "corpora.yaml"
    path.write_bytes(mutated_bytes((ROOT / raw["data"]["corpora"]).read_bytes(), chance))
    raw["data"]["corpora"] = str(path)
    try:
        read: Experiment | str = load(raw)
    except ConfigError as error:
        read = str(error)
    assert isinstance(read, Experiment) or str(path) in read
