"""A prepared model as one native object, which reads a token per call."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prosparse.inference import rotary
from prosparse.inference.families import family
from prosparse.inference.layers import UnknownLayer, describe
from prosparse.inference.sparse_ffn import MODES

#: As decoder.cpp numbers them.
NUMBERS, NOTHING = {mode: number for number, mode in enumerate(MODES)}, len(MODES)


class NativeDecoder:
    """A prepared model's embedding, decoder layers and head in native code; shares the weights.

    Raises:
        UnknownLayer: the model computes something that the native code does not.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        if not hasattr(torch.ops.prosparse, "attention") or model.device.type != "cpu":
            raise UnknownLayer("the native decoder needs a CPU and the native operators")
        whole, layers = describe(model)
        self.reads_weights = True  # False: skips all products, to measure the time of the rest
        self.model, self.longest = model, rotary.longest(model)
        numbers = layers[0].numbers
        self._heads, self._head_size, self._layers = int(numbers["kv_heads"]), int(numbers["head_size"]), len(layers)
        self._native = torch.classes.prosparse.Decoder(
            whole.tensors, whole.numbers, [each.tensors for each in layers], [each.numbers for each in layers]
        )
        found = family(model)
        assert found is not None
        self._family = found

    def room(self, capacity: int) -> Tensor:
        """Memory for the keys and values of ``capacity`` tokens, [layers, 2, key heads, capacity, head size]."""
        return torch.empty(self._layers, 2, self._heads, capacity, self._head_size, dtype=self.model.dtype)

    def step(self, token: int, position: int, room: Tensor, table: Tensor, mode: str) -> Tensor:
        """Logits [vocabulary] after one more token, whose keys and values are added to ``room``."""
        number = NUMBERS[mode] if self.reads_weights else NOTHING
        return self._family.logits(self.model, self._native.step(token, position, room, table, number))

    def table(self, capacity: int) -> Tensor:
        """Cosines and sines of so many positions; at most ``longest``."""
        return rotary.table(self.model, capacity, self._family.repeats)

    def layer(self, index: int, hidden: Tensor, position: int, room: Tensor, table: Tensor, mode: str) -> Tensor:
        """One layer's output for a token's hidden state [hidden_size], whose keys and values are added to ``room``."""
        return self._native.layer(index, hidden, position, room, table, NUMBERS[mode])
