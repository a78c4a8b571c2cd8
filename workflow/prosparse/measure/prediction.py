"""Quality of activation predictors on held-out text, and the loss under them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prosparse.data.mixture import load_rows
from prosparse.experiment.specifications import MeasuredCorpus
from prosparse.inference.predictors import Predictor, check_shapes, decision_logit, observing, predicting
from prosparse.measure import sparsity

#: The sweep's decision thresholds as logits, half a logit apart: probabilities 0.001 to 0.999.
SWEEP = [step / 2 for step in range(-14, 15)]
#: Thresholds at which the first kind's loss is also measured; each costs a pass over the text.
SWEEP_WITH_LOSS = (-2.0,)

BATCH_SIZE = 8  # sequences

SHARES = ("activation_recall", "precision", "predicted_sparsity")


class Marginal(nn.Module):
    """Baseline that ignores its input: a neuron's logit is that of its activation frequency.

    Args:
        frequency: [intermediate_size], 0 to 1.
    """

    def __init__(self, frequency: Tensor) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.logit(frequency.float()), requires_grad=False)

    def forward(self, residual: Tensor) -> Tensor:
        return self.logit.expand(*residual.shape[:-1], -1)


def measure(
    model: PreTrainedModel,
    kinds: Mapping[str, Sequence[Predictor]],
    marginal: Sequence[Tensor],
    corpora: Mapping[str, MeasuredCorpus],
    tokens: Path,
    decision_threshold: float,
) -> dict[str, Any]:
    """Compare predictions with the exact model's activations on each corpus's held-out rows, averaged by the mixture.

    Activation recall is the share of truly active elements of x1 that are predicted active, precision the share of
    those predicted active that truly are, predicted sparsity the share of all elements predicted inactive: each per
    layer, then averaged over layers. A layer without active (or predicted active) elements has recall (precision) 1.
    Losses, in nats per predicted token, are those of the model computing by the predictions.

    Args:
        model: a dense model under the activation that the predictors were trained for.
        kinds: predictors by kind, one per layer; the sweep also measures the first kind's loss.
        marginal: each layer's activation frequencies [intermediate_size] on training tokens.
        corpora: those of weight 0 are skipped.
        tokens: directory of tokenized corpora.

    Returns:
        ``decision_threshold``, ``sparsity``, ``layer_sparsity``, ``loss`` (exact), ``tokens`` (predicted ones) and
        ``kinds``, by kind and ``marginal``: ``rank``, ``activation_recall``, ``precision``, ``predicted_sparsity``,
        ``layers`` (the same three each), ``loss`` and ``sweep``, one entry per decision threshold
        (``decision_threshold``, the three, and for some ``loss``). Shares are fractions. The marginal baseline has
        neither rank nor loss, since no model computes by it.

    Raises:
        UserError: the predictors belong to another model.
    """
    model.eval()
    device = model.device
    modules: dict[str, list[nn.Module]] = {kind: [each.to(device) for each in found] for kind, found in kinds.items()}
    modules["marginal"] = [Marginal(frequency).to(device) for frequency in marginal]
    for predictors in modules.values():
        check_shapes(model, predictors)
    heldout = load_rows(tokens)
    total = sum(corpus.weight for corpus in corpora.values())
    weights = {name: corpus.weight / total for name, corpus in corpora.items() if corpus.weight > 0}

    exact: dict[str, dict[str, Any]] = {}
    shares = {kind: torch.zeros(()) for kind in modules}  # after the loop [shares, layers, 1 + sweep]
    for name, weight in weights.items():
        counter = _Counter(modules, decision_threshold)
        with observing(model, counter.count):
            exact[name] = sparsity.measure(model, heldout[name], BATCH_SIZE)
        for kind in modules:
            shares[kind] = shares[kind] + weight * counter.shares(kind)

    def loss(kind: str, threshold: float) -> float:
        with predicting(model, modules[kind], threshold):
            return sum(
                weight * sparsity.measure(model, heldout[name], BATCH_SIZE)["loss"] for name, weight in weights.items()
            )

    measured: dict[str, dict[str, Any]] = {}
    for kind, found in shares.items():
        entry: dict[str, Any] = _named(found[:, :, 0].mean(1))
        entry["layers"] = [_named(layer) for layer in found[:, :, 0].T]
        entry["sweep"] = []
        for logit, values in zip(SWEEP, found[:, :, 1:].mean(1).T, strict=True):
            entry["sweep"].append({"decision_threshold": 1 / (1 + math.exp(-logit)), **_named(values)})
        if kind in kinds:
            entry["rank"] = kinds[kind][0].rank
            entry["loss"] = loss(kind, decision_threshold)
        measured[kind] = entry
        _report(kind, entry)
    first = next(iter(kinds))
    for logit in SWEEP_WITH_LOSS:
        point = measured[first]["sweep"][SWEEP.index(logit)]
        point["loss"] = loss(first, point["decision_threshold"])

    layer_sparsity = [
        sum(weight * exact[name]["layer_sparsity"][layer] for name, weight in weights.items())
        for layer in range(len(marginal))
    ]
    return {
        "decision_threshold": decision_threshold,
        "sparsity": sum(layer_sparsity) / len(layer_sparsity),
        "layer_sparsity": layer_sparsity,
        "loss": sum(weight * exact[name]["loss"] for name, weight in weights.items()),
        "tokens": sum(values["tokens"] for values in exact.values()),
        "kinds": measured,
    }


def _named(values: Tensor) -> dict[str, float]:
    return dict(zip(SHARES, values.tolist(), strict=True))


def _report(kind: str, entry: dict[str, Any]) -> None:
    parts = [f"{name.replace('_', ' ')} {100 * entry[name]:.2f}%" for name in SHARES]
    parts += [f"loss {entry['loss']:.4f} nats"] if "loss" in entry else []
    print(f"{kind}: {', '.join(parts)}", flush=True)


class _Counter:
    """Counts predicted and true activations at the decision threshold and at every point of the sweep.

    Args:
        modules: predictors by kind, one per layer.
    """

    def __init__(self, modules: Mapping[str, Sequence[nn.Module]], decision_threshold: float) -> None:
        self._modules, self._threshold = modules, decision_logit(decision_threshold)
        layers = len(next(iter(modules.values())))
        # by kind and layer: [truly active or not, 1 + sweep], elements predicted active
        self._predicted = {kind: torch.zeros(layers, 2, 1 + len(SWEEP), dtype=torch.int64) for kind in modules}
        self._elements = torch.zeros(layers, 2, dtype=torch.int64)  # truly inactive, truly active

    def count(self, layer: int, residual: Tensor, x1: Tensor) -> None:
        active = (x1 != 0).flatten()
        number = int(torch.count_nonzero(active))
        self._elements[layer] += torch.tensor([active.numel() - number, number])
        bins = len(SWEEP) + 1  # how many points of the sweep a logit reaches: none to all
        offset = active.float().mul_(bins).add_(-2 * SWEEP[0] + 1)
        for kind, predictors in self._modules.items():
            logits = predictors[layer](residual.float()).flatten()
            chosen = logits >= self._threshold
            hits = torch.count_nonzero(chosen & active)
            at_threshold = torch.stack([torch.count_nonzero(chosen) - hits, hits])
            # doubling and rounding down are exact, so a logit equal to a point of the sweep reaches it
            reached = logits.mul(2).floor_().clamp_(2 * SWEEP[0] - 1, 2 * SWEEP[-1]).add_(offset)
            histogram = torch.bincount(reached.to(torch.int64), minlength=2 * bins).view(2, bins)
            at_least = histogram.flip(1).cumsum(1).flip(1)[:, 1:]
            self._predicted[kind][layer] += torch.cat([at_threshold[:, None], at_least], dim=1).cpu()

    def shares(self, kind: str) -> Tensor:
        """[recall, precision, predicted sparsity; layers; decision threshold, then the sweep] float64."""
        hits, predicted = self._predicted[kind][:, 1].double(), self._predicted[kind].sum(1).double()
        active, elements = self._elements[:, 1:].double(), self._elements.sum(1, keepdim=True).double()
        recall = torch.where(active > 0, hits / active, 1.0)
        precision = torch.where(predicted > 0, hits / predicted, 1.0)
        return torch.stack([recall, precision, 1 - predicted / elements])
