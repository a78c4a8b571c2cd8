"""Estimates of a job's memory against what torch keeps and what the published runs took; what a machine has."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
import yaml
from helpers.repository import ROOT
from transformers import LlamaConfig, LlamaForCausalLM

from prosparse.experiment.layout import Layout
from prosparse.experiment.loading import load
from prosparse.experiment.training import Training
from prosparse.plan import costs, memory
from prosparse.plan.costs import activation_bytes
from prosparse.published.shapes import DecoderShape

PUBLISHED = ROOT / "results" / "published"
#: SmolLM2-135M: its GGUF file, unlike a config.json, is not read for an estimate.
SMOLLM2 = DecoderShape(576, 1536, 30, 9, 3, 64, 49152, True)

PROMPTS = 32  # that the published evaluations answered at once


def measured(folder: Path, kind: str, run: str) -> float:
    """The largest resident set of the run's jobs in megabytes; 0 where there was none."""
    sizes = [0.0]
    for file in (folder / "timings" / kind).glob(f"{run}.seed*.tsv"):
        with open(file, newline="", encoding="utf-8") as rows:
            sizes += [float(row["max_rss"]) for row in csv.DictReader(rows, delimiter="\t")]
    return max(sizes)


@pytest.mark.parametrize(
    ("name", "config"), [("laptop", "config.yaml"), ("smollm2", "workflow/experiments/smollm2.yaml")]
)
def test_an_estimate_is_no_less_than_was_taken_and_no_more_than_twice_that(name, config, monkeypatch):
    folder = PUBLISHED / name
    experiment = load(yaml.safe_load((ROOT / config).read_text(encoding="utf-8")))
    layout = Layout(experiment, folder)
    prompts = PROMPTS * experiment.data.context_length
    if name == "smollm2":
        monkeypatch.setattr(costs, "decoder", lambda *_: SMOLLM2)
    compared = 0
    for run in experiment.runs:
        measuring = memory.measuring_megabytes(layout, run)
        for kind, estimate in (
            ("train", memory.training_megabytes(layout, run)),
            ("sparsity", measuring),
            ("prediction", measuring),
            ("predictors", measuring),
            ("benchmarks", memory.measuring_megabytes(layout, run, prompts, logits=2)),
        ):
            if taken := measured(folder, kind, run):
                assert 0.95 * taken <= estimate <= 2 * taken, (run, kind, taken, estimate)
                compared += 1
    assert compared > 20


def test_a_container_has_no_more_than_its_limit(tmp_path, monkeypatch):
    limits = tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"
    monkeypatch.setattr(memory, "LIMITS", limits)
    whole = memory.machine_bytes()
    limits[0].write_text("max\n")
    assert memory.machine_bytes() == whole
    limits[1].write_text("2000000000\n")
    assert memory.machine_bytes() == 2_000_000_000
    limits[0].write_text(f"{2**62}\n")
    assert memory.machine_bytes() == 2_000_000_000


def test_a_larger_model_needs_more():
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    config["training"] |= {"batch_size": 64, "micro_batch_size": 64}
    layout = Layout(load(config), Path("none"))
    needs = {run: memory.training_megabytes(layout, run) for run in ("small-vanilla", "medium-vanilla")}
    wide = {
        "hidden_size": 2048,
        "intermediate_size": 344,
        "layers": 4,
        "heads": 2,
        "kv_heads": 2,
        "vocabulary_size": 2048,
    }
    config["architectures"] = {"wide": wide}
    config["runs"]["small-base"]["init"] = {"architecture": "wide"}
    widest = memory.training_megabytes(Layout(load(config), Path("none")), "small-vanilla")
    assert needs["small-vanilla"] < needs["medium-vanilla"] < widest


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_activations_are_about_what_torch_keeps(precision, attention):
    config = LlamaConfig(
        vocab_size=160, hidden_size=64, intermediate_size=176, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False, use_cache=False, attn_implementation=attention,
    )  # fmt: skip
    model, shape = LlamaForCausalLM(config), DecoderShape(64, 176, 3, 4, 2, 16, 160, False)
    length = 64
    rows = torch.randint(0, 160, (2, length))
    kept: dict[int, int] = {}
    weights = {parameter.shape for parameter in model.parameters()}
    weights |= {shape[::-1] for shape in weights}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape not in weights:  # nor their copies in bfloat16
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    alive = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: alive.append(t) or note(t), lambda t: t),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        hidden = model.model(input_ids=rows).last_hidden_state
    training = Training(
        learning_rate=1, batch_size=2, micro_batch_size=2, precision=precision, attention=attention
    )  # fmt: skip
    estimate = activation_bytes(shape, training, length) * shape.layers * rows.numel()
    assert hidden.requires_grad
    assert estimate == pytest.approx(sum(kept.values()), rel=0.2)
