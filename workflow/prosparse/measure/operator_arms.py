"""What the operator timings call: activation patterns, cold weights, and the arms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prosparse.data.mixture import load_rows
from prosparse.experiment.timings import TrainedPatterns
from prosparse.method.activations import gated_ffns
from prosparse.models.load import load
from prosparse.operators import gathered, sparse_down, sparse_ffn, sparse_up

PATTERNS = 32  # activation patterns per case, one per round in turn


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
    rows = torch.cat([rows[:1] for rows in load_rows(trained.tokens).values()])
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
