"""Every table, figure and claim is a module of its own, and registered."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from prosparse.paper.claims import registry as claims
from prosparse.paper.figures import registry as figures
from prosparse.paper.tables import registry as tables
from prosparse.published.claims import published_claims

REGISTERED = {tables: tables.TABLES, figures: figures.FIGURES, claims: claims.CLAIMS.values()}


@pytest.mark.parametrize("registry", REGISTERED, ids=lambda registry: registry.__name__.split(".")[-2])
def test_modules_that_build_something_are_registered(registry):
    folder = Path(registry.__file__).parent
    builders = {
        path.stem
        for path in folder.glob("*.py")
        if path.stem != "registry"
        and {"needs", "build"} <= {getattr(node, "name", "") for node in ast.parse(path.read_text()).body}
    }
    assert builders == set(REGISTERED[registry])


def test_every_published_claim_is_judged():
    assert claims.CLAIMS.keys() == published_claims().keys()
