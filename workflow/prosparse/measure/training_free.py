"""Loss and sparsity of a dense model under thresholds that need no training"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from prosparse.data.mixture import Mixture
from prosparse.experiment.specifications import TrainingFreeSpecification
from prosparse.experiment.training_free import AT_COST, CALIBRATION_TOKENS, METHODS, PERPLEXITY_COST, Method
from prosparse.measure.sparsity import BATCH_SIZE, MeasuredText, measure, measure_text
from prosparse.method.activations import substitute
from prosparse.method.cutting import calibrate, cutting
from prosparse.method.thresholds import SHARES, LayerStatistics, common_cett, thresholds


def measure_settings(
    model: PreTrainedModel, wanted: TrainingFreeSpecification, tokens: Path, seed: int
) -> dict[str, Any]:
    """Calibrate on training rows, drawn from the mixture, and measure every method and setting on held-out rows.

    Returns:
        ``calibration``: its ``tokens`` and the dense model's ``loss`` on them; ``measurements``: per ``setting``
        (``cats-0.5``, ``cett-ppl-1%``) its ``target`` sparsity, the ``thresholds`` of each layer, and what
        ``measure_text`` returns.
    """
    substitute(model, wanted.activation)
    text = MeasuredText.load(wanted.corpora, tokens)
    context_length = next(iter(text.rows.values())).shape[1]
    weights = {name: corpus.weight for name, corpus in wanted.corpora.items() if corpus.weight > 0}
    drawn = Mixture.load(tokens, weights, calibration_rows(context_length), seed)
    rows = torch.stack([drawn[index]["input_ids"] for index in range(len(drawn))])
    layers = calibrate(model, rows)
    dense = measure(model, rows, BATCH_SIZE)["loss"]
    measurements = []
    for method in METHODS:
        targets = {f"{method}-{target:g}": target for target in wanted.targets}
        targets[f"{method}-{AT_COST}"] = within_cost(model, rows, layers, method, dense)
        for setting, target in targets.items():
            chosen = thresholds(layers, method, target)
            with cutting(model, chosen):
                measured = measure_text(model, text, setting, of_inputs=True)
            cett = {"cett": common_cett(layers, target)} if method == "cett" else {}
            measurements.append({"setting": setting, "target": target, **cett, "thresholds": chosen, **measured})
    return {"calibration": {"tokens": rows.numel(), "loss": dense}, "measurements": measurements}


def calibration_rows(context_length: int) -> int:
    return max(1, CALIBRATION_TOKENS // context_length)


def within_cost(
    model: PreTrainedModel, rows: Tensor, layers: Sequence[LayerStatistics], method: Method, dense: float
) -> float:
    """Return the largest sparsity at which the perplexity of ``rows`` rises by at most 1%.

    For CETT, this is CETT-PPL-1% (arXiv 2411.02335, Algorithm 1). Found by bisection on ``SHARES``, which assumes that
    loss rises with sparsity, and interpolated between the last two.

    Args:
        dense: loss without thresholds.
    """
    allowed = math.log1p(PERPLEXITY_COST)
    costs = {0: 0.0}
    low, high = 0, len(SHARES) - 1
    while high - low > 1:
        middle = (low + high) // 2
        with cutting(model, thresholds(layers, method, float(SHARES[middle]))):
            costs[middle] = measure(model, rows, BATCH_SIZE)["loss"] - dense
        low, high = (middle, high) if costs[middle] <= allowed else (low, middle)
    if high not in costs:  # an FFN without neurons, which no search has to try
        return float(SHARES[low])
    return float(np.interp(allowed, [costs[low], costs[high]], SHARES[[low, high]]))
