"""Every table, figure and claim is a module of its own, and registered."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

from prosparse.paper.claims.registry import CLAIMS
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.tables.registry import TABLES
from prosparse.published.claims import published_claims


@pytest.mark.parametrize("registry", [TABLES, FIGURES, CLAIMS], ids=lambda registry: registry.kind)
def test_modules_that_build_something_are_registered(registry):
    folder = Path(import_module(registry.package).__file__).parent
    builders = {
        path.stem
        for path in folder.glob("*.py")
        if {"needs", "build"} <= {getattr(node, "name", "") for node in ast.parse(path.read_text()).body}
    }
    assert builders == set(registry)


def test_every_published_claim_is_judged():
    assert set(CLAIMS) == {f"claim{number}" for number in published_claims()}
