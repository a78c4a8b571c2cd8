"""Continue texts, with one native call per token where the model allows it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from prosparse.inference.attention import cache
from prosparse.inference.decoding import Decoder
from prosparse.inference.rotary import rereads_at


class Text:
    """A text that a decoder reads, in the decoder's current mode.

    The first tokens are read at once, by transformers' modules.

    Args:
        capacity: tokens that can be read.
    """

    def __init__(self, decoder: Decoder, capacity: int) -> None:
        self._decoder, self._tokens = decoder, list[int]()
        native = decoder.native
        self._native = native if native is not None and capacity <= native.longest else None
        self._room = self._table = None
        if self._native is not None:
            self._room, self._table = self._native.room(capacity), self._native.table(capacity)
        self._past = cache(decoder.model, self._room)

    @torch.inference_mode()
    def read(self, tokens: Sequence[int]) -> Tensor:
        """Logits [vocabulary] after further tokens; after the first call, one at a time."""
        position = len(self._tokens)
        self._tokens += tokens
        if self._native is not None and position > 0:
            (token,) = tokens
            assert self._room is not None
            assert self._table is not None
            return self._native.step(token, position, self._room, self._table, self._decoder.mode)
        model: Any = self._decoder.model
        if position in range(1, rereads_at(model) + 1) and len(self._tokens) > rereads_at(model):
            tokens, self._past = self._tokens, cache(model)
        given = torch.tensor([list(tokens)], device=model.device)
        return model(input_ids=given, past_key_values=self._past, use_cache=True, logits_to_keep=1).logits[0, -1]


def choose(logits: Tensor, temperature: float) -> int:
    """The most likely token if the temperature is 0, else one drawn from the whole distribution, like transformers."""
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits.float() / temperature).softmax(-1), 1))


def continued(
    text: Text,
    given: Sequence[int],
    new_tokens: int,
    temperature: float = 0.0,
    ends: Container[int] = (),
    never: Sequence[int] = (),
) -> Iterator[int]:
    """The tokens that follow ``given``, each as soon as it is known.

    Args:
        new_tokens: the maximum number.
        ends: tokens after which the text ends.
        never: tokens that are not chosen.
    """
    excluded = torch.tensor(list(never), dtype=torch.long)
    for _ in range(new_tokens):
        logits = text.read(given)
        if never:
            logits = logits.index_fill(0, excluded, -torch.inf)
        token = choose(logits, temperature)
        yield token
        if token in ends:
            return
        given = [token]


def greedy(decoder: Decoder, prompt: Sequence[int], new_tokens: int) -> list[int]:
    """Greedy continuation of a prompt's token ids, without stopping at the end of text."""
    return list(continued(Text(decoder, len(prompt) + new_tokens), prompt, new_tokens))
