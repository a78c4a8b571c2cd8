"""What training draws from: corpora mixed by weight, each sample a pure function of its index."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import datasets
import numpy as np
import torch


class Rows(Protocol):
    """A corpus: ``rows[i]["input_ids"]`` are the token ids of its i-th row."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Mapping[str, object]: ...


class Mixture(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """``length`` samples, the i-th a pure function of (seed, i, weights, corpora).

    The corpus of each sample is drawn by weight; within a corpus, samples go through one random
    permutation of its rows after another, so that no row comes twice within an epoch. A longer
    mixture begins with the samples of a shorter one, so a run can be split or resumed anywhere.

    Args:
        corpora: packed train rows of at least the corpora that ``weights`` names.
        weights: share of each corpus, up to a common factor.
    """

    def __init__(self, corpora: Mapping[str, Rows], weights: Mapping[str, float], length: int, seed: int) -> None:
        names = sorted(weights)
        for name in names:
            if name not in corpora:
                raise ValueError(f"mixture: unknown corpus {name!r}; allowed: {', '.join(corpora)}")
            if not len(corpora[name]):
                raise ValueError(f"mixture: corpus {name} has no rows")
        self.corpora = [corpora[name] for name in names]
        self.names = names
        cumulative = np.cumsum([weights[name] for name in names])
        drawn = np.random.Generator(np.random.Philox(seed)).random(length)
        self._corpus = np.searchsorted(cumulative / cumulative[-1], drawn, side="right").astype(np.uint8)
        self._row = np.empty(length, np.int64)
        self._counts = {}
        for index, name in enumerate(names):
            mine = np.flatnonzero(self._corpus == index)
            size = len(corpora[name])
            self._counts[name] = len(mine)
            for epoch, start in enumerate(range(0, len(mine), size)):
                part = mine[start : start + size]
                self._row[part] = _permutation(size, seed, name, epoch)[: len(part)]

    @classmethod
    def load(cls, tokens: Path, weights: Mapping[str, float], length: int, seed: int) -> Mixture:
        """Mix the train rows of ``tokens/{corpus}/train``."""
        return cls({name: _open(tokens / name / "train") for name in weights}, weights, length, seed)

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """``input_ids`` [context_length] int64 and ``labels``, the same."""
        row = self.corpora[self._corpus[index]][int(self._row[index])]["input_ids"]
        ids = torch.as_tensor(np.asarray(row), dtype=torch.long)
        return {"input_ids": ids, "labels": ids.clone()}

    def epochs(self) -> dict[str, float]:
        """How often the mixture goes through each corpus."""
        return {name: self._counts[name] / len(rows) for name, rows in zip(self.names, self.corpora, strict=True)}


def _permutation(size: int, seed: int, name: str, epoch: int) -> np.ndarray:
    key = np.random.SeedSequence([seed, zlib.crc32(name.encode()), epoch])
    return np.random.Generator(np.random.Philox(key)).permutation(size)


def load_heldout(tokens: Path) -> dict[str, torch.Tensor]:
    """Held-out rows of every corpus in ``tokens``: name -> int64 [sequences, context_length]."""
    paths = sorted(tokens.glob("*/heldout"))
    if not paths:
        raise ValueError(f"no held-out rows in {tokens}")
    return {path.parent.name: torch.as_tensor(np.stack(_open(path)["input_ids"]), dtype=torch.long) for path in paths}


def _open(path: Path) -> datasets.Dataset:
    return datasets.load_from_disk(str(path)).with_format("numpy")
