"""Mix corpora by weight for training; each sample is a pure function of its index."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import datasets
import numpy as np
import torch

from prosparse.experiment.data import MeasuredSplit
from prosparse.experiment.training import Draw


class Rows(Protocol):
    """A corpus: ``rows[i]["input_ids"]`` holds the token ids of its i-th row."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Mapping[str, object]: ...


class Mixture(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """``length`` samples, the i-th a pure function of (seed, earlier draws, i, weights, corpora).

    The weights decide which corpus each sample comes from. Within a corpus, samples follow one random permutation of
    its rows per epoch and start after the rows that earlier draws took: no row is read twice before all have been read
    once. A longer mixture begins with the samples of a shorter one, so a run can be split or resumed anywhere, and two
    consecutive draws with the same weights equal one long draw.

    Args:
        corpora: packed train rows of at least the corpora that ``weights`` names.
        weights: share of each corpus, up to a common factor.
        length: number of samples.
        earlier: draws that the model was trained on before, in order, with the same seed.
    """

    def __init__(
        self,
        corpora: Mapping[str, Rows],
        weights: Mapping[str, float],
        length: int,
        seed: int,
        earlier: Sequence[Draw] = (),
    ) -> None:
        names = sorted(weights)
        for name in names:
            if name not in corpora:
                raise ValueError(f"mixture: unknown corpus {name!r}; allowed: {', '.join(corpora)}")
            if not len(corpora[name]):
                raise ValueError(f"mixture: corpus {name} has no rows")
        self.corpora = [corpora[name] for name in names]
        self.names = names
        generator = np.random.Generator(np.random.Philox(seed))
        read: Counter[str] = Counter()
        for draw in earlier:
            drawn = np.bincount(_corpora(draw.mixture, draw.samples, generator), minlength=len(draw.mixture))
            read.update(dict(zip(sorted(draw.mixture), drawn.tolist(), strict=True)))
        self._read = np.array([read[name] for name in names])  # rows read before the first sample
        self._corpus = _corpora(weights, length, generator)
        self._row = np.empty(length, np.int64)
        for index, name in enumerate(names):
            mine, size, done = np.flatnonzero(self._corpus == index), len(corpora[name]), 0
            while done < len(mine):
                epoch, first = divmod(int(self._read[index]) + done, size)
                part = mine[done : done + size - first]
                self._row[part] = _permutation(size, seed, name, epoch)[first : first + len(part)]
                done += len(part)

    @classmethod
    def load(
        cls, tokens: Path, weights: Mapping[str, float], length: int, seed: int, earlier: Sequence[Draw] = ()
    ) -> Mixture:
        """Mix the train rows of ``tokens/{corpus}/train``."""
        return cls({name: open_rows(tokens / name / "train") for name in weights}, weights, length, seed, earlier)

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """``input_ids`` [context_length] int64 and ``labels``, the same."""
        row = self.corpora[self._corpus[index]][int(self._row[index])]["input_ids"]
        ids = torch.as_tensor(np.asarray(row), dtype=torch.long)
        return {"input_ids": ids, "labels": ids.clone()}

    def epochs(self, samples: int | None = None) -> dict[str, float]:
        """Return the epochs of each corpus, including earlier draws, after ``samples`` samples (default: all)."""
        drawn = np.bincount(self._corpus[:samples], minlength=len(self.names))
        passes = (self._read + drawn) / [len(rows) for rows in self.corpora]
        return dict(zip(self.names, passes.tolist(), strict=True))

    def first_reads(self) -> np.ndarray:
        """Return the indices of the samples whose row has not been read before."""
        first = np.zeros(len(self), bool)
        for index, rows in enumerate(self.corpora):
            mine = np.flatnonzero(self._corpus == index)
            first[mine[: max(0, len(rows) - self._read[index])]] = True
        return np.flatnonzero(first)

    def repeats(self) -> dict[str, int]:
        """Count each corpus's samples whose row has been read before; corpora with none are omitted."""
        repeated = np.bincount(self._corpus, minlength=len(self.names))
        repeated -= np.bincount(self._corpus[self.first_reads()], minlength=len(self.names))
        return {name: count for name, count in zip(self.names, repeated.tolist(), strict=True) if count}


def _corpora(weights: Mapping[str, float], length: int, generator: np.random.Generator) -> np.ndarray:
    """Draw the corpus of each of the next samples, as an index in alphabetical order: [length] uint8."""
    cumulative = np.cumsum([weights[name] for name in sorted(weights)])
    return np.searchsorted(cumulative / cumulative[-1], generator.random(length), side="right").astype(np.uint8)


def _permutation(size: int, seed: int, name: str, epoch: int) -> np.ndarray:
    key = np.random.SeedSequence([seed, zlib.crc32(name.encode()), epoch])
    return np.random.Generator(np.random.Philox(key)).permutation(size)


def load_rows(tokens: Path, split: MeasuredSplit = "heldout") -> dict[str, torch.Tensor]:
    """Load a split's rows of every corpus in ``tokens``: name -> int64 [sequences, context_length]."""
    paths = sorted(tokens.glob(f"*/{split}"))
    if not paths:
        raise ValueError(f"no {split} rows in {tokens}")
    return {
        path.parent.name: torch.as_tensor(np.stack(open_rows(path)["input_ids"]), dtype=torch.long) for path in paths
    }


def open_rows(path: Path) -> datasets.Dataset:
    """Open packed rows written by :mod:`prosparse.data.tokens`."""
    return datasets.load_from_disk(str(path)).with_format("numpy")
