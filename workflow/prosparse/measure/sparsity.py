"""Activation sparsity by layer and corpus, together with the held-out loss."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
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


@contextmanager
def _watching(modules: Sequence[nn.Module], watch: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Call ``watch(layer, input)`` before each forward pass of every module, one per layer, inside this block."""
    with ExitStack() as hooks:
        for layer, module in enumerate(modules):
            hook = module.register_forward_pre_hook(lambda _, inputs, layer=layer: watch(layer, inputs[0]))
            hooks.callback(hook.remove)
        yield


class ZeroCounter:
    """Counts exact zeros per sequence in the input of every module, one per layer."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._non_zeros: list[list[Tensor]] = [[] for _ in modules]  # per layer and batch: [sequences]
        self._elements = [0] * len(modules)  # per layer, of one sequence

    @contextmanager
    def counting(self, sequences: int) -> Iterator[None]:
        """Count inside this block, which computes one batch of ``sequences`` sequences."""

        def count(layer: int, inputs: Tensor) -> None:
            values = inputs.reshape(sequences, -1)
            # keep the counts tensors: no synchronization with a GPU here
            self._non_zeros[layer].append(torch.count_nonzero(values, dim=1))
            self._elements[layer] = values.shape[1]

        with _watching(self._modules, count):
            yield

    def sparsity(self) -> Tensor:
        """Return the share of zeros, 0 to 1, as ``[layers, sequences]`` in float64."""
        shares = [
            1 - torch.cat(counts).cpu().double() / elements
            for counts, elements in zip(self._non_zeros, self._elements, strict=True)
        ]
        return torch.stack(shares)


class ActiveNeurons:
    """Records which neurons of every gated FFN are ever active; the x1 of the others is zero for all tokens."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [ffn.down_proj for ffn in gated_ffns(model)]
        self._active: list[Tensor | None] = [None] * len(self._modules)  # per layer: [neurons]

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Record what is active inside this block."""

        def note(layer: int, inputs: Tensor) -> None:
            active = (inputs != 0).flatten(0, -2).any(0)
            before = self._active[layer]
            self._active[layer] = active if before is None else before | active

        with _watching(self._modules, note):
            yield

    def dead(self) -> list[float]:
        """Return each layer's share of neurons that were never active, 0 to 1."""
        return [1 - active.double().mean().item() for active in self._active if active is not None]


@torch.inference_mode()
def measure(model: PreTrainedModel, rows: Tensor, batch_size: int, of_inputs: bool = False) -> dict[str, Any]:
    """Measure one pass over packed rows ``[n, context_length]``.

    Args:
        of_inputs: also count zeros in the FFNs' inputs, as ``input_sparsity``, the mean over layers.

    Returns:
        ``sparsity`` (mean over layers), ``layer_sparsity``, ``loss`` (nats per predicted token),
        ``tokens`` (predicted ones) and ``sequences``: the ``loss`` and ``sparsity`` of each row, to 6 decimals.
    """
    model.eval()
    ffns = gated_ffns(model)
    counter = ZeroCounter([ffn.down_proj for ffn in ffns])
    inputs = ZeroCounter([ffn.gate_proj for ffn in ffns] if of_inputs else [])
    nats: list[float] = []  # per sequence
    for batch in rows.split(batch_size):
        batch = batch.to(model.device)
        with counter.counting(len(batch)), inputs.counting(len(batch)):
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
        **({"input_sparsity": inputs.sparsity().mean().item()} if of_inputs else {}),
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
    text = MeasuredText.load(corpora, tokens, split)
    for activation in activations:
        substitute(model, activation)
        results.append({"activation": str(activation), **measure_text(model, text, str(activation))})
    return results


@dataclass(frozen=True)
class MeasuredText:
    """The rows to measure on, by corpus: int64 [sequences, context_length]."""

    corpora: Mapping[str, MeasuredCorpus]
    rows: Mapping[str, Tensor]
    bytes_per_token: Mapping[str, float]

    @classmethod
    def load(
        cls, corpora: Mapping[str, MeasuredCorpus], tokens: Path, split: MeasuredSplit = "heldout"
    ) -> MeasuredText:
        manifests = {
            name: json.loads((tokens / name / identity.MANIFEST).read_text(encoding="utf-8")) for name in corpora
        }
        sizes = {name: manifest[f"{split}_bytes_per_token"] for name, manifest in manifests.items()}
        return cls(corpora, load_rows(tokens, split), sizes)


def measure_text(model: PreTrainedModel, text: MeasuredText, label: str, of_inputs: bool = False) -> dict[str, Any]:
    """Measure a model on every corpus, and print a line under this label.

    Averages are weighted by the mixture; ``dead_neurons`` is each layer's share of neurons that no token of the
    mixture's rows activates.
    """
    measured: dict[str, dict[str, Any]] = {}
    neurons = ActiveNeurons(model)
    started = time.perf_counter()
    for name, corpus in text.corpora.items():
        with neurons.noting() if corpus.weight > 0 else nullcontext():
            values = measure(model, text.rows[name], BATCH_SIZE, of_inputs)
        measured[name] = {
            "stands_for": corpus.stands_for,
            **values,
            "bits_per_byte": values["loss"] / math.log(2) / text.bytes_per_token[name],
            "bytes_per_token": text.bytes_per_token[name],
        }
    averaged = _average(measured, text.corpora)
    seconds = time.perf_counter() - started
    total = sum(m["tokens"] for m in measured.values())
    print(
        f"{label}: sparsity {100 * averaged['sparsity']:.2f}% | loss {averaged['loss']:.4f} nats | "
        f"{total:,} tokens in {seconds:.1f} s",
        flush=True,
    )
    return {**averaged, "dead_neurons": neurons.dead(), "corpora": measured}


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


def _average(measured: dict[str, dict[str, Any]], corpora: Mapping[str, MeasuredCorpus]) -> dict[str, Any]:
    weights = {name: corpus.weight for name, corpus in corpora.items() if corpus.weight > 0}
    total = sum(weights.values())

    def mean(key: str) -> float:
        return sum(weight * measured[name][key] for name, weight in weights.items()) / total

    first = next(iter(measured.values()))
    layers = len(first["layer_sparsity"])
    loss = mean("loss")
    return {
        "sparsity": mean("sparsity"),
        "layer_sparsity": [
            sum(weight * measured[name]["layer_sparsity"][layer] for name, weight in weights.items()) / total
            for layer in range(layers)
        ],
        **({"input_sparsity": mean("input_sparsity")} if "input_sparsity" in first else {}),
        "loss": loss,
        "bits_per_byte": loss / math.log(2) / mean("bytes_per_token"),
        "tokens": sum(measured[name]["tokens"] for name in weights),
    }
