"""What a model computes, seen by hooks of the tests' own."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel


def observed(model: PreTrainedModel, rows: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Residual before the FFN's norm and x1, both of every layer."""
    residuals, x1, hooks = [], [], []
    for layer in model.model.layers:
        hooks.append(layer.post_attention_layernorm.register_forward_pre_hook(lambda m, i: residuals.append(i[0])))
        hooks.append(layer.mlp.down_proj.register_forward_pre_hook(lambda m, i: x1.append(i[0])))
    with torch.no_grad():
        model(rows)
    for hook in hooks:
        hook.remove()
    return residuals, x1
