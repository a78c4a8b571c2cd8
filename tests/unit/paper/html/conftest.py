"""A page of made-up results of three seeds, made once for all tests here."""

from __future__ import annotations

import pytest
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.acceleration import page as acceleration
from prosparse.paper.claims import registry as claims
from prosparse.paper.html import document


@pytest.fixture(scope="session")
def seeds_results(tmp_path_factory):
    raw = {**CONFIG, "seeds": [1, 2, 3], "seed_deviation": None}
    return Synthetic(tmp_path_factory.mktemp("results") / "seeds", raw).write()


@pytest.fixture(scope="session")
def written(seeds_results):
    """The page's file."""
    layout = seeds_results.layout
    claims.write(layout)
    acceleration.write(layout)
    seeds_results.json(layout.config(), layout.experiment.model_dump(mode="json"))
    return document.write(layout)
