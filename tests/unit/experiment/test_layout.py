"""Where results lie, beyond what the workflow's DAG shows."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from helpers.repository import ROOT

from prosparse.experiment.layout import Layout
from prosparse.experiment.loading import load
from prosparse.system.errors import ConfigError


def config() -> dict:
    return yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


def test_a_shared_stage_lies_with_its_owner():
    layout = Layout.of(load(config()))
    owned = Path("results/laptop/checkpoints/small-prosparse/seed3/stage0")
    assert layout.checkpoint("small-prosparse", 0, 3) == layout.checkpoint("small-vanilla", 0, 3) == owned
    assert layout.provenance("small-vanilla", None, 3).parts[3:] == (
        "small-vanilla",
        "seed3",
        "stage1",
        "provenance.json",
    )


def test_the_committed_copy_lies_beside_the_results(tmp_path):
    layout = Layout(load(config()), tmp_path / "laptop")
    assert layout.published() == tmp_path / "published" / "laptop"
    assert layout.relative(layout.decoding("llama-7b")) == "measurements/decoding/llama-7b.json"


def from_gguf(folder: str) -> Layout:
    raw = config()
    raw["data"]["packages"] = {"some-model": {"version": "1.0", "sha256": "0" * 64}}
    raw["runs"]["small-base"]["init"] = {"pretrained": folder, "gguf_file": "m.gguf"}
    return Layout.of(load(raw))


def test_a_gguf_file_in_a_packages_directory_is_unpacked_there():
    layout = from_gguf("results/packages/some-model-1.0")
    layout.check_packages()
    assert layout.start_gguf("small-base") == Path("results/packages/some-model-1.0/m.gguf")
    assert layout.archive("some-model") == Path("results/packages/some-model-1.0.whl")
    assert layout.start_gguf("small-vanilla") is None
    assert from_gguf("my/models").start_gguf("small-base") is None


@pytest.mark.parametrize("folder", ["results/packages/some-model-2.0", "results/packages/some-model-1.0/x"])
def test_a_gguf_file_of_no_package_names_the_key_and_the_packages(folder):
    with pytest.raises(ConfigError, match=rf"runs.small-base.init.pretrained: {folder} .*packages/some-model-1.0"):
        from_gguf(folder).check_packages()
