"""What runs ask of a profile's nodes, against every way to divide their batch."""

from __future__ import annotations

from itertools import product

import pytest

from prosparse.experiment.training import Training
from prosparse.training.share import part, usable


def training(batch_size: int, micro_batch_size: int) -> Training:
    return Training(learning_rate=1e-3, batch_size=batch_size, micro_batch_size=micro_batch_size)


@pytest.mark.parametrize(
    ("batch", "micro", "given", "used"),
    [
        (4, 4, (1, 8), (1, 1)),  # laptop on a node of eight
        (512, 2, (4, 8), (4, 8)),  # the paper's 7B
        (248, 1, (2, 8), (1, 8)),  # 31 x 8: a second node has nothing to do
        (24, 1, (3, 4), (3, 4)),
        (6, 1, (1, 4), (1, 3)),
        (7, 1, (8, 1), (7, 1)),
    ],
)
def test_usable(batch, micro, given, used):
    assert usable(training(batch, micro), *given) == used


@pytest.mark.parametrize(("batch", "micro", "nodes", "processes"), product((5, 12, 36), (1,), (1, 3), (1, 2, 8)))
def test_usable_divides_the_batch_and_nothing_larger_does(batch, micro, nodes, processes):
    chosen = training(batch, micro)
    used = usable(chosen, nodes, processes)
    chosen.accumulation_steps(used[0] * used[1])  # raises if it does not divide
    ways = product(range(1, nodes + 1), range(1, processes + 1))
    assert used[0] * used[1] == max(n * p for n, p in ways if batch % (micro * n * p) == 0)


@pytest.mark.parametrize(
    ("value", "used", "expected"),
    [("gpu:a100:8", 2, "gpu:a100:2"), ("gpu:8", 1, "gpu:1"), ("gpu:a100:8", 8, "gpu:a100:8"), (64, 3, 24), (10, 3, 4)],
)
def test_a_part_of_what_eight_processes_have(value, used, expected):
    assert part(value, used, 8) == expected
