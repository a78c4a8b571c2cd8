"""Thresholds that make a dense FFN sparse without training: CATS, TEAL and CETT.

All of them zero the values whose magnitude is at most a layer's threshold, and choose the thresholds from the
activations of the unchanged model on calibration text:

- CATS (arXiv 2404.08763): |act(gate)|, at the quantile of the wanted sparsity.
- TEAL (arXiv 2408.14690): the inputs of the linear layers, here of gate and up projection (x) and of the
  down projection (x1), both at the quantile of the wanted sparsity; the same sparsity in every layer, not the authors'
  greedy search, and no threshold in attention.
- CETT (arXiv 2402.03804 and 2411.02335): the norms of the neurons' outputs, at the largest
  threshold in each layer whose truncation error, averaged over tokens, is at most one CETT for all layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from prosparse.experiment.training_free import Method

#: What a threshold is compared with: |act(gate)|, |x|, |x1|, or ‖w_j‖·|x1_j| with w_j the neuron's column of down_proj.
Place = Literal["activation", "input", "x1", "output"]
#: Shares of elements whose quantiles are kept; thresholds between them are interpolated.
SHARES = np.arange(51) / 50
ERROR_TOKENS = 1024  # enough for the mean of truncation errors


def cut(values: Tensor, threshold: float | Tensor) -> Tensor:
    """Return the values with those of magnitude at most ``threshold`` set to zero."""
    return torch.where(values.abs() > threshold, values, 0)


def quantiles(magnitudes: Tensor, shares: np.ndarray = SHARES) -> np.ndarray:
    """Return each share's quantile of the magnitudes: ``min {t : F(t) >= share}``; 0 for share 0.

    Args:
        magnitudes: of any shape, at least 0.
    """
    flat = magnitudes.float().flatten().cpu().numpy()
    ranks = np.ceil(np.round(shares * flat.size, 6)).astype(int)
    return np.where(ranks > 0, np.sort(flat)[np.maximum(ranks, 1) - 1], 0.0)


def truncation_errors(x1: Tensor, down: Tensor, thresholds: Sequence[float]) -> list[float]:
    """Return, per threshold, the mean over tokens of ‖Σ_tail x1_j w_j‖ / ‖Σ_j x1_j w_j‖.

    The tail consists of the neurons with ‖x1_j w_j‖ <= threshold. A token whose output is zero has no error.

    Args:
        x1: [tokens, intermediate_size].
        down: [hidden_size, intermediate_size], w_j its columns.
    """
    norms, whole = x1.abs() * down.norm(dim=0), (x1 @ down.T).norm(dim=1)
    errors = []
    for threshold in thresholds:
        lost = (torch.where(norms > threshold, 0, x1) @ down.T).norm(dim=1)
        errors.append(torch.where(whole > 0, lost / whole, 0).mean().item())
    return errors


@dataclass(frozen=True)
class LayerStatistics:
    """A layer's activations on calibration text.

    Attributes:
        quantiles: place -> its magnitudes at ``SHARES``.
        errors: truncation errors of the thresholds ``quantiles["output"]``, each the largest up to its threshold.
    """

    quantiles: Mapping[Place, np.ndarray]
    errors: np.ndarray

    def threshold(self, place: Place, share: float) -> float:
        return float(np.interp(share, SHARES, self.quantiles[place]))

    def truncated(self, cett: float) -> float:
        """Return the largest share of neurons' outputs whose truncation error is at most ``cett``, interpolated."""
        within = int(np.searchsorted(self.errors, cett, side="right"))
        if within == len(SHARES):
            return 1.0
        pair = slice(within - 1, within + 1)
        return float(np.interp(cett, self.errors[pair], SHARES[pair]))


def statistics(x: Tensor, activated: Tensor, x1: Tensor, down: Tensor) -> LayerStatistics:
    """Summarize a layer's activations.

    Args:
        x: [tokens, hidden_size], the FFN's input.
        activated: [tokens, intermediate_size], act(gate).
        x1: [tokens, intermediate_size], the input of the down projection.
        down: [hidden_size, intermediate_size].
    """
    x1, down = x1.float(), down.float()
    outputs = quantiles(x1.abs() * down.norm(dim=0))
    some = x1[:: max(1, len(x1) // ERROR_TOKENS)]
    errors = [0.0, *truncation_errors(some, down, outputs[1:].tolist())]
    return LayerStatistics(
        {"activation": quantiles(activated.abs()), "input": quantiles(x.abs()), "x1": quantiles(x1.abs()),
         "output": outputs},
        np.maximum.accumulate(errors),
    )  # fmt: skip


def common_cett(layers: Sequence[LayerStatistics], sparsity: float) -> float:
    """Return the least CETT at which this share of all layers' neurons is truncated on average."""
    low, high = 0.0, max(float(layer.errors[-1]) for layer in layers)
    for _ in range(50):
        middle = (low + high) / 2
        enough = math.fsum(layer.truncated(middle) for layer in layers) / len(layers) >= sparsity
        low, high = (low, middle) if enough else (middle, high)
    return high


def thresholds(layers: Sequence[LayerStatistics], method: Method, sparsity: float) -> list[dict[Place, float]]:
    """Return each layer's thresholds for a sparsity of x1, 0 to 1, on the calibration text."""
    match method:
        case "cats":
            return [{"activation": layer.threshold("activation", sparsity)} for layer in layers]
        case "teal":
            places: tuple[Place, ...] = ("input", "x1")
            return [{place: layer.threshold(place, sparsity) for place in places} for layer in layers]
        case "cett":
            cett = common_cett(layers, sparsity)
            return [{"output": layer.threshold("output", layer.truncated(cett))} for layer in layers]
