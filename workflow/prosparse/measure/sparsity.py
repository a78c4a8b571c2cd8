"""Activation sparsity by layer and corpus, together with the held-out loss."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prosparse.data.mixture import load_heldout
from prosparse.experiment.activation import Activation
from prosparse.experiment.specifications import MeasuredCorpus
from prosparse.method.activations import gated_ffns, substitute
from prosparse.system import identity


class ZeroCounter:
    """Counts exact zeros of x1 in every gated FFN inside its block."""

    def __init__(self, model: nn.Module) -> None:
        self._ffns = gated_ffns(model)
        self.non_zeros = [torch.zeros((), dtype=torch.int64) for _ in self._ffns]
        self.elements = [0] * len(self._ffns)

    @contextmanager
    def counting(self) -> Iterator[None]:
        hooks = [ffn.down_proj.register_forward_pre_hook(self._hook(layer)) for layer, ffn in enumerate(self._ffns)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, layer: int) -> Any:
        def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            # keep the count a tensor: no synchronisation with a GPU here
            self.non_zeros[layer] = self.non_zeros[layer].to(inputs[0].device) + torch.count_nonzero(inputs[0])
            self.elements[layer] += inputs[0].numel()

        return count

    def layer_sparsity(self) -> list[float]:
        """Share of zeros per layer, 0 to 1; all tokens of a layer weigh the same."""
        return [1 - int(n) / total for n, total in zip(self.non_zeros, self.elements, strict=True)]


@torch.inference_mode()
def measure(model: PreTrainedModel, rows: Tensor, batch_size: int) -> dict[str, Any]:
    """Measure one pass over packed rows ``[n, context_length]``.

    Returns:
        ``sparsity`` (mean over layers), ``layer_sparsity``, ``loss`` (nats per predicted token) and
        ``tokens`` (predicted ones).
    """
    model.eval()
    counter = ZeroCounter(model)
    nats, predicted = 0.0, 0
    with counter.counting():
        for batch in rows.split(batch_size):
            batch = batch.to(model.device)
            logits = model(input_ids=batch, use_cache=False).logits
            # one sequence at a time: with a large vocabulary, a batch's float32 logits take gigabytes
            for sequence, scores in zip(batch, logits, strict=True):
                nats += nn.functional.cross_entropy(scores[:-1].float(), sequence[1:], reduction="sum").item()
            predicted += batch[:, 1:].numel()
    layers = counter.layer_sparsity()
    return {
        "sparsity": sum(layers) / len(layers),
        "layer_sparsity": layers,
        "loss": nats / predicted,
        "tokens": predicted,
    }


def measure_corpora(
    model: PreTrainedModel,
    activations: Sequence[Activation],
    corpora: dict[str, MeasuredCorpus],
    tokens: Path,
    batch_size: int = 16,
) -> list[dict[str, Any]]:
    """Measure every activation on every corpus's held-out rows; the average is weighted by the mixture."""
    results = []
    heldout = load_heldout(tokens)
    for activation in activations:
        substitute(model, activation)
        measured: dict[str, dict[str, Any]] = {}
        started = time.perf_counter()
        for name, corpus in corpora.items():
            values = measure(model, heldout[name], batch_size)
            manifest = json.loads((tokens / name / identity.MANIFEST).read_text(encoding="utf-8"))
            bytes_per_token = manifest["heldout_bytes_per_token"]
            measured[name] = {
                "stands_for": corpus.stands_for,
                **values,
                "bits_per_byte": values["loss"] / math.log(2) / bytes_per_token,
                "bytes_per_token": bytes_per_token,
            }
        results.append({"activation": str(activation), **_average(measured, corpora), "corpora": measured})
        seconds = time.perf_counter() - started
        total = sum(m["tokens"] for m in measured.values())
        print(
            f"{activation}: sparsity {100 * results[-1]['sparsity']:.2f} % | loss {results[-1]['loss']:.4f} nats | "
            f"{total:,} tokens in {seconds:.1f} s",
            flush=True,
        )
    return results


def _average(measured: dict[str, dict[str, Any]], corpora: dict[str, MeasuredCorpus]) -> dict[str, Any]:
    weights = {name: corpus.weight for name, corpus in corpora.items() if corpus.weight > 0}
    total = sum(weights.values())

    def mean(key: str) -> float:
        return sum(weight * measured[name][key] for name, weight in weights.items()) / total

    layers = len(next(iter(measured.values()))["layer_sparsity"])
    loss = mean("loss")
    return {
        "sparsity": mean("sparsity"),
        "layer_sparsity": [
            sum(weight * measured[name]["layer_sparsity"][layer] for name, weight in weights.items()) / total
            for layer in range(layers)
        ],
        "loss": loss,
        "bits_per_byte": loss / math.log(2) / mean("bytes_per_token"),
        "tokens": sum(measured[name]["tokens"] for name in weights),
    }
