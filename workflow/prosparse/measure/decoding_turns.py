"""Decoding modes that take turns, and the bandwidth between turns."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from prosparse.inference.attention import cache
from prosparse.inference.sparse_ffn import DecodingFFN, StreamingLinear

TURN = 16  # tokens that a mode generates per turn; the first is not timed


class _Clock(BaseStreamer):
    """Records when ``generate`` emits each token."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def put(self, value: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


class _Text:
    """The text that one mode generates from one prompt, one turn at a time."""

    def __init__(self, model: PreTrainedModel, prompt: Sequence[int]) -> None:
        self.ids = torch.tensor([list(prompt)])
        self.cache = cache(model)
        self.first_token = 0.0  # seconds
        self.turns: list[float] = []  # seconds per token, one value per turn

    def take_turn(self, model: PreTrainedModel, new_tokens: int) -> float:
        """Generate, and return the median seconds per token without the turn's first."""
        clock = _Clock()
        generator: Any = model
        self.ids = generator.generate(
            self.ids, attention_mask=torch.ones_like(self.ids), past_key_values=self.cache, streamer=clock,
            max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False, pad_token_id=0,
        )  # fmt: skip
        started, _, *tokens = clock.times  # the first call passes the prompt
        if not self.turns:
            self.first_token = tokens[0] - started
        self.turns.append((tokens[-1] - tokens[0]) / (len(tokens) - 1))
        return self.turns[-1]


def streams(modules: nn.Module) -> list[Tensor]:
    """The weights that a dense token reads, as matrices."""
    found = []
    for module in modules.modules():
        if isinstance(module, DecodingFFN):
            found += [module.gate_weight, module.neurons.flatten(1)]
        elif isinstance(module, (StreamingLinear, nn.Linear)):
            found.append(module.weight)
    return found


def _bandwidth(weights: Sequence[Tensor]) -> float:
    """Bytes/s when reading the weights one after the other."""
    rows = {len(weight): torch.arange(len(weight)) for weight in weights}
    started = time.perf_counter()
    for weight in weights:
        torch.ops.prosparse.read_rows(weight, rows[len(weight)])
    return sum(weight.numel() * weight.element_size() for weight in weights) / (time.perf_counter() - started)


class Arm:
    """One way to decode: the times of its texts, and the bandwidth measured in the same turns."""

    def __init__(self, begin: Callable[[], None]) -> None:
        self.begin = begin
        self.seconds: list[float] = []  # seconds per token, one value per turn
        self.first_tokens: list[float] = []
        self.rates: list[float] = []  # tokens per second of each text
        self.texts: list[list[int]] = []
        self.bandwidths: list[float] = []  # bytes/s in each turn


def decode(
    model: PreTrainedModel, arms: dict[str, Arm], prompts: Sequence[Sequence[int]], new_tokens: int, label: str
) -> None:
    order, weights = random.Random(0), streams(model)
    for arm in arms.values():  # warm-up
        arm.begin()
        _Text(model, prompts[0]).take_turn(model, 3)
    for number, prompt in enumerate(prompts):
        texts = {name: _Text(model, prompt) for name in arms}
        while (done := len(next(iter(texts.values())).ids[0]) - len(prompt)) < new_tokens:
            bandwidth = _bandwidth(weights)
            for name, arm in order.sample(list(arms.items()), len(arms)):
                arm.begin()
                arm.seconds.append(texts[name].take_turn(model, min(TURN, new_tokens - done)))
                arm.bandwidths.append(bandwidth)
        for name, arm in arms.items():
            arm.first_tokens.append(texts[name].first_token)
            arm.rates.append(1 / statistics.fmean(texts[name].turns))
            arm.texts.append(texts[name].ids[0, len(prompt) :].tolist())
        rates = ", ".join(f"{name} {statistics.median(arm.rates):.2f}" for name, arm in arms.items())
        print(f"{label}: {number + 1} of {len(prompts)} prompts, tokens/s: {rates}", flush=True)


@contextmanager
def nothing_read(model: nn.Module) -> Iterator[None]:
    """Skip the operators that read weights, so that a token's time is all the rest."""
    changed = [module for module in model.modules() if isinstance(module, (StreamingLinear, DecodingFFN))]
    for module in changed:
        features = module.out_features if isinstance(module, StreamingLinear) else module.neurons.shape[2]
        module.forward = lambda x, features=features: x.new_zeros(*x.shape[:-1], features)  # type: ignore[method-assign, misc]
    try:
        yield
    finally:
        for module in changed:
            del module.forward
