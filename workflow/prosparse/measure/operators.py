"""Time the sparse operators against their baselines and limits (Table 2, right half).

The baselines, timed in the same rounds: torch's dense product, our own kernel with every row active, and a gather
followed by a dense product. The limits only read weights: *stream* reads as many contiguous weights, *rows* (CPUs only)
exactly the active rows.

There are two protocols. *cold*: every call uses different weights, which no cache still holds, as in decoding, where
other layers run in between. Calls take turns in random order and are compared round by round, so that a change in the
machine's speed affects all alike. *warm*: the authors' own, 10 warm-ups and 100 calls on the same weights, wall-clock
time of a synchronized call.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from prosparse.experiment.timings import OperatorsSpecification
from prosparse.measure.operator_arms import (
    Arm,
    Memory,
    Patterns,
    arms,
    last_level_cache,
    random_patterns,
    trained_patterns,
)
from prosparse.measure.quartiles import quartiles
from prosparse.published.settings import scale_of
from prosparse.system.errors import UserError

ROUNDS_TO_WARM_UP = 3
WARM_UPS, WARM_CALLS = 10, 100
CACHES = 4  # read this many times the last-level cache before reusing the same weights
LEAST_DENSITY = 0.01  # a sparser model's weights take no more memory than this one's


def timed_to_the_end(device: torch.device, call: Callable[[], Any]) -> float:
    """Wall-clock seconds, with the device idle before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def timed(device: torch.device, call: Callable[[], Any]) -> float:
    """Seconds: wall clock on a CPU, device events on a GPU."""
    if device.type == "cpu":
        return timed_to_the_end(device, call)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(1_000_000)  # until the host has launched everything, so that launch time is not measured
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


class Case:
    """One shape with some activation patterns: its arms and the times of their calls."""

    def __init__(self, names: dict[str, str], patterns: Patterns, dtype: torch.dtype, device: torch.device) -> None:
        self.names = names
        self.patterns = patterns
        self.arms = arms(patterns, dtype, device)
        self.seconds: dict[str, list[float]] = {name: [] for name in self.arms}
        self.rates: dict[str, list[float]] = {name: [] for name in self.arms}  # bytes/s

    def typical_pattern(self) -> int:
        """The pattern of median density."""
        counts = (self.patterns.values > 0).sum(dim=1)
        return int(counts.argsort(stable=True)[len(counts) // 2])

    def round(self, number: int, memory: Memory, order: random.Random) -> None:
        """Call every arm once, in random order, each with different weights."""
        pattern = number % len(self.patterns.values)
        for name, arm in order.sample(list(self.arms.items()), len(self.arms)):
            weights = memory.weight(*arm.shape), memory.weight(*arm.shape)
            elapsed = timed(memory.values.device, partial(arm.call, pattern, *weights))
            if number >= 0:
                self.seconds[name].append(elapsed)
                self.rates[name].append(arm.bytes(pattern) / elapsed)

    def cold(self) -> dict[str, Any]:
        """Medians and quartiles over the rounds; ratios compare calls of the same round."""

        def ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
            # ignore limits without anything to read, when no neuron was active
            return quartiles([a / b for a, b in zip(above, below, strict=True) if b > 0])

        measured = {}
        for name in self.arms:
            _, _, step = name.rpartition("_")
            others = [f"{kind}_{step}" for kind in ("torch", "dense", "gathered") if f"{kind}_{step}" in self.arms]
            seconds, rates = self.seconds[name], self.rates[name]
            limits = {limit: f"{limit}{self.arms[name].limits}" for limit in ("stream", "rows")}
            measured[name] = {
                "microseconds": quartiles([1e6 * s for s in seconds]),
                "gigabytes_per_second": quartiles([rate / 1e9 for rate in rates]),
                **{
                    f"share_of_{limit}": ratios(rates, self.rates[arm])
                    for limit, arm in limits.items()
                    if arm in self.arms
                },
                "times_faster_than": {o: ratios(self.seconds[o], seconds) for o in others if o != name},
            }
        return measured


def warm(found: dict[str, Arm], pattern: int, memory: Memory) -> dict[str, Any]:
    """The authors' protocol: the same weights and the same pattern in every call."""
    device = memory.values.device
    measured = {}
    for name, arm in found.items():
        call = partial(arm.call, pattern, memory.weight(*arm.shape), memory.weight(*arm.shape))
        for _ in range(WARM_UPS):
            call()
        seconds = [timed_to_the_end(device, call) for _ in range(WARM_CALLS)]
        measured[name] = {"microseconds": quartiles([1e6 * s for s in seconds])}
    return measured


def measure(specification: OperatorsSpecification) -> dict[str, Any]:
    """Measure every shape at its densities with random patterns, then the trained models with their own patterns."""
    settings = specification.settings
    dtype = getattr(torch, settings.dtype)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not hasattr(torch.ops.prosparse, "read_rows"):
        raise UserError(
            "the operators can be timed only where their native library can be built: see the warning above"
        )
    patterns: list[tuple[dict[str, str], Patterns]] = [
        ({"scale": scale, "patterns": "random"}, random_patterns(*shape, density))
        for scale, shape in settings.shapes.items()
        for density in specification.densities.get(scale, [])
    ]
    for row, trained in specification.trained.items():
        patterns.append(({"row": row, "patterns": str(trained.activation)}, trained_patterns(trained)))
    cases = [
        Case(names, Patterns(each.values[: settings.rounds], each.hidden_size), dtype, device)
        for names, each in patterns
    ]
    cache = last_level_cache(device)
    sparsest = max(min(case.patterns.density for case in cases), LEAST_DENSITY)
    memory = Memory(min(int(CACHES * cache / sparsest), settings.memory_limit), dtype, device)

    # one round over all cases at a time, so that every density meets the machine in the same state
    order, started = random.Random(0), time.perf_counter()
    for number in range(-ROUNDS_TO_WARM_UP, settings.rounds):
        for case in order.sample(cases, len(cases)):
            case.round(number, memory, order)
        elapsed = time.perf_counter() - started
        left = elapsed / (number + ROUNDS_TO_WARM_UP + 1) * (settings.rounds - number - 1)
        print(f"round {max(number + 1, 0)} of {settings.rounds}, about {left:.0f} s left", flush=True)

    measured: list[dict[str, Any]] = []
    seen = set()
    for case in cases:
        # a model's dense times hold for all its densities; the authors time neither gathers nor limits
        group = case.names.get("scale") or scale_of(case.names["row"]), case.patterns.shape
        kinds = ("sparse",) if group in seen else ("sparse", "dense", "torch")
        seen.add(group)
        timed_warm = {name: arm for name, arm in case.arms.items() if name.startswith(kinds)}
        measured.append(
            {
                **case.names,
                "hidden_size": case.patterns.shape[0],
                "intermediate_size": case.patterns.shape[1],
                "density": case.patterns.density,
                "cold": case.cold(),
                "warm": warm(timed_warm, case.typical_pattern(), memory),
            }
        )
        show(measured[-1])
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "dtype": settings.dtype,
        "rounds": settings.rounds,
        "last_level_cache_bytes": cache,
        "memory_bytes": memory.size,
        "large_pages": os.environ.get("THP_MEM_ALLOC_ENABLE") == "1",  # torch requests them from the system
        "cases": measured,
    }


def show(case: dict[str, Any]) -> None:
    steps = []
    for step in ("up", "down"):
        ours = case["cold"][f"sparse_{step}"]
        steps.append(
            f"{step} {ours['microseconds']['median']:.0f} us = {ours['share_of_stream']['median']:.0%} of the limit, "
            f"{ours['times_faster_than'][f'torch_{step}']['median']:.1f} x torch dense"
        )
    name, shape = case.get("scale") or case["row"], f"{case['hidden_size']} x {case['intermediate_size']}"
    print(f"{name} ({shape}), density {case['density']:.4f}: {'; '.join(steps)}", flush=True)
