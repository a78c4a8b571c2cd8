"""Snakemake's report, and results that were copied from elsewhere."""

from __future__ import annotations

import os
import shutil

import pytest
import yaml
from helpers.toy_experiment import toy_experiment
from helpers.workflow import snakemake


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A figure that needs no measurement."""
    root = tmp_path_factory.mktemp("drawn")
    (root / "toy.yaml").write_text(yaml.safe_dump(toy_experiment(root)), encoding="utf-8")
    run = snakemake(root, "figure1", "--cores", "1", config=root / "toy.yaml")
    assert run.returncode == 0, run.stdout + run.stderr
    return root


def test_a_report_is_made_of_what_is_finished(drawn):
    run = snakemake(drawn, "figure1", "--report", "report.html", config=drawn / "toy.yaml")
    assert run.returncode == 0, run.stdout + run.stderr
    report = (drawn / "report.html").read_text(encoding="utf-8")
    assert "the regularization factor" in report
    assert "figure1.svg" in report
    assert "a verdict on ten claims of the paper" in report  # what it opens on


def test_results_copied_without_their_times_are_not_made_again(drawn, tmp_path):
    """As `cp -r` leaves them: every file as old as its copying, inputs possibly after what is made from them."""
    for name in ("results", "toy.yaml", "rows", "text", "code"):
        copy = shutil.copytree if (drawn / name).is_dir() else shutil.copy
        copy(drawn / name, tmp_path / name)
    figure = tmp_path / "results/toy/figures/figure1.svg"
    for path in figure.parent.iterdir():
        os.utime(path, (1e9, 1e9))
    refused = snakemake(tmp_path, "figure1", "--cores", "1", config=tmp_path / "toy.yaml")
    said = refused.stdout + refused.stderr
    assert refused.returncode == 1
    assert "`cp -r` does not keep modification times" in said
    assert figure.stat().st_mtime == 1e9
    touched = snakemake(tmp_path, "figure1", "--cores", "1", "--touch", config=tmp_path / "toy.yaml")
    assert touched.returncode == 0, touched.stdout + touched.stderr
    again = snakemake(tmp_path, "figure1", "--dry-run", config=tmp_path / "toy.yaml")
    assert "Nothing to be done" in again.stdout + again.stderr
    assert figure.read_bytes() == (drawn / "results/toy/figures/figure1.svg").read_bytes()
