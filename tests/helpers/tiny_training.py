"""Stages of a tiny model: what they are trained on, their specifications, their ledgers and weights."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import datasets
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from prosparse.experiment.activation import Activation
from prosparse.experiment.model import Architecture
from prosparse.experiment.specifications import StageSpecification
from prosparse.experiment.training import Stage, Training

CONTEXT = 32
ARCHITECTURE = Architecture(hidden_size=32, intermediate_size=64, layers=2, heads=2, kv_heads=2)
STAGES = [Stage(until=6), Stage(until=10, peak=0.5), Stage(until=20, shape="sine", peak=2.0)]


def write_data(root: Path) -> Path:
    """Two corpora of repetitive text under ``root/tokens``, a tokenizer under ``root/tokenizer``."""
    generator = torch.Generator().manual_seed(0)
    for corpus, period in (("a", 5), ("b", 7)):
        rows = [
            ((torch.arange(CONTEXT) + int(torch.randint(period, (), generator=generator))) % period + 2).tolist()
            for _ in range(64)
        ]
        datasets.Dataset.from_dict({"input_ids": rows}).save_to_disk(root / "tokens" / corpus / "train")
    vocabulary = {f"t{i}": i for i in range(16)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")), bos_token="t0", eos_token="t1"
    ).save_pretrained(root / "tokenizer")
    return root


def ledger(directory: str | Path) -> list[dict[str, float]]:
    with open(Path(directory) / "ledger.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def specification(stages, total=20, **training):
    settings = {
        "learning_rate": 1e-2, "batch_size": 4, "micro_batch_size": 2, "log_every": 2, "checkpoint_every": 3,
        "warmup_steps": 2, **training,
    }  # fmt: skip
    return StageSpecification(
        seed=0, start=ARCHITECTURE, activation=Activation(name="relu"), mixture={"a": 2.0, "b": 1.0},
        context_length=CONTEXT, stages=stages, total_steps=total, training=Training(**settings),
    )  # fmt: skip


def weights(directory):
    return load_file(Path(directory) / "model.safetensors")


def smallest_stage(steps=2, total=3, **changed):
    """One layer, one sequence per step. It ends before its run does: one step too many would be another model."""
    return StageSpecification(
        seed=0, start=Architecture(hidden_size=8, intermediate_size=16, layers=1, heads=1, kv_heads=1),
        activation=Activation(name="relu"), mixture={"a": 1.0}, context_length=CONTEXT, stages=[Stage(until=steps)],
        total_steps=total,
        training=Training(learning_rate=1e-2, batch_size=1, micro_batch_size=1, log_every=1, checkpoint_every=1),
    ).model_copy(update=changed)  # fmt: skip


def shifted(checkpoint, output):
    """A copy whose weights differ in one number."""
    shutil.copytree(checkpoint, output)
    weights = load_file(output / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, output / "model.safetensors", {"format": "pt"})
    return output
