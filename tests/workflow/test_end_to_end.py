"""A toy experiment through the whole DAG: run, idle, change, interrupt. Its numbers mean nothing."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys

import pytest
import torch
import yaml
from helpers.toy_experiment import dry_run, toy_experiment
from helpers.workflow import snakemake, warm_jobs
from huggingface_hub import ModelCard

from prosparse.experiment.activation import Activation
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.tables.registry import TABLES


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The toy experiment, run once from nothing."""
    root = tmp_path_factory.mktemp("toy")
    config = toy_experiment(root)
    path = root / "toy.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    run = snakemake(root, "--cores", "2", config=path, environment=warm_jobs())
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-6000:]
    told = run.stdout + run.stderr
    assert "Open results/toy/index.html in a browser" in told
    finished = re.findall(r"^\[\d+/(\d+)\] ", told, re.M)
    assert len(finished) == int(finished[0])
    assert len(told.splitlines()) <= len(finished) + 30
    stage = r"^\[\d+/\d+\] train_stage \S+, seed \d+, stage \d+: [\d.]+% sparse, loss [\d.]+, \d+ s"
    assert len(re.findall(stage, told, re.M)) >= 5
    assert not re.search("^    (input|output|resources): ", told, re.M)
    told_verdicts = re.findall(r"^ ?(\d+) .*(holds|does not hold|undecided|not testable)", told, re.M)
    assert [int(number) for number, _ in told_verdicts] == list(range(1, 11))
    return root, config


def test_every_table_and_figure_is_there(toy):
    root, _ = toy
    page = (root / "results" / "toy" / "README.md").read_text()
    for name in re.findall(r"\]\(((?:figures|tables)/[^)]+)\)", page):
        assert (root / "results" / "toy" / name).stat().st_size > 0, name
    for suffix in ("md", "csv", "tex"):
        assert len(list((root / "results" / "toy" / "tables").glob(f"*.{suffix}"))) == len(TABLES.names)
    for suffix in ("png", "svg"):
        assert len(list((root / "results" / "toy" / "figures").glob(f"*.{suffix}"))) == len(FIGURES.names)
    assert "missing" in (root / "results" / "toy" / "tables" / "table9.md").read_text()


def test_a_tables_number_is_the_measured_one(toy):
    root, _ = toy
    measured = json.loads((root / "results/toy/measurements/prosparse/seed0/sparsity.json").read_text())
    by_activation = {m["activation"]: m["sparsity"] for m in measured["measurements"]}
    with open(root / "results/toy/tables/table1.csv", newline="") as file:
        cells = {(row["row"], row["column"]): row["ours"] for row in csv.DictReader(file)}
    assert float(cells["ProSparse-7B*", "average_sparsity"]) == pytest.approx(100 * by_activation["relu"], abs=1e-6)
    assert float(cells["ProSparse-7B", "average_sparsity"]) == pytest.approx(
        100 * by_activation["fatrelu-0.05"], abs=1e-6
    )


def test_jobs_compute_with_their_own_threads_on_two_cores(toy):
    root, _ = toy
    for name in ("checkpoints/prosparse/seed0/stage0/provenance.json", "measurements/overhead.json"):
        assert json.loads((root / "results/toy" / name).read_text())["provenance"]["threads"] == 1, name


def test_a_second_run_does_nothing(toy):
    root, _ = toy
    assert "Nothing to be done" in dry_run(root)


def jobs(output: str) -> dict[str, int]:
    table = output.split("Job stats:", 1)[1].split("total", 1)[0] if "Job stats:" in output else ""
    return {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.M)}


def test_a_changed_stage_reruns_it_and_what_depends_on_it(toy):
    root, config = toy
    changed = json.loads(json.dumps(config))
    changed["runs"]["prosparse"]["stages"][2]["peak"] = 0.8
    planned = jobs(dry_run(root, changed))
    assert planned["train_stage"] == 1
    assert planned["sparsity"] == 1
    assert planned["benchmarks"] == 2  # with and without threshold shifting
    assert not {"documents", "tokens", "tokenizer", "benchmark_rows"} & planned.keys()


def test_a_new_threshold_measures_and_trains_nothing(toy):
    root, config = toy
    changed = json.loads(json.dumps(config))
    changed["rows"]["7B 0.02"] = "prosparse@fatrelu-0.1"
    planned = jobs(dry_run(root, changed))
    assert "train_stage" not in planned
    assert (planned["sparsity"], planned["benchmarks"]) == (1, 1)


def test_a_description_reruns_no_measurement(toy):
    root, config = toy
    planned = jobs(dry_run(root, {**config, "description": "other words"}))
    assert not {"train_stage", "sparsity", "benchmarks", "documents"} & planned.keys()


def test_what_a_profile_asks_for_reruns_nothing(toy):
    root, _ = toy
    assert "Nothing to be done" in dry_run(root, None, "--set-resources", "train_stage:runtime=60")


#: Loads the folders it is told, as another's program would, by the Python of their own READMEs where it is told to.
STRANGER = """
import json, os, re, sys
import torch
from transformers import AutoModelForCausalLM

found = {}
for folder in sys.argv[1:]:
    os.chdir(folder)
    try:
        AutoModelForCausalLM.from_pretrained(".")
        found[folder] = "loads"
    except KeyError as error:
        found[folder] = f"refuses {error}"
    names = {}
    exec(re.search("```python\\n(.*?)```", open("README.md").read(), re.S)[1], names)
    ids = names["tokenizer"]("def load(path):", return_tensors="pt")["input_ids"]
    torch.save((ids, names["model"](ids).logits), sys.argv[0] + "." + os.path.basename(folder))
assert "prosparse" not in sys.modules
print(json.dumps(found))
"""


def test_released_folders_load_elsewhere_or_refuse_to(toy, tmp_path):
    from prosparse.models.load import load

    root, _ = toy
    run = snakemake(root, "release", "--cores", "1", config=root / "toy.yaml", environment=warm_jobs())
    assert run.returncode == 0, run.stdout + run.stderr
    release = root / "results" / "toy" / "release"
    pairs = ["prosparse@relu", "prosparse@fatrelu-0.05", "vanilla@shiftrelu-0.1"]
    assert sorted(path.name for path in release.iterdir()) == sorted(pairs)
    assert not list(release.rglob("*.csv")) + list(release.rglob("*.pt"))

    (tmp_path / "stranger.py").write_text(STRANGER)
    command = [sys.executable, str(tmp_path / "stranger.py"), *(str(release / pair) for pair in pairs)]
    stranger = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert stranger.returncode == 0, stranger.stderr
    outcomes = [json.loads(stranger.stdout.splitlines()[-1])[str(release / pair)] for pair in pairs]
    assert outcomes == ["loads", "refuses 'fatrelu'", "refuses 'shiftrelu'"]
    for pair in pairs:
        name, _, activation = pair.partition("@")
        checkpoint = root / f"results/toy/checkpoints/{name}/seed0/stage{2 if name == 'prosparse' else 1}"
        weights = "model.safetensors"
        assert (release / pair / weights).stat().st_ino == (checkpoint / weights).stat().st_ino  # a link, not a copy
        ids, logits = torch.load(tmp_path / f"stranger.py.{pair}", weights_only=True)
        assert torch.equal(load(checkpoint, Activation.parse(activation))(ids).logits, logits)
        assert torch.equal(load(release / pair)(ids).logits, logits)
        assert ModelCard.load(release / pair / "README.md").data.license == "unknown"
    assert "Nothing to be done" in dry_run(root, None, "release")


def test_publish_copies_results_but_no_weights(toy):
    root, _ = toy
    run = snakemake(root, "publish", "--cores", "1", config=root / "toy.yaml")
    assert run.returncode == 0, run.stdout + run.stderr
    published = root / "results" / "published" / "toy"
    assert (published / "README.md").read_text() == (root / "results" / "toy" / "README.md").read_text()
    assert (published / "measurements/prosparse/seed0/sparsity.json").exists()
    assert not list(published.rglob("*.safetensors"))
    texts = [path.read_text() for path in published.rglob("*") if path.suffix in (".json", ".md", ".csv")]
    assert str(root) not in "".join(texts)  # nothing names a place of this machine
