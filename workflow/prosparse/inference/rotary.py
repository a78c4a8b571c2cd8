"""A model's rotary embedding as a table of cosines and sines."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


def kinds(model: PreTrainedModel) -> list[str | None]:
    """The types of layers that have rotary embeddings of their own; [None] if all have the same, [] if none has one."""
    rotary: Any = getattr(model.base_model, "rotary_emb", None)
    if rotary is None:
        return []
    if "layer_type" in inspect.signature(rotary.forward).parameters:
        return sorted(set(model.config.layer_types))
    return [None]


def longest(model: PreTrainedModel) -> float:
    """The length from which positions are rotated or attention is scaled in another way; infinity if there is none."""
    rotary: Any = getattr(model.base_model, "rotary_emb", None)
    if rotary is None:
        return math.inf
    types = rotary.rope_type if isinstance(rotary.rope_type, dict) else {"": rotary.rope_type}
    found, parameters = math.inf, model.config.rope_parameters or {}
    for name, kind in types.items():
        settings = parameters.get(name, parameters) or {}
        original = settings.get("original_max_position_embeddings") or model.config.max_position_embeddings
        if kind == "longrope" or settings.get("llama_4_scaling_beta") is not None:
            found = min(found, original)
        elif kind == "dynamic":
            found = min(found, model.config.max_position_embeddings)
    return found


def rereads_at(model: PreTrainedModel) -> int:
    """The length from which Phi-3's ``generate`` reads a text again, since all its positions change; 0 if never."""
    changes = model.config.model_type == "phi3" and longest(model) < math.inf
    return int(longest(model)) if changes else 0


@torch.inference_mode()
def table(model: PreTrainedModel, length: int, repeats: bool) -> Tensor:
    """Cosines and sines of the first positions, float32 [kinds, length, 2, rotated features].

    Args:
        repeats: the family takes the first half of each, and every value twice.
    """
    rotary: Any = getattr(model.base_model, "rotary_emb", None)
    like, positions = torch.empty(1, 1, dtype=model.dtype), torch.arange(length)[None]
    parts = []
    for kind in kinds(model):
        given = {} if kind is None else {"layer_type": kind}
        cosines, sines = rotary(like, position_ids=positions, **given)
        both = torch.stack([cosines[0].float(), sines[0].float()], dim=1)
        parts.append(both.chunk(2, dim=-1)[0].repeat_interleave(2, dim=-1) if repeats else both)
    return torch.stack(parts) if parts else torch.empty(0, length, 2, 0)
