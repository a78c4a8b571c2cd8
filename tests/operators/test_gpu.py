"""The Triton kernels against the reference: in Triton's interpreter on any machine, and on a GPU where there is one.

Only the kernels are exchanged for interpreted ones, one test at a time: no environment variable is set, so other
tests of the same process still compile.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cases import DTYPES, Case, assert_matches_reference, cases, random_case

pytest.importorskip("triton")
import triton.language as tl
from triton.runtime import interpreter

from prosparse.operators import gpu

KERNELS = ("compact_kernel", "up_kernel", "down_kernel", "add_splits_kernel")
EVERY_CASE = [pytest.param(case, id=f"{str(dtype)[6:]}-{case}") for dtype in DTYPES for case in cases(dtype)]
#: The interpreter is slow, and the dtype changes nothing about sizes: those are in the first of them alone.
INTERPRETED = [p for i, p in enumerate(EVERY_CASE) if i < len(cases(DTYPES[0])) or "batch" not in p.values[0].name]
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def _convert_bfloat16(data, input_dtype, output_dtype, rounding_mode):
    """As the hardware does; the interpreter's own truncates, and gets denormal numbers wrong."""
    if str(output_dtype) == "fp32":
        return torch.from_numpy(data.view(np.int16)).view(torch.bfloat16).float().numpy()
    return torch.from_numpy(data).to(torch.bfloat16).view(torch.int16).numpy()


@pytest.fixture
def interpreted(monkeypatch):
    """Operators on CPU tensors for a number of multiprocessors; memory that nobody wrote is NaN or the largest int."""
    for name in KERNELS:
        monkeypatch.setattr(gpu, name, interpreter.InterpretedFunction(getattr(gpu, name).fn))
    # these three of Triton's functions are kernels' code themselves; here they are what they are made of
    add = tl.standard._sum_combine
    monkeypatch.setattr(tl, "zeros", lambda shape, dtype: tl.full(shape, 0, dtype))
    monkeypatch.setattr(tl, "sum", lambda values, axis=None: tl.reduce(values, axis, add))
    monkeypatch.setattr(tl, "cumsum", lambda values, axis=0: tl.associative_scan(values, axis, add))
    monkeypatch.setattr(interpreter, "_convert_float", _convert_bfloat16)
    torch.use_deterministic_algorithms(True)  # fills uninitialized memory
    assert torch.empty(100).isnan().all()

    def operators(multiprocessors: int = 1) -> SimpleNamespace:
        return SimpleNamespace(
            sparse_up=lambda *arguments: gpu.run(gpu.plan_up(*arguments, multiprocessors)),
            sparse_down=lambda *arguments: gpu.run(gpu.plan_down(*arguments, multiprocessors)),
            sparse_ffn=lambda *arguments: gpu.run(gpu.plan_ffn(*arguments, multiprocessors)),
        )

    with np.errstate(all="ignore"):  # infinities and NaN are meant
        yield operators
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks small enough for the cases to need several, the last partly filled; few programs, as each is slow."""
    monkeypatch.setattr(gpu, "UP_PROGRAMS_PER_MULTIPROCESSOR", 2)
    monkeypatch.setattr(gpu, "DOWN_PROGRAMS_PER_MULTIPROCESSOR", 2)
    monkeypatch.setattr(gpu, "COMPACT_BLOCK", 64)
    monkeypatch.setattr(gpu, "UP_BLOCK_HIDDEN", 128)
    monkeypatch.setattr(gpu, "DOWN_BLOCK_HIDDEN", 64)
    monkeypatch.setattr(gpu, "SPLITS_BLOCK", 128)


@pytest.mark.parametrize("case", INTERPRETED)
def test_case(case, interpreted, small_blocks):
    assert_matches_reference(case, interpreted())


def test_blocks_of_the_real_size(interpreted):
    wide = random_case("wide", torch.bfloat16, 2, 1300, 24, density=0.3)
    long = random_case("long", torch.bfloat16, 2, 8, gpu.COMPACT_BLOCK + 100, density=0.002)
    for case in (wide, long):
        assert_matches_reference(case, interpreted())


def test_number_of_programs_changes_no_x1(interpreted, small_blocks):
    case = random_case("programs", torch.float32, 3, 200, 24, density=0.2)
    arguments = (case.x, case.gate, case.up_weight, case.threshold)
    expected = interpreted(1).sparse_up(*arguments)
    for multiprocessors in (2, 16):  # more programs than neurons, too
        assert torch.equal(interpreted(multiprocessors).sparse_up(*arguments), expected)
        assert_matches_reference(case, interpreted(multiprocessors))


def test_list_of_active_neurons_ascends_and_is_complete(interpreted, small_blocks):
    case = random_case("list", torch.float32, 3, 1, 257, density=0.2)
    _, (compact, *_) = planned = gpu.plan_up(case.x, case.gate, case.up_weight, case.threshold, 1)
    gpu.run(planned)
    expected = [j for j, column in enumerate(case.gate.T.tolist()) if max(column) >= case.threshold]
    assert compact.arguments["count"].item() == len(expected)
    assert compact.arguments["neurons"][: len(expected)].tolist() == expected


def test_plans_do_not_read_tensors():
    """Tensors without data suffice, so nothing waits for the device: the launches can be captured in a CUDA graph."""
    x, gate, weight = (torch.empty(2, 64), torch.empty(2, 96), torch.empty(96, 64))
    x, gate, weight = (t.to("meta") for t in (x, gate, weight))
    output, launches = gpu.plan_ffn(x, gate, weight, weight, 0.01, multiprocessors=1)
    assert output.shape == (2, 64)
    assert len(launches) == 4


def arguments(**changes) -> tuple:
    case = replace(random_case("valid", torch.float32, 2, 8, 16, density=0.5), **changes)
    return case.x, case.gate, case.up_weight, case.down_weight_transposed, case.threshold


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.zeros(9, 8), "gate": torch.zeros(9, 16)}, "1 to 8 tokens"),
        ({"x": torch.zeros(2, 8, dtype=torch.bfloat16)}, "the same for all"),
        ({"gate": torch.zeros(2, 15)}, "gate.shape"),
        ({"up_weight": torch.zeros(16, 9)}, "x.shape"),
        ({"up_weight": torch.zeros(8, 16).T}, "contiguous rows"),
        ({"down_weight_transposed": torch.zeros(15, 8)}, "down_weight_transposed.shape"),
        ({"threshold": -0.1}, "threshold"),
    ],
)
def test_bad_arguments_are_refused_before_any_launch(changes, message):
    with pytest.raises(ValueError, match=message):
        gpu.plan_ffn(*arguments(**changes), multiprocessors=1)


@pytest.mark.parametrize("name", ["sparse_up", "sparse_down", "sparse_ffn"])
def test_registered_for_cuda(name):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"prosparse::{name}", "CUDA")


def to_gpu(case: Case) -> Case:
    """The case on the GPU with its strides and offsets, which Tensor.to would not keep."""

    def move(tensor: torch.Tensor) -> torch.Tensor:
        size = tensor.untyped_storage().nbytes() // tensor.itemsize
        whole = tensor.as_strided((size,), (1,), 0).cuda()
        return whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    tensors = map(move, (case.x, case.gate, case.up_weight, case.down_weight_transposed))
    return Case(case.name, *tensors, case.threshold)


@on_a_gpu
@pytest.mark.parametrize("case", EVERY_CASE)
def test_case_on_a_gpu(case):
    assert_matches_reference(to_gpu(case), torch.ops.prosparse)


@on_a_gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_llama_size_on_a_gpu_repeats_bit_for_bit(dtype):
    case = to_gpu(random_case("llama", dtype, 1, 4096, 11008, density=0.1))
    assert_matches_reference(case, torch.ops.prosparse)
    inputs = (case.x, case.gate, case.up_weight, case.down_weight_transposed, case.threshold)
    expected = torch.ops.prosparse.sparse_ffn(*inputs)
    for _ in range(20):
        assert torch.equal(torch.ops.prosparse.sparse_ffn(*inputs), expected)


@on_a_gpu
def test_a_cuda_graph_follows_the_gates():
    first, second = (to_gpu(random_case("graph", torch.bfloat16, 1, 256, 1000, density)) for density in (0.1, 0.6))
    inputs = (first.x, first.gate, first.up_weight, first.down_weight_transposed, first.threshold)
    torch.ops.prosparse.sparse_ffn(*inputs)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = torch.ops.prosparse.sparse_ffn(*inputs)
    first.gate.copy_(second.gate)
    graph.replay()
    assert torch.equal(output, torch.ops.prosparse.sparse_ffn(*inputs))
