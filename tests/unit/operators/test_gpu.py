"""The Triton kernels against the reference: in Triton's interpreter on any machine, and on a GPU where there is one.

Only the kernels are exchanged for interpreted ones, one test at a time: no environment variable is set, so other
tests of the same process still compile.
"""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.operator_cases import (
    DTYPES,
    Case,
    Masked,
    assert_linear_matches_reference,
    assert_matches_reference,
    cases,
    masked_cases,
    random_case,
    random_masked,
)

pytest.importorskip("triton")
import triton.language as tl
from triton.runtime import interpreter

from prosparse.operators import gpu, reference

KERNELS = ("compact_kernel", "up_kernel", "down_kernel", "add_splits_kernel")
EVERY_CASE = [pytest.param(case, id=f"{str(dtype)[6:]}-{case}") for dtype in DTYPES for case in cases(dtype)]
EVERY_MASKED = [pytest.param(case, id=f"{str(dtype)[6:]}-{case}") for dtype in DTYPES for case in masked_cases(dtype)]
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def _interpreted(every: list) -> list:
    """The interpreter is slow, and the dtype changes nothing about sizes: those are in the first of them alone."""
    return [p for i, p in enumerate(every) if i < len(every) // len(DTYPES) or "batch" not in p.values[0].name]


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
            sparse_up=lambda *arguments, **options: gpu.run(gpu.plan_up(*arguments, multiprocessors, **options)),
            sparse_down=lambda *arguments: gpu.run(gpu.plan_down(*arguments, multiprocessors)),
            sparse_ffn=lambda *arguments, **options: gpu.run(gpu.plan_ffn(*arguments, multiprocessors, **options)),
            linear=lambda *arguments: gpu.run(gpu.plan_linear(*arguments, multiprocessors)),
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


@pytest.mark.parametrize("case", _interpreted(EVERY_CASE))
def test_case(case, interpreted, small_blocks):
    assert_matches_reference(case, interpreted())


@pytest.mark.parametrize("case", _interpreted(EVERY_MASKED))
def test_linear_with_a_score(case, interpreted, small_blocks):
    assert_linear_matches_reference(case, interpreted())


def test_blocks_of_the_real_size(interpreted):
    wide = random_case("wide", torch.bfloat16, 2, 1300, 24, density=0.3)
    long = random_case("long", torch.bfloat16, 2, 8, gpu.COMPACT_BLOCK + 100, density=0.002)
    for case in (wide, long):
        assert_matches_reference(case, interpreted())
    assert_linear_matches_reference(random_masked("wide", torch.bfloat16, 2, 1300, 24, density=0.3), interpreted())


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


def test_second_list_leaves_out_what_the_up_projections_relu_sets_to_0(interpreted, small_blocks):
    case = random_case("list", torch.float32, 3, 8, 257, density=0.2)
    arguments = (case.x, case.gate, case.up_weight, case.down_weight_transposed, case.threshold)
    _, (_, _, compact, *_) = planned = gpu.plan_ffn(*arguments, 1, relu_up=True)
    gpu.run(planned)
    x1 = reference.sparse_up(*arguments[:3], case.threshold, relu_up=True)
    expected = (x1 > 0).any(0).nonzero().squeeze(1).tolist()
    assert 0 < len(expected) < 0.8 * int((case.gate >= case.threshold).any(0).sum())
    assert compact.arguments["count"].item() == len(expected)
    assert compact.arguments["neurons"][: len(expected)].tolist() == expected


def test_list_of_scores_that_reach_a_negative_threshold(interpreted, small_blocks):
    """The last block is not full: what fills it must not be listed."""
    case = random_masked("list", torch.float32, 3, 1, 257, density=0.2)
    case.score[1, 5] = 0
    _, (compact, _) = planned = gpu.plan_linear(case.x, case.weight, case.score, case.threshold, 1)
    gpu.run(planned)
    expected = [j for j, column in enumerate(case.score.T.tolist()) if max(column) >= case.threshold]
    assert compact.arguments["count"].item() == len(expected)
    assert compact.arguments["neurons"][: len(expected)].tolist() == expected


@pytest.mark.parametrize("density", [0, 0.1, 1])
def test_every_row_is_read_by_torch(density):
    """``dense_ffn`` and ``linear`` without a score: nothing in them needs a GPU."""
    case = random_case("dense", torch.float32, 3, 64, 96, density)
    arguments = (case.x, case.gate, case.up_weight, case.down_weight_transposed, case.threshold)
    close = {"rtol": 1e-4, "atol": 1e-4}  # torch sums 96 terms of size 1 in each processor's own order
    for relu_up in (False, True):
        expected = reference.dense_ffn(*arguments, relu_up=relu_up)
        torch.testing.assert_close(gpu.dense_ffn(*arguments, relu_up=relu_up), expected, **close)
    torch.testing.assert_close(gpu.linear(case.x, case.up_weight), reference.linear(case.x, case.up_weight), **close)


def test_plans_do_not_read_tensors():
    """Tensors without data suffice, so nothing waits for the device: the launches can be captured in a CUDA graph."""
    x, gate, weight = (torch.empty(2, 64), torch.empty(2, 96), torch.empty(96, 64))
    x, gate, weight = (t.to("meta") for t in (x, gate, weight))
    output, launches = gpu.plan_ffn(x, gate, weight, weight, 0.01, multiprocessors=1)
    assert output.shape == (2, 64)
    assert len(launches) == 4
    output, launches = gpu.plan_ffn(x, gate, weight, weight, 0.0, multiprocessors=1, relu_up=True)
    assert output.shape == (2, 64)
    assert len(launches) == 5  # a second list
    output, launches = gpu.plan_linear(x, weight, gate, -0.5, multiprocessors=1)
    assert output.shape == (2, 96)
    assert len(launches) == 2


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
    with pytest.raises(ValueError, match=message):
        gpu.dense_ffn(*arguments(**changes))


def test_bad_arguments_of_linear_are_refused_before_any_launch():
    x, weight, score = torch.zeros(2, 8), torch.zeros(16, 8), torch.zeros(2, 16)
    with pytest.raises(ValueError, match=r"score.shape\[1\] is 15"):
        gpu.plan_linear(x, weight, score[:, :15], 0.0, multiprocessors=1)
    with pytest.raises(ValueError, match="threshold must be finite, not inf"):
        gpu.plan_linear(x, weight, score, float("inf"), multiprocessors=1)
    with pytest.raises(ValueError, match=r"x.shape\[1\] is 7"):
        gpu.linear(x[:, :7], weight)


@pytest.mark.parametrize("name", ["sparse_up", "sparse_down", "sparse_ffn", "dense_ffn", "linear"])
def test_registered_for_cuda(name):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"prosparse::{name}", "CUDA")


def to_gpu(case: Case | Masked) -> Case | Masked:
    """The case on the GPU with its strides and offsets, which Tensor.to would not keep."""

    def move(tensor: torch.Tensor) -> torch.Tensor:
        size = tensor.untyped_storage().nbytes() // tensor.itemsize
        whole = tensor.as_strided((size,), (1,), 0).cuda()
        return whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    values = {field.name: getattr(case, field.name) for field in fields(case)}
    return replace(case, **{name: move(value) for name, value in values.items() if isinstance(value, torch.Tensor)})


@on_a_gpu
@pytest.mark.parametrize("case", EVERY_CASE)
def test_case_on_a_gpu(case):
    assert_matches_reference(to_gpu(case), torch.ops.prosparse)


@on_a_gpu
@pytest.mark.parametrize("case", EVERY_MASKED)
def test_linear_with_a_score_on_a_gpu(case):
    assert_linear_matches_reference(to_gpu(case), torch.ops.prosparse)


@on_a_gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_row_on_a_gpu(dtype):
    case = to_gpu(random_case("dense", dtype, 3, 64, 96, density=0.3))
    arguments = (case.x, case.gate, case.up_weight, case.down_weight_transposed, case.threshold)
    for relu_up in (False, True):
        expected = torch.ops.prosparse.sparse_ffn(*arguments, relu_up=relu_up)
        atol = 8 * torch.finfo(dtype).eps * expected.abs().max().item()  # x1 is rounded in one, and terms cancel
        dense = torch.ops.prosparse.dense_ffn(*arguments, relu_up=relu_up)
        torch.testing.assert_close(dense, expected, rtol=0, atol=atol)
    assert torch.equal(
        torch.ops.prosparse.linear(case.x, case.up_weight), torch.nn.functional.linear(case.x, case.up_weight)
    )


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

    def results() -> list[torch.Tensor]:
        masked = torch.ops.prosparse.linear(first.x, first.up_weight, first.gate, -0.5)
        return [torch.ops.prosparse.sparse_ffn(*inputs), torch.ops.prosparse.dense_ffn(*inputs), masked]

    results()  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = results()
    first.gate.copy_(second.gate)
    graph.replay()
    for output, expected in zip(outputs, results(), strict=True):
        assert torch.equal(output, expected)
