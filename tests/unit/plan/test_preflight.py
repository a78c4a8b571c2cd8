"""What is refused before the first job, and what is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from helpers.paper_scale import A100, finish, paper, paper_config
from helpers.repository import ROOT

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.experiment.loading import load
from prosparse.plan import downloads, preflight, targets


def refusals(experiment: Experiment, directory: Path, local: bool = True, target: str = "all") -> list[str]:
    layout = Layout(experiment, directory)
    listed = targets.jobs_behind(layout, targets.targets(experiment)[target], target == "all")
    return preflight.refusals(layout, listed, downloads.remotes(layout, listed), local)


def test_gated_sources_without_a_token_are_refused_with_where_to_accept(roomy, tmp_path):
    model, corpus = refusals(paper(), tmp_path)
    assert "runs.llama2-7b.init" in model
    assert "https://huggingface.co/meta-llama/Llama-2-7b-hf" in model
    assert "data.corpora.text.source" in corpus
    assert "https://huggingface.co/datasets/some/text" in corpus
    assert "HF_TOKEN" in model


def test_a_token_opens_what_is_gated(roomy, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_something")
    assert refusals(paper(), tmp_path) == []


def test_a_token_file_opens_what_is_gated(roomy, tmp_path):
    (tmp_path / "token").write_text("hf_something")
    assert refusals(paper(), tmp_path) == []


def test_what_is_gated_and_done_needs_no_token(roomy, tmp_path):
    finish(tmp_path, "llama2-7b", 0)
    # but the tokenizer, which lies beside the model
    keys = [reason.split(":")[0] for reason in refusals(paper(), tmp_path)]
    assert keys == ["data.tokenizers.llama", "data.corpora.text.source"]
    manifest = tmp_path / "data/tokens/llama/text/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"tokens": 4096}')
    assert refusals(paper(), tmp_path) == []


def test_a_local_directory_needs_no_token(roomy, tmp_path):
    config = paper_config()
    (tmp_path / "model").mkdir()
    config["runs"]["llama2-7b"]["init"]["pretrained"] = str(tmp_path / "model")
    config["data"]["tokenizers"]["llama"]["pretrained"] = str(tmp_path / "model")
    config["data"]["corpora"]["text"]["source"]["hub"] = str(tmp_path / "model")
    assert refusals(load(config), tmp_path) == []


@pytest.fixture
def open_experiment():
    """Nothing gated."""
    config = paper_config()
    del config["runs"]["llama2-7b"]["init"]["gated"], config["data"]["corpora"]["text"]["source"]["gated"]
    return lambda **over: load({**config, **over})


@pytest.mark.parametrize("made", ["", "results", "results/scale"])
def test_results_that_cannot_be_written_are_refused(open_experiment, roomy, tmp_path, monkeypatch, made):
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    directory = tmp_path / "results" / "scale"
    assert refusals(open_experiment(), directory) == []
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / made)
    (reason,) = refusals(open_experiment(), directory)
    assert reason.startswith(f"disk: {tmp_path / made} is not writable")


def test_a_disk_that_checkpoints_alone_would_fill_is_refused(open_experiment, roomy, tmp_path):
    experiment = open_experiment()
    # six stages and vanilla's second, and one while the next takes its place; the original as it is released
    checkpoints = (7 * 12 + 12 + 2) * 6_738_415_616
    roomy(disk=checkpoints)
    assert refusals(experiment, tmp_path) == []
    roomy(disk=checkpoints - 1)
    (reason,) = refusals(experiment, tmp_path)
    assert reason.startswith("disk: ")
    assert "660 GB" in reason
    assert "AdamW" in reason
    # what is done needs no more room
    finish(tmp_path, "prosparse", 0)
    assert refusals(experiment, tmp_path) == []


def test_optimizer_states_that_go_need_less_disk(open_experiment, roomy, tmp_path):
    """Six stages and vanilla's second; both last ones keep their states, and for a while two states exist."""
    experiment = open_experiment(optimizer_states="last")
    needed = (5 * 4 + 2 * 12 + 2 + 12 + 8) * 6_738_415_616
    roomy(disk=needed)
    assert refusals(experiment, tmp_path) == []
    roomy(disk=needed - 1)
    (reason,) = refusals(experiment, tmp_path)
    assert "445 GB" in reason


def test_a_stage_under_way_needs_only_what_it_has_not_written(open_experiment, roomy, tmp_path):
    experiment = open_experiment()
    roomy(disk=(8 * 12 + 2) * 6_738_415_616 - 1000)
    assert refusals(experiment, tmp_path)
    resume = tmp_path / "checkpoints/prosparse/seed0/stage0/resume/checkpoint-100"
    resume.mkdir(parents=True)
    (resume / "optimizer.pt").write_bytes(bytes(1000))
    assert refusals(experiment, tmp_path) == []


def test_a_target_needs_less_disk_than_the_whole(open_experiment, roomy, tmp_path):
    experiment = open_experiment()
    roomy(disk=6.8e9 * (7 * 12 + 2))
    assert refusals(experiment, tmp_path)
    assert refusals(experiment, tmp_path, target="table6") == []
    assert refusals(experiment, tmp_path, target="figure1") == []


def test_disk_that_only_the_estimate_exceeds_is_a_doubt(open_experiment, roomy, tmp_path):
    experiment = open_experiment()
    roomy(disk=670e9)  # 580 GB of checkpoints, 81 GB for a while; 140 GB of tokens, twice as much of documents
    assert refusals(experiment, tmp_path) == []
    listed = targets.jobs_behind(Layout(experiment, tmp_path), targets.targets(experiment)["all"])
    (doubt,) = preflight.doubts(Layout(experiment, tmp_path), listed)
    assert doubt.startswith("disk: about 1,003 GB")


def test_a_model_that_no_gpu_can_hold_is_refused(open_experiment, roomy, tmp_path):
    config = {**paper_config()["training"], "fsdp": False}
    reasons = [reason for reason in refusals(open_experiment(training=config), tmp_path) if "AdamW" in reason]
    assert [reason.split(":")[0] for reason in reasons] == ["runs.prosparse", "runs.vanilla"]
    assert "108 GB" in reasons[0]  # 16 bytes a parameter
    assert "training.fsdp" in reasons[0]


def test_host_memory_counts_where_jobs_run_here(open_experiment, roomy, tmp_path):
    roomy(memory=16e9)
    experiment = open_experiment()
    (reason,) = refusals(experiment, tmp_path, local=True)
    assert reason.startswith("memory: ")
    assert "27 GB for float32 weights" in reason
    assert refusals(experiment, tmp_path, local=False) == []
    roomy(memory=100e9)
    assert refusals(experiment, tmp_path, local=True) == []
    (without_gpus,) = refusals(open_experiment(hardware=None), tmp_path, local=True)
    assert "108 GB for weights, gradients and AdamW" in without_gpus


def test_a_start_that_is_not_trained_takes_its_released_size(roomy, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_TOKEN", "hf_something")
    experiment = load(yaml.safe_load((ROOT / "workflow/experiments/released.yaml").read_text()))
    largest = 13_015_864_320  # LLaMA2-13B, in float16
    roomy(memory=2 * largest + 4096)
    assert refusals(experiment, tmp_path) == []
    roomy(memory=2 * largest - 4096)
    (reason,) = refusals(experiment, tmp_path)
    assert reason.startswith("memory: runs.")
    assert "needs 26 GB for weights as released" in reason


def test_a_batch_that_the_gpus_cannot_share_is_refused(open_experiment, roomy, tmp_path):
    reasons = refusals(open_experiment(hardware={**A100, "gpus": 6}), tmp_path)
    assert len(reasons) == 2
    assert "runs.prosparse.training.batch_size 512 is not a multiple of micro_batch_size 2 x 6 processes" in reasons[0]


@pytest.mark.parametrize(
    ("memory", "refused", "doubted"), [(80, False, False), (28, False, False), (14, False, True), (12, True, False)]
)
def test_a_gpu_that_cannot_answer_benchmarks_is_known_before(tmp_path, roomy, memory, refused, doubted):
    """LLaMA2-7B in bfloat16: 13.5 GB of weights, and 3 GB for a prompt of 4,096 tokens."""
    over = {"precision": "bfloat16", "hardware": A100 | {"memory_gigabytes": memory}}
    experiment = paper(**over)
    listed = targets.jobs_behind(Layout(experiment, tmp_path), targets.targets(experiment)["all"])
    said = [line for line in refusals(experiment, tmp_path, local=False) if "benchmarks cannot be answered" in line]
    assert bool(said) == refused
    doubts = [line for line in preflight.doubts(Layout(experiment, tmp_path), listed) if "may not be answered" in line]
    assert bool(doubts) == doubted


@pytest.mark.parametrize("file", ["config.yaml", "workflow/experiments/smollm2.yaml"])
def test_small_experiments_are_not_refused_on_a_small_machine(file, roomy, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    experiment = load(yaml.safe_load((ROOT / file).read_text()))
    roomy(disk=1.5e9, memory=4e9)
    assert refusals(experiment, tmp_path) == []


def test_stages_with_a_peak_wait_for_a_calibration(open_experiment, roomy, tmp_path):
    """What trains without λ does not, nor do the probes themselves."""
    section = {"run": "prosparse", "probes": [0.5, 2], "steps": 800}
    experiment = open_experiment(calibration={"7B": section})
    (reason,) = refusals(experiment, tmp_path)
    assert reason.startswith("runs.prosparse: its λ are the paper's")
    assert "snakemake calibrate" in reason
    assert "results/scale/calibration/7B.md" in reason
    assert refusals(experiment, tmp_path, target="calibrate") == []
    for stage in range(6):
        finish(tmp_path, "prosparse", stage)
    assert refusals(experiment, tmp_path) == []
    assert refusals(open_experiment(calibration={"7B": {**section, "multiplier": 20}}), tmp_path / "new") == []
