"""Labels of the neurons that are active, the loss of predicting them, and its gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

#: Map x1 [tokens, intermediate_size] and the share of rule ``top`` to labels of the same shape: active or not.
LabelRule = Callable[[Tensor, float], Tensor]


def nonzero_labels(x1: Tensor, top: float) -> Tensor:
    return x1 != 0


def top_labels(x1: Tensor, top: float) -> Tensor:
    """Mark each token's largest non-zeros by magnitude, at most the share ``top`` of its neurons."""
    labels = x1 != 0
    count = max(1, int(top * x1.shape[-1]))
    crowded = labels.sum(-1) > count  # other tokens keep all their non-zeros
    largest = x1[crowded].abs().topk(count, sorted=False).indices
    labels[crowded] = torch.zeros_like(labels[crowded]).scatter_(-1, largest, True)
    return labels


#: The kinds that need training.
LABEL_RULES: dict[str, LabelRule] = {"nonzero": nonzero_labels, "top": top_labels}


def logit_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Closed-form gradient of a batch's mean weighted binary cross-entropy with respect to its logits.

    ``weight * (sigmoid(logit) - label)``, divided by the number of elements; autograd takes several times as long.
    """
    probability, count = logits.sigmoid(), logits.numel()
    return torch.where(labels, (probability - 1) / count, probability * (_inactive_weight(labels) / count))


def weighted_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss itself: mean over tokens and neurons, in nats."""
    weight = torch.where(labels, 1.0, _inactive_weight(labels))
    return nn.functional.binary_cross_entropy_with_logits(logits, labels.float(), weight=weight)


def _inactive_weight(labels: Tensor) -> Tensor:
    return torch.count_nonzero(labels) / labels.numel() + 0.005


def pack(labels: Tensor) -> Tensor:
    """Pack labels [tokens, neurons] into bits: [tokens, neurons / 8, rounded up] uint8."""
    padded = nn.functional.pad(labels, (0, -labels.shape[1] % 8)).unflatten(1, (-1, 8))
    return (padded * _BITS.to(labels.device)).sum(-1, dtype=torch.uint8)


def unpack(packed: Tensor, neurons: int) -> Tensor:
    """Undo :func:`pack`."""
    return (packed[..., None] & _BITS.to(packed.device)).ne(0).flatten(1)[:, :neurons]


_BITS = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8)
