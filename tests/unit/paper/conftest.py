"""Fixtures of made-up results."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.synthetic_results import CONFIG, Synthetic


@pytest.fixture
def synthetic(tmp_path: Path) -> Synthetic:
    return Synthetic(tmp_path / "synthetic").write()


@pytest.fixture
def several_seeds(tmp_path: Path) -> Synthetic:
    return Synthetic(tmp_path / "seeds", {**CONFIG, "seeds": [1, 2, 3]}).write()


@pytest.fixture
def nothing(tmp_path: Path) -> Synthetic:
    """An experiment that stands for nothing and has measured nothing."""
    sections = ("ours", "search", "stages", "figures", "supervised_finetuning", "operators", "predictors", "decoding")
    raw = {key: value for key, value in CONFIG.items() if key not in sections}
    return Synthetic(tmp_path / "nothing", {**raw, "rows": {}})
