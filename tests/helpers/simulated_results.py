"""Measurements drawn at random around chosen true values, to find how often a test of a claim is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
from helpers.synthetic_results import CONFIG, CORPORA

from prosparse.experiment import loading
from prosparse.experiment.layout import Layout
from prosparse.paper.results.reader import Results

#: Standard deviations: of a row in every pair alike, of a run's seed, and of a row in a pair of one seed.
SHARED, OVER_SEEDS, OWN = {"loss": 0.5, "sparsity": 0.03}, {"loss": 0.003, "sparsity": 0.002}, 0.01


class Simulated(Results):
    """An experiment whose pairs have the given true sparsity (share) and loss; every other number is drawn."""

    def __init__(self, truth: dict[str, tuple[float, float]], seeds: int, generator: numpy.random.Generator) -> None:
        raw = {**CONFIG, "seeds": list(range(seeds)), "seed_deviation": None}
        raw["benchmarks"] = {**CONFIG["benchmarks"], "tasks": []}
        super().__init__(Layout(loading.load(raw), Path("simulated")))
        self._truth, self._generator = truth, generator
        self._rows = {
            (corpus, key): generator.normal(0, SHARED[key], 32) for corpus in CORPORA for key in ("loss", "sparsity")
        }
        self._drawn: dict[Path, Any] = {}

    def _json(self, path: Path) -> Any:
        if path not in self._drawn:
            run = path.parts[path.parts.index("measurements") + 1]
            of_seed = {key: self._generator.normal(0, deviation) for key, deviation in OVER_SEEDS.items()}
            entries = [
                self._entry(pair.partition("@")[2], of_seed, *true)
                for pair, true in self._truth.items()
                if pair.partition("@")[0] == run
            ]
            self._drawn[path] = {"measurements": entries}
        return self._drawn[path]

    def _entry(self, activation: str, of_seed: dict[str, float], sparsity: float, loss: float) -> dict[str, Any]:
        true = {"sparsity": sparsity, "loss": loss}
        corpora = {}
        for name, (stands_for, _) in CORPORA.items():
            sequences = {
                key: value + of_seed[key] + self._rows[name, key] + self._generator.normal(0, OWN, 32)
                for key, value in true.items()
            }
            corpora[name] = {
                "stands_for": stands_for, "tokens": 32, "layer_sparsity": [sparsity] * 6, "sequences": sequences,
                **{key: float(values.mean()) for key, values in sequences.items()},
            }  # fmt: skip
        means = {key: float(numpy.mean([corpus[key] for corpus in corpora.values()])) for key in true}
        return {
            "activation": activation, "bits_per_byte": 1.0, "layer_sparsity": [sparsity] * 6, "corpora": corpora,
            **means,
        }  # fmt: skip
