"""An experiment at the paper's scale, to be planned and never run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.loading import load
from prosparse.published.tables import DATA

LLAMA2_7B = {
    "hidden_size": 4096, "intermediate_size": 11008, "layers": 32, "heads": 32, "kv_heads": 32,
    "vocabulary_size": 32000, "tied_embeddings": False,
}  # fmt: skip
MINICPM_1B = {
    "type": "minicpm", "hidden_size": 1536, "intermediate_size": 3840, "layers": 52, "heads": 24, "kv_heads": 8,
    "vocabulary_size": 73440, "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 256,
}  # fmt: skip
A100 = {"gpu": "A100 80GB", "gpus": 8, "memory_gigabytes": 80, "teraflops": 312, "utilization": 0.4}


def stages(model: str) -> list[dict[str, Any]]:
    """Table 6, as a config writes it."""
    with open(DATA / "table6_stages_llama2.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model]
    found: list[dict[str, Any]] = []
    for row in rows:
        peak = float(row["lambda"])
        rises = len(found) > 1 and peak > found[-1]["peak"]
        found.append({"until": int(row["accumulated_steps"]), "peak": peak, "shape": "sine" if rises else "constant"})
    return found


def paper_config(**over: Any) -> dict[str, Any]:
    """LLaMA2-7B's stages, and a baseline that shares the first."""
    run = {"init": {"run": "llama2-7b"}, "activation": "relu", "mixture": "mixed"}
    return {
        "experiment": "scale",
        "description": "LLaMA2-7B",
        "seeds": [0],
        "hardware": A100,
        "data": {
            "context_length": 4096,
            "tokenizers": {"llama": {"pretrained": "meta-llama/Llama-2-7b-hf"}},
            "corpora": {
                "text": {
                    "stands_for": "pile",
                    "kind": "language_modelling",
                    "character_limit": 140_000_000_000,
                    "source": {"hub": "some/text", "revision": "abc", "gated": "https://huggingface.co/datasets/some/text"},
                }
            },
            "mixtures": {"mixed": {"text": 1}},
            "mixed": "mixed",
            "heldout_sequences": 16,
        },
        "architectures": {"llama2-7b": LLAMA2_7B},
        "training": {
            "learning_rate": 3e-5, "batch_size": 512, "micro_batch_size": 2, "precision": "bfloat16",
            "activation_checkpointing": True, "fsdp": True,
        },
        "runs": {
            "llama2-7b": {
                "init": {
                    "pretrained": "meta-llama/Llama-2-7b-hf", "revision": "01c7", "architecture": "llama2-7b",
                    "gated": "https://huggingface.co/meta-llama/Llama-2-7b-hf",
                },
                "activation": "silu", "mixture": "mixed", "stages": [{"until": 0}],
            },
            "prosparse": {**run, "stages": stages("7B")},
            "vanilla": {**run, "stages": [{"until": 5000}, {"until": 16500}]},
        },
        "benchmarks": {"rows": "hub", "tasks": ["piqa", "gsm8k"]},
        "rows": {"LLaMA2-7B": "llama2-7b", "ProSparse-7B*": "prosparse", "Vanilla ReLU-7B": "vanilla"},
        "stages": {"7B": ["prosparse"]},
        "predictors": {"kinds": ["nonzero"], "rank": 1024, "tokens": 400000},
        **over,
    }  # fmt: skip


def paper(**over: Any) -> Experiment:
    return load(paper_config(**over))


def finish(directory: Path, run: str, stage: int) -> None:
    """Leave in ``directory`` what a stage that has ended leaves."""
    file = directory / f"checkpoints/{run}/seed0/stage{stage}/provenance.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
