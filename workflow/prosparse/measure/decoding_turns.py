"""Decoding modes and engines that take turns, and the memory's bandwidth between turns."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from prosparse.inference.attention import cache
from prosparse.inference.decoding import Decoder
from prosparse.inference.generation import Text, continued
from prosparse.inference.sparse_ffn import DecodingFFN, StreamingLinear
from prosparse.measure import bandwidth
from prosparse.operators.quantized import columns

TURN = 16  # tokens that a mode generates per turn; the first is not timed


class Writing:
    """The text that one mode writes from one prompt, one turn at a time."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self.ids = list(prompt)
        self.first_token = 0.0  # seconds
        self.turns: list[float] = []  # seconds per token, one value per turn

    def take_turn(self, new_tokens: int) -> float:
        """Write, and return the mean seconds per token without the turn's first."""
        started = time.perf_counter()
        tokens = self.write(new_tokens)
        if not self.turns:
            self.first_token = tokens[0] - started
        self.turns.append((tokens[-1] - tokens[0]) / (len(tokens) - 1))
        return self.turns[-1]

    def write(self, new_tokens: int) -> list[float]:
        """Add tokens to ``ids``; returns when each was known."""
        raise NotImplementedError


class Generated(Writing):
    """Written by transformers' own ``generate``."""

    def __init__(self, model: PreTrainedModel, prompt: Sequence[int]) -> None:
        super().__init__(prompt)
        self._model: Any = model
        self._cache = cache(model)

    def write(self, new_tokens: int) -> list[float]:
        clock, given = _Clock(), torch.tensor([self.ids])
        ids = self._model.generate(
            given, attention_mask=torch.ones_like(given), past_key_values=self._cache, streamer=clock,
            max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False, pad_token_id=0,
        )  # fmt: skip
        self.ids = ids[0].tolist()
        return clock.times[1:]  # the first call passes the prompt


class Decoded(Writing):
    """Written by our greedy loop."""

    def __init__(self, decoder: Decoder, prompt: Sequence[int], new_tokens: int) -> None:
        super().__init__(prompt)
        self._text, self._unread = Text(decoder, len(prompt) + new_tokens), list(prompt)
        ends = decoder.model.generation_config.eos_token_id  # type: ignore[union-attr]
        # as under ``generate``'s min_new_tokens
        self._never = ends if isinstance(ends, list) else [] if ends is None else [ends]

    def write(self, new_tokens: int) -> list[float]:
        times = []
        for token in continued(self._text, self._unread, new_tokens, never=self._never):
            times.append(time.perf_counter())
            self.ids.append(token)
        self._unread = self.ids[-1:]
        return times


class _Clock(BaseStreamer):
    """Records when ``generate`` emits each token."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


class Arm:
    """One way to decode: the times of its texts, and the bandwidth measured in the same turns.

    Args:
        write: begins the text of a prompt, with at most the given number of new tokens.
        begin: called before each turn.
    """

    def __init__(
        self, write: Callable[[Sequence[int], int], Writing], begin: Callable[[], None] = lambda: None
    ) -> None:
        self.write, self.begin = write, begin
        self.seconds: list[float] = []  # seconds per token, one value per turn
        self.first_tokens: list[float] = []
        self.rates: list[float] = []  # tokens per second of each text
        self.texts: list[list[int]] = []
        self.bandwidths: list[float] = []  # bytes/s in each turn


def decode(arms: dict[str, Arm], prompts: Sequence[Sequence[int]], new_tokens: int, label: str) -> None:
    """Let each arm continue each prompt, in turns whose order is random."""
    order, probe = random.Random(0), bandwidth.probe()
    for arm in arms.values():  # warm-up
        arm.begin()
        arm.write(prompts[0], 3).take_turn(3)
    for number, prompt in enumerate(prompts):
        texts = {name: arm.write(prompt, new_tokens) for name, arm in arms.items()}
        while (done := len(next(iter(texts.values())).ids) - len(prompt)) < new_tokens:
            rate = probe.rate()
            for name, arm in order.sample(list(arms.items()), len(arms)):
                arm.begin()
                arm.seconds.append(texts[name].take_turn(min(TURN, new_tokens - done)))
                arm.bandwidths.append(rate)
        for name, arm in arms.items():
            arm.first_tokens.append(texts[name].first_token)
            arm.rates.append(1 / statistics.fmean(texts[name].turns))
            arm.texts.append(texts[name].ids[len(prompt) :])
        rates = ", ".join(f"{name} {statistics.median(arm.rates):.2f}" for name, arm in arms.items())
        print(f"{label}: {number + 1} of {len(prompts)} prompts, tokens/s: {rates}", flush=True)


@contextmanager
def nothing_read(decoder: Decoder) -> Iterator[None]:
    """Skip the operators that read weights, so that a token's time is all the rest."""
    changed = [module for module in decoder.model.modules() if isinstance(module, (StreamingLinear, DecodingFFN))]
    for module in changed:
        features = module.out_features if isinstance(module, StreamingLinear) else columns(module.neurons)
        module.forward = lambda x, features=features: x.new_zeros(*x.shape[:-1], features)  # type: ignore[method-assign, misc]
    if decoder.native is not None:
        decoder.native.reads_weights = False
    try:
        yield
    finally:
        for module in changed:
            del module.forward
        if decoder.native is not None:
            decoder.native.reads_weights = True
