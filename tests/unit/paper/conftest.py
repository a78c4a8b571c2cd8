"""Fixtures of made-up results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.synthetic_results import CONFIG, Synthetic

GGUF = {"pretrained": "results/packages/some-model-1.0", "gguf_file": "Some-135M.Q4_1.gguf"}


@pytest.fixture
def synthetic(tmp_path: Path) -> Synthetic:
    return Synthetic(tmp_path / "synthetic").write()


@pytest.fixture
def several_seeds(tmp_path: Path) -> Synthetic:
    return Synthetic(tmp_path / "seeds", {**CONFIG, "seeds": [1, 2, 3], "seed_deviation": None}).write()


@pytest.fixture
def nothing(tmp_path: Path) -> Synthetic:
    """An experiment that stands for nothing and has measured nothing."""
    sections = ("ours", "search", "stages", "figures", "schedules", "supervised_finetuning")
    timed = ("operators", "predictors", "decoding")
    raw = {key: value for key, value in CONFIG.items() if key not in (*sections, *timed)}
    runs = {name: run for name, run in CONFIG["runs"].items() if name != "steered"}
    return Synthetic(tmp_path / "nothing", {**raw, "rows": {}, "runs": runs})


@pytest.fixture
def untrained(tmp_path: Path) -> Synthetic:
    """The original is a GGUF file used as it is; it is also the first of the 7B model's stages."""
    base = {**CONFIG["runs"]["base"], "init": GGUF, "stages": [{"until": 0}]}
    raw = {**CONFIG, "runs": {**CONFIG["runs"], "base": base}, "stages": {"7B": ["base", "progressive"]}}
    return Synthetic(tmp_path / "untrained", raw).write()


@pytest.fixture
def decoding(synthetic: Synthetic) -> dict[str, Any]:
    """The decoding times of the trained models, as measured."""
    return json.loads(synthetic.layout.decoding().read_text())


@pytest.fixture
def powerinfer_wanted(tmp_path: Path) -> Synthetic:
    """PowerInfer is asked for, and was not built."""
    engines = {"llama_cpp": True, "powerinfer": {"source": "/powerinfer"}}
    raw = {**CONFIG, "decoding": {**CONFIG["decoding"], "engines": engines}}
    return Synthetic(tmp_path / "powerinfer", raw).write()


@pytest.fixture
def on_gpu(synthetic: Synthetic) -> Synthetic:
    """The operators were timed on a GPU."""

    def edit(value: dict[str, Any]) -> None:
        value["device"] = "Imaginary GPU"
        for case in value["cases"]:
            del case["cold"]["rows"]
            for arm in case["cold"].values():
                del arm["share_of_rows"]

    synthetic.edit(synthetic.layout.operators(), edit)
    return synthetic
