"""An experiment that runs in a minute: toy width, two corpora of this repository's own files."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from helpers.repository import ROOT
from helpers.workflow import snakemake

STAGES = [{"until": 4}, {"until": 6, "peak": 0.2}, {"until": 10, "peak": 1.0, "shape": "sine"}]


def toy_experiment(root: Path) -> dict:
    """Two corpora of this project's own files, toy width, two benchmarks of made-up rows."""
    (root / "rows").mkdir(parents=True)
    # a paragraph a document: of our code, and of the license
    (root / "code").mkdir()
    for index, path in enumerate(sorted((ROOT / "workflow" / "prosparse").rglob("*.py"))):
        rows = [json.dumps({"text": paragraph}) + "\n" for paragraph in path.read_text().split("\n\n")]
        with open(root / "code" / f"train-{index % 3}.jsonl", "a") as file:
            file.writelines(rows)
    (root / "text").mkdir()
    for index, paragraph in enumerate((ROOT / "LICENSE").read_text().split("\n\n")):
        (root / "text" / f"prose{index}.txt").write_text(paragraph)
    piqa = [{"goal": f"To count {i},", "sol1": "say it.", "sol2": "eat a stone.", "label": i % 2} for i in range(6)]
    (root / "rows" / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in piqa))
    lambada = [{"text": f"one two three four five {w}"} for w in ("six", "seven", "eight")]
    (root / "rows" / "lambada.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lambada))
    run = {"init": {"run": "base"}, "activation": "relu", "mixture": "mixed"}
    return {
        "experiment": "toy",
        "description": "A toy that tests the workflow; its numbers mean nothing.",
        "seeds": [0],
        "data": {
            "context_length": 32,
            "tokenizers": {"bpe": {"vocabulary_size": 400}},
            "heldout_sequences": 8,
            "corpora": {
                "code": {
                    "stands_for": "starcoder",
                    "kind": "language_modelling",
                    "source": {"hub": "code"},  # a directory, streamed as a data set of the hub is
                    "shards": 2,
                },
                "prose": {
                    "stands_for": "flan",
                    "kind": "instruction",
                    "source": {"files": ["text/prose*.txt"]},
                },
            },
            "mixtures": {"mixed": {"code": 1, "prose": 1}},
            "mixed": "mixed",
        },
        "architectures": {
            "tiny": {"hidden_size": 16, "intermediate_size": 32, "layers": 2, "heads": 2, "kv_heads": 1},
        },
        "training": {"learning_rate": 1e-2, "batch_size": 2, "micro_batch_size": 2, "log_every": 2},
        "runs": {
            "base": {
                "init": {"architecture": "tiny"}, "activation": "silu", "mixture": "mixed", "stages": [{"until": 6}],
            },
            "prosparse": {**run, "stages": STAGES},
            "vanilla": {**run, "stages": [{"until": 4}, {"until": 10}]},
        },
        "rows": {
            "LLaMA2-7B": "base",
            "ProSparse-7B*": "prosparse",
            "ProSparse-7B": "prosparse@fatrelu-0.05",
            "Vanilla ReLU-7B": "vanilla",
        },
        "stages": {"7B": ["prosparse"]},
        "release": ["prosparse", "prosparse@fatrelu-0.05", "vanilla@shiftrelu-0.1"],
        "figures": {"schedule": ["prosparse"], "sparsity_curves": ["vanilla", "prosparse"]},
        "operators": {"shapes": {"7B": [16, 32]}, "densities": [1, 0.5], "rounds": 4, "memory_limit": 1 << 20},
        "benchmarks": {"rows": "files", "directory": "rows", "tasks": ["piqa", "lambada", "agi_eval"]},
    }  # fmt: skip


def dry_run(root: Path, config: dict | None = None, *targets: str) -> str:
    path = root / "toy.yaml"
    if config is not None:
        path = root / "changed.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
    run = snakemake(root, *targets, "--dry-run", "--printshellcmds", config=path)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
