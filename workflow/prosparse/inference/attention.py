"""One token's attention at the memory's speed, and a cache that does not copy all keys and values for every token.

transformers' own answers to both cost a token more, on a CPU, than the sparse FFN saves in models of a billion weights.
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

#: What a model's ``set_attn_implementation`` is given.
IMPLEMENTATION = "prosparse_decoding"
LEAST_CAPACITY = 256  # tokens
#: Layers of transformers' cache that ours replaces; the attention mask keeps what is outside a sliding window away.
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
    """transformers' attention function: one token over all its keys by our operator, the rest by torch's.

    ``query`` is [batch, heads, tokens, head size], ``key`` and ``value`` [batch, key heads, length, head size]; the
    result [batch, tokens, heads, head size].
    """
    batch, _, tokens, size = query.shape
    alone = batch == tokens == 1 and attention_mask is None and key.device.type == "cpu"
    # what else an architecture asks for (a bias on positions, values of another size), torch's attention computes
    plain = options.get("position_bias") is None and value.shape == key.shape and size == key.shape[-1]
    if not (alone and plain) or not hasattr(torch.ops.prosparse, "attention") or torch.is_grad_enabled():
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    scale = size**-0.5 if scaling is None else scaling
    return torch.ops.prosparse.attention(query[0, :, 0], key[0], value[0], scale)[None, None], None


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, sdpa_mask)


class GrowingLayer(DynamicLayer):
    """A layer of transformers' cache with room for tokens to come, so that a token copies its own keys alone."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.room: tuple[Tensor, Tensor] | None = None  # what keys and values are the beginning of

    def update(
        self, key_states: Tensor, value_states: Tensor, *arguments: Any, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """As the base class's: all keys and values, [batch, key heads, length, head size] each."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        total = length + key_states.shape[-2]
        held: Any = self.keys, self.values
        # after a selection of the batch, keys are a tensor of their own
        if self.room is None or self.room[0].shape[-2] < total or held[0].data_ptr() != self.room[0].data_ptr():
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


def cache(model: PreTrainedModel) -> Cache:
    """An empty one for this model, for ``past_key_values``; layers that are no attention keep the state they need."""
    past = DynamicCache(config=model.config)
    past.layers = [GrowingLayer() if type(layer) in GROWN else layer for layer in past.layers]
    return past
