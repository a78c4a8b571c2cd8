"""Devices without float64 (Apple's MPS): nothing is computed in it there."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prosparse.method.regularization import SparsityRegularization
from prosparse.system import devices


class WithoutDoubles(TorchDispatchMode):
    """The meta device as one that has no float64, as MPS says it."""

    def __torch_dispatch__(self, function, types, arguments=(), more=None):
        made = function(*arguments, **(more or {}))
        for value in tree_leaves(made):
            if isinstance(value, torch.Tensor) and value.device.type == "meta" and value.dtype == torch.float64:
                raise TypeError(f"{function}: cannot convert to float64: the device has none")
        return made


def test_the_stand_in_refuses_float64():
    with WithoutDoubles(), pytest.raises(TypeError, match="cannot convert to float64"):
        torch.zeros(2, device="meta").double()


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("cpu", torch.float64), ("cuda:1", torch.float64), ("mps", torch.float32), ("meta", torch.float32)],
)
def test_the_widest_float(device, dtype):
    assert devices.widest_float(torch.device(device)) == dtype


def test_regularized_training_needs_no_float64(tiny_llama):
    model = tiny_llama().to("meta")
    with WithoutDoubles():
        regularizer = SparsityRegularization(model)
        regularizer.measuring = True
        for factor in (0.0, 0.5):
            regularizer.factor = factor
            model(torch.zeros(1, 4, dtype=torch.int64, device="meta")).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
