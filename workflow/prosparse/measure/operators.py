"""Time the sparse operators against their baselines and limits (Table 2, right half).

The baselines, timed in the same rounds: torch's dense product, our own kernel with every row active, and a gather
followed by a dense product. The limits only read weights: *stream* reads as many contiguous weights, *rows* (CPUs only)
exactly the active rows.

There are two protocols. *cold*: every call uses different weights, which no cache still holds, as in decoding, where
other layers run in between. Calls take turns in random order and are compared round by round, so that a change in the
machine's speed affects all alike. *warm*: the authors' own, 10 warm-ups and 100 calls on the same weights, wall-clock
time of a synchronised call.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prosparse.data.mixture import load_heldout
from prosparse.experiment.specifications import OperatorsSpecification, TrainedPatterns
from prosparse.measure.quartiles import quartiles
from prosparse.method.activations import gated_ffns
from prosparse.models.load import load
from prosparse.operators import gathered, sparse_down, sparse_ffn, sparse_up
from prosparse.system.errors import UserError

ROUNDS_TO_WARM_UP = 3
WARM_UPS, WARM_CALLS = 10, 100
PATTERNS = 32  # activation patterns per case, one per round in turn
CACHES = 4  # read this many times the last-level cache before reusing the same weights


def last_level_cache(device: torch.device) -> int:
    """Total bytes of the processor's last-level caches; 32 MiB if the machine does not report them."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes: dict[tuple[int, str], int] = {}  # by level and the cores that share it
    for cache in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cache/index*"):
        level, shared, size = (
            (cache / name).read_text(encoding="utf-8").strip() for name in ("level", "shared_cpu_list", "size")
        )
        sizes[int(level), shared] = int(size.removesuffix("K")) << 10
    last = max((level for level, _ in sizes), default=0)
    return sum(size for (level, _), size in sizes.items() if level == last) or 32 << 20


class Memory:
    """Weights for successive calls, each from memory that no cache still holds."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        block = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)).div_(64).to(dtype).to(device)
        elements = -(-size // (block.numel() * block.element_size())) * block.numel()
        self.values = torch.empty(elements, dtype=dtype, device=device)
        self.values.view(-1, block.numel()).copy_(block)
        self.size = elements * block.element_size()
        self._at = 0

    def weight(self, rows: int, columns: int) -> Tensor:
        if self._at + rows * columns > self.values.numel():
            self._at = 0
        weight = self.values[self._at : self._at + rows * columns].view(rows, columns)
        self._at += rows * columns
        return weight


@dataclass(frozen=True)
class Patterns:
    """Gate values of some tokens, [tokens, intermediate_size]: positive if active, else 0."""

    values: Tensor
    hidden_size: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.hidden_size, self.values.shape[1]

    @property
    def density(self) -> float:
        return int((self.values > 0).count_nonzero()) / self.values.numel()


def random_patterns(hidden_size: int, intermediate_size: int, density: float) -> Patterns:
    """Patterns with exactly ``round(density * intermediate_size)`` active neurons each, at random positions."""
    generator = torch.Generator().manual_seed(1)
    order = torch.rand(PATTERNS, intermediate_size, generator=generator).argsort(dim=1)
    values = torch.rand(PATTERNS, intermediate_size, generator=generator) + 0.1
    return Patterns(torch.where(order < round(density * intermediate_size), values, 0), hidden_size)


@torch.inference_mode()
def trained_patterns(trained: TrainedPatterns) -> Patterns:
    """A trained model's activated gates on held-out tokens of every corpus, from all its layers."""
    model = load(trained.checkpoint, trained.activation)
    gates: list[Tensor] = []
    ffns = gated_ffns(model)
    for ffn in ffns:
        ffn.activation.register_forward_hook(lambda module, inputs, output: gates.append(output.flatten(0, 1).float()))
    rows = torch.cat([rows[:1] for rows in load_heldout(trained.tokens).values()])
    model(input_ids=rows, use_cache=False)
    each = -(-PATTERNS // len(ffns))
    chosen = torch.linspace(0, rows.numel() - 1, each + 2)[1:-1].long()
    values = torch.cat([layer[chosen] for layer in gates])
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(1))  # any prefix samples all layers
    return Patterns(values[order], model.config.hidden_size)


@dataclass(frozen=True)
class Arm:
    """One way to do a step (or only read its weights): the call for a given pattern number."""

    call: Callable[[int, Tensor, Tensor], Any]
    bytes: Callable[[int], int]  # bytes of the weights it must read
    shape: tuple[int, int]  # of the weights
    limits: str = ""  # suffix of its limits' names


def arms(patterns: Patterns, dtype: torch.dtype, device: torch.device) -> dict[str, Arm]:
    """Arms by name; the suffix ``_up`` or ``_down`` names the step."""
    values = patterns.values.to(dtype).to(device)
    hidden, intermediate = patterns.shape
    x = torch.randn(1, hidden, generator=torch.Generator().manual_seed(2)).to(dtype).to(device)
    gates = [torch.where(row > 0, row, -1)[None] for row in values]
    x1 = [row[None].contiguous() for row in values]
    active = [row.nonzero().squeeze(1) for row in values]
    counts = [len(rows) for rows in active]
    every = torch.ones(1, intermediate, dtype=dtype, device=device)
    row_bytes = values.element_size() * hidden

    def sparse(p: int) -> int:
        return counts[p] * row_bytes

    def both(p: int) -> int:
        return 2 * counts[p] * row_bytes

    def dense(p: int) -> int:
        return intermediate * row_bytes

    shape, side_by_side = (intermediate, hidden), (intermediate, 2 * hidden)
    linear = nn.functional.linear
    found = {
        "sparse_up": Arm(lambda p, w, _: sparse_up(x, gates[p], w, 0.0), sparse, shape),
        "sparse_down": Arm(lambda p, w, _: sparse_down(x1[p], w), sparse, shape),
        "sparse_ffn": Arm(lambda p, w, v: sparse_ffn(x, gates[p], w, v, 0.0), both, shape, "_both"),
        # each neuron's rows of W_1 and W_2^T are adjacent in memory
        "sparse_ffn_side_by_side": Arm(
            lambda p, w, _: sparse_ffn(x, gates[p], w[:, :hidden], w[:, hidden:], 0.0), both, side_by_side, "_both"
        ),
        "dense_up": Arm(lambda p, w, _: sparse_up(x, every, w, 0.0), dense, shape),
        "dense_down": Arm(lambda p, w, _: sparse_down(every, w), dense, shape),
        "gathered_up": Arm(lambda p, w, _: gathered.sparse_up(x, gates[p], w, 0.0), sparse, shape),
        "gathered_down": Arm(lambda p, w, _: gathered.sparse_down(x1[p], w), sparse, shape),
        "torch_up": Arm(lambda p, w, _: linear(x, w), dense, shape),
        "torch_down": Arm(lambda p, w, _: linear(every, w), dense, (hidden, intermediate)),
    }
    if device.type == "cpu":
        first = [torch.arange(count) for count in counts]

        def stream(p: int, weight: Tensor, _: Tensor) -> int:
            return torch.ops.prosparse.read_rows(weight, first[p])

        def rows(p: int, weight: Tensor, _: Tensor) -> int:
            return torch.ops.prosparse.read_rows(weight, active[p])

        found["rows"] = Arm(rows, sparse, shape)
        found["rows_both"] = Arm(rows, both, side_by_side, "_both")
    else:

        def stream(p: int, weight: Tensor, _: Tensor) -> Tensor:  # type: ignore[misc]
            return weight[: counts[p]].view(torch.int32).sum()

    found["stream"] = Arm(stream, sparse, shape)
    found["stream_both"] = Arm(stream, both, side_by_side, "_both")
    return found


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
        for density in specification.densities[scale]
    ]
    for row, trained in specification.trained.items():
        patterns.append(({"row": row, "patterns": str(trained.activation)}, trained_patterns(trained)))
    cases = [
        Case(names, Patterns(each.values[: settings.rounds], each.hidden_size), dtype, device)
        for names, each in patterns
    ]
    cache = last_level_cache(device)
    sparsest = min(density for densities in specification.densities.values() for density in densities)
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
        # a shape's dense times hold for all its densities; the authors time neither gathers nor limits
        group = case.names.get("scale"), case.patterns.shape
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
