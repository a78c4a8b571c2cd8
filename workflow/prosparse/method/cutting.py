"""Calibrate the thresholds on a model's own activations, and apply them to the model"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from prosparse.method.activations import GatedFFN, gated_ffns
from prosparse.method.thresholds import LayerStatistics, Place, cut, statistics


@torch.inference_mode()
def calibrate(model: PreTrainedModel, rows: Tensor) -> list[LayerStatistics]:
    """Summarize every layer's activations in one forward pass over ``rows`` [n, context_length], all at once."""
    ffns, found = gated_ffns(model), []
    seen: dict[str, Tensor] = {}  # of the layer that is being computed

    def keep(name: str, value: Tensor) -> None:
        seen[name] = value.flatten(0, -2)

    def summarize(ffn: GatedFFN) -> Any:
        def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
            x1 = inputs[0].flatten(0, -2)
            found.append(statistics(seen.pop("x"), seen.pop("activated"), x1, module.weight))

        return hook

    with ExitStack() as hooks:
        for ffn in ffns:
            for handle in (
                ffn.gate_proj.register_forward_pre_hook(lambda _, inputs: keep("x", inputs[0])),
                ffn.activation.register_forward_hook(lambda _, inputs, output: keep("activated", output)),
                ffn.down_proj.register_forward_pre_hook(summarize(ffn)),
            ):
                hooks.callback(handle.remove)
        model.base_model(input_ids=rows.to(model.device), use_cache=False)
    return found


@contextmanager
def cutting(model: nn.Module, thresholds: Sequence[Mapping[Place, float]]) -> Iterator[None]:
    """Apply each layer's thresholds to the model inside this block.

    Hooks that are registered inside see the values after the cut.
    """
    with ExitStack() as hooks:
        for ffn, of_layer in zip(gated_ffns(model), thresholds, strict=True):
            for place, threshold in of_layer.items():
                for handle in _hooks(ffn, place, threshold):
                    hooks.callback(handle.remove)
        yield


def _hooks(ffn: GatedFFN, place: Place, threshold: float) -> list[RemovableHandle]:
    def cut_input(limit: float | Tensor) -> Any:
        return lambda module, inputs: (cut(inputs[0], limit),)

    match place:
        case "activation":
            return [ffn.activation.register_forward_hook(lambda module, inputs, output: cut(output, threshold))]
        case "input":
            projections = [ffn.module.get_submodule(name) for name in ffn.projections[:-1]]
            return [each.register_forward_pre_hook(cut_input(threshold)) for each in projections]
        case "x1":
            return [ffn.down_proj.register_forward_pre_hook(cut_input(threshold))]
        case "output":
            down: Any = ffn.down_proj
            return [down.register_forward_pre_hook(cut_input(threshold / down.weight.norm(dim=0)))]
