"""What stages of tiny models are trained on, and their ledgers."""

from __future__ import annotations

import csv
from pathlib import Path

import datasets
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

CONTEXT = 32


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
