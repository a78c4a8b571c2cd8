"""Single-token attention at memory speed, and a cache that is not copied per token.

On a CPU, transformers' versions of both cost more per token than the sparse FFN saves in billion-parameter models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

#: The name to pass to a model's ``set_attn_implementation``.
IMPLEMENTATION = "prosparse_decoding"
LEAST_CAPACITY = 256  # tokens
#: Cache layers of transformers that ours replaces; the attention mask hides everything outside a sliding window.
GROWN = (DynamicLayer, DynamicSlidingWindowLayer)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: our operator for a single token over all its keys, torch's for the rest.

    ``query`` is [batch, heads, tokens, head size], ``key`` and ``value`` [batch, key heads, length, head size]; the
    result is [batch, tokens, heads, head size].
    """
    batch, _, tokens, size = query.shape
    alone = batch == tokens == 1 and attention_mask is None and key.device.type == "cpu"
    # torch's attention handles what else an architecture needs (a position bias, values of another size)
    plain = options.get("position_bias") is None and value.shape == key.shape and size == key.shape[-1]
    if not (alone and plain) or not hasattr(torch.ops.prosparse, "attention") or torch.is_grad_enabled():
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    scale = size**-0.5 if scaling is None else scaling
    return torch.ops.prosparse.attention(query[0, :, 0], key[0], value[0], scale)[None, None], None


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, sdpa_mask)


class GrowingLayer(DynamicLayer):
    """A layer of transformers' cache with room for future tokens: each token copies only its own keys.

    Args:
        room: buffers for the keys and values, [batch, key heads, capacity, head size] each, until more are needed.
    """

    def __init__(self, room: tuple[Tensor, Tensor] | None = None) -> None:
        super().__init__()
        self.room = room

    def update(
        self, key_states: Tensor, value_states: Tensor, *arguments: Any, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Like the base class, returns all keys and values, [batch, key heads, length, head size] each."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        total = length + key_states.shape[-2]
        held: Any = self.keys, self.values
        # after a selection of the batch, keys are no longer a view of the buffer
        moved = self.room is None or (length and held[0].data_ptr() != self.room[0].data_ptr())
        if self.room is None or moved or self.room[0].shape[-2] < total:
            capacity = max(LEAST_CAPACITY, 2 * total)
            keys, values = (
                states.new_empty(*states.shape[:-2], capacity, states.shape[-1])
                for states in (key_states, value_states)
            )
            if length:
                keys[..., :length, :], values[..., :length, :] = held
            self.room = keys, values
        keys, values = self.room
        keys[..., length:total, :] = key_states
        values[..., length:total, :] = value_states
        self.keys, self.values = keys[..., :total, :], values[..., :total, :]
        return self.keys, self.values


def cache(model: PreTrainedModel, room: Tensor | None = None) -> Cache:
    """An empty cache for this model's ``past_key_values``; layers other than attention keep the state they need.

    Args:
        room: memory for one text's keys and values, [layers, 2, key heads, capacity, head size].
    """
    past = DynamicCache(config=model.config)
    rooms = [None] * len(past.layers) if room is None else [(keys[None], values[None]) for keys, values in room]
    past.layers = [
        GrowingLayer(given) if type(layer) in GROWN else layer for layer, given in zip(past.layers, rooms, strict=True)
    ]
    return past
