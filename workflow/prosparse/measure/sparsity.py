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

from prosparse.data.mixture import load_rows
from prosparse.experiment.activation import Activation
from prosparse.experiment.data import MeasuredSplit
from prosparse.experiment.specifications import MeasuredCorpus, StageSparsitySpecification
from prosparse.method.activations import gated_ffns, substitute
from prosparse.models.load import load_to_measure
from prosparse.system import identity

BATCH_SIZE = 16  # sequences per forward pass


class ZeroCounter:
    """Counts exact zeros of x1 per sequence in every gated FFN."""

    def __init__(self, model: nn.Module) -> None:
        self._ffns = gated_ffns(model)
        self._non_zeros: list[list[Tensor]] = [[] for _ in self._ffns]  # per layer and batch: [sequences]
        self._elements = [0] * len(self._ffns)  # per layer, of one sequence

    @contextmanager
    def counting(self, sequences: int) -> Iterator[None]:
        """Count inside this block, which computes one batch of ``sequences`` sequences."""
        hooks = [
            ffn.down_proj.register_forward_pre_hook(self._hook(layer, sequences))
            for layer, ffn in enumerate(self._ffns)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, layer: int, sequences: int) -> Any:
        def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x1 = inputs[0].reshape(sequences, -1)
            # keep the counts tensors: no synchronisation with a GPU here
            self._non_zeros[layer].append(torch.count_nonzero(x1, dim=1))
            self._elements[layer] = x1.shape[1]

        return count

    def sparsity(self) -> Tensor:
        """Return the share of zeros, 0 to 1, as ``[layers, sequences]`` in float64."""
        shares = [
            1 - torch.cat(counts).cpu().double() / elements
            for counts, elements in zip(self._non_zeros, self._elements, strict=True)
        ]
        return torch.stack(shares)


@torch.inference_mode()
def measure(model: PreTrainedModel, rows: Tensor, batch_size: int) -> dict[str, Any]:
    """Measure one pass over packed rows ``[n, context_length]``.

    Returns:
        ``sparsity`` (mean over layers), ``layer_sparsity``, ``loss`` (nats per predicted token),
        ``tokens`` (predicted ones) and ``sequences``: the ``loss`` and ``sparsity`` of each row, to 6 decimals.
    """
    model.eval()
    counter = ZeroCounter(model)
    nats: list[float] = []  # per sequence
    for batch in rows.split(batch_size):
        batch = batch.to(model.device)
        with counter.counting(len(batch)):
            logits = model(input_ids=batch, use_cache=False).logits
        # one sequence at a time: with a large vocabulary, a batch's float32 logits take gigabytes
        for sequence, scores in zip(batch, logits, strict=True):
            nats.append(nn.functional.cross_entropy(scores[:-1].float(), sequence[1:], reduction="sum").item())
    shares = counter.sparsity()
    layers = shares.mean(1).tolist()
    predicted = rows.shape[1] - 1  # per sequence
    return {
        "sparsity": sum(layers) / len(layers),
        "layer_sparsity": layers,
        "loss": sum(nats) / (predicted * len(rows)),
        "tokens": predicted * len(rows),
        "sequences": {
            "loss": [round(each / predicted, 6) for each in nats],
            "sparsity": [round(each, 6) for each in shares.mean(0).tolist()],
        },
    }


def measure_corpora(
    model: PreTrainedModel,
    activations: Sequence[Activation],
    corpora: dict[str, MeasuredCorpus],
    tokens: Path,
    split: MeasuredSplit = "heldout",
) -> list[dict[str, Any]]:
    """Measure every activation on every corpus's rows of a split; the average is weighted by the mixture."""
    results = []
    rows = load_rows(tokens, split)
    for activation in activations:
        substitute(model, activation)
        measured: dict[str, dict[str, Any]] = {}
        started = time.perf_counter()
        for name, corpus in corpora.items():
            values = measure(model, rows[name], BATCH_SIZE)
            manifest = json.loads((tokens / name / identity.MANIFEST).read_text(encoding="utf-8"))
            bytes_per_token = manifest[f"{split}_bytes_per_token"]
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
            f"{activation}: sparsity {100 * results[-1]['sparsity']:.2f}% | loss {results[-1]['loss']:.4f} nats | "
            f"{total:,} tokens in {seconds:.1f} s",
            flush=True,
        )
    return results


def measure_stages(
    checkpoints: Sequence[Path], wanted: StageSparsitySpecification, tokens: Path
) -> list[dict[str, Any]]:
    """Measure the checkpoint of every stage: its ``stage`` and ``step``, and what ``measure_corpora`` returns."""
    results = []
    for directory, place in zip(checkpoints, wanted.stages, strict=True):
        print("start" if place.stage is None else f"stage {place.stage}, step {place.step:,}", end=": ", flush=True)
        model = load_to_measure(directory, wanted.activation, wanted.precision)
        (measured,) = measure_corpora(model, [wanted.activation], wanted.corpora, tokens)
        results.append({**place.model_dump(), **measured})
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
