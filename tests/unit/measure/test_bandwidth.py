"""The probe of the memory's rate: it reads everything, and keeps the fastest way."""

from __future__ import annotations

import functools
import operator

import pytest
import torch

from prosparse.measure import bandwidth
from prosparse.system.errors import UserError


@pytest.mark.parametrize("streams", [1, 3, 8])
@pytest.mark.parametrize("ahead", [0, 2048])
@pytest.mark.parametrize("words", [8, 40, 1000, 3 << 17])
def test_every_word_is_read_once(words, ahead, streams):
    memory = torch.randint(-(2**62), 2**62, (words,), generator=torch.Generator().manual_seed(words))
    found = torch.ops.prosparse.read_memory(memory, streams, ahead)
    assert found == functools.reduce(operator.xor, memory.tolist())


def test_the_fastest_way_is_kept(monkeypatch):
    def rate(memory, streams, ahead):
        return 5e9 if (streams, ahead) == (4, 512) and memory is huge_memory else 1e9

    ordinary, huge_memory = torch.zeros(8, dtype=torch.int64), torch.zeros(8, dtype=torch.int64)
    monkeypatch.setattr(bandwidth, "_memory", lambda size, huge_pages: huge_memory if huge_pages else ordinary)
    monkeypatch.setattr(bandwidth, "_rate", rate)
    found = bandwidth.probe(64, 3)
    assert (found.streams, found.ahead, found.huge_pages, found.rate()) == (4, 512, True, 5e9)
    assert found.memory is huge_memory


def test_rates_are_of_this_machine():
    found = bandwidth.probe(1 << 20, 1)
    assert found.rate() > 0


def test_without_native_operators_there_is_no_probe(monkeypatch):
    monkeypatch.setattr(torch.ops, "prosparse", object())
    with pytest.raises(UserError, match="only where the native operators can be built"):
        bandwidth.probe(1 << 21, 1)


def test_memory_that_is_no_whole_line_is_refused():
    with pytest.raises(ValueError, match="a multiple of 64 bytes"):
        torch.ops.prosparse.read_memory(torch.zeros(7, dtype=torch.int64), 1, 0)
