"""Jobs run whatever the folder is called and whatever is in the environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet
import pytest
import yaml
from helpers.repository import ROOT
from helpers.toy_experiment import toy_experiment

#: What a user's shell may hold; no job may fail of it.
ODD = {
    "RANK": "1", "WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "many", "TMPDIR": "/no/such/folder",
    "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "1", "PYTHONIOENCODING": "latin-1",
}  # fmt: skip


@pytest.fixture(scope="module")
def odd_place(tmp_path_factory):
    """A copy of the repository in a folder whose name needs quotes, and a toy experiment with more than ASCII in it."""
    root = tmp_path_factory.mktemp("odd") / "my $repository's (copy)"
    root.mkdir()
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(ROOT / name, root / name)
    for name in ("workflow", "profiles", "envs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    config = toy_experiment(root)
    config["description"] = "Größe λ – 稀疏"
    for path in (root / "text").glob("*.txt"):
        path.write_text(f"Größe λ – 稀疏. {path.read_text(encoding='utf-8')}", encoding="utf-8")
    (root / "toy.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    return root


def test_jobs_run_whatever_the_path_and_the_environment(odd_place):
    """By the snakemake that lies beside Python, its environment not activated."""
    scripts = os.path.dirname(sys.executable)
    path = os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if folder != scripts)
    assert shutil.which("prosparse", path=path) is None
    odd = {**os.environ, **ODD, "PATH": path, "PYTHONPATH": str(odd_place / "workflow")}
    made = "results/toy/data/documents/prose/0.parquet"
    command = [f"{scripts}/snakemake", made, "plan", "--cores", "1", "--configfile", "toy.yaml"]
    run = subprocess.run(command, cwd=odd_place, env=odd, capture_output=True, encoding="utf-8", errors="replace")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-6000:]
    texts = pyarrow.parquet.read_table(odd_place / made)["text"].to_pylist()
    assert any("Größe λ – 稀疏" in text for text in texts)
    written = json.loads((odd_place / "results/toy/config.json").read_text(encoding="utf-8"))
    assert written["description"] == "Größe λ – 稀疏"
    assert "ignored: RANK=1, WORLD_SIZE=2" in (odd_place / "results/toy/logs/plan.log").read_text(encoding="utf-8")


@pytest.mark.commands("make")
def test_make_installs_whatever_the_path(odd_place):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, odd_place / name)
    run = subprocess.run(["make", "--dry-run", "install"], cwd=odd_place, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "-m venv .venv\n" in run.stdout
    assert "touch .venv/.installed\n" in run.stdout
