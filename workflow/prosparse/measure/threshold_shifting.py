"""Threshold shifting (section 3.3): the largest FATReLU threshold at a given cost in loss"""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from prosparse.experiment.activation import Activation
from prosparse.measure.sparsity import measure
from prosparse.method.activations import substitute

THRESHOLDS = tuple(step * 10.0**power for power in (-2, -1, 0) for step in (1, 1.5, 2, 3, 5, 7))


def largest_threshold(model: PreTrainedModel, rows: Tensor, cost: float) -> Activation | None:
    """Return FATReLU with the largest of ``THRESHOLDS`` up to which the loss of ``rows`` rises by at most ``cost``.

    None if even the first costs more. The model is left with the activation it had, ReLU.

    Args:
        rows: token ids [n, context_length], for which nothing else is measured.
        cost: in nats per token.
    """
    found, allowed = None, measure(model, rows, batch_size=1)["loss"] + cost
    for threshold in THRESHOLDS:
        activation = Activation(name="fatrelu", parameter=round(threshold, 3))
        substitute(model, activation)
        if measure(model, rows, batch_size=1)["loss"] > allowed:
            break
        found = activation
    substitute(model, Activation(name="relu"))
    return found
