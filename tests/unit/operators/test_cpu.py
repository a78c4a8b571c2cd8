"""The CPU operators against the reference: native ones with each instruction set, and torch's in their place."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.operator_cases import (
    DTYPES,
    INF,
    NAN,
    Case,
    Masked,
    assert_linear_matches_reference,
    assert_matches_reference,
    cases,
    masked_cases,
    random_case,
    random_masked,
)
from helpers.repository import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from prosparse import operators
from prosparse.operators import cpu, gathered, interface, reference

SOURCES = Path(interface.__file__).parent
EVERY_CASE = [pytest.param(case, id=f"{str(dtype)[6:]}-{case}") for dtype in DTYPES for case in cases(dtype)]

EVERY_MASKED = [pytest.param(case, id=f"{str(dtype)[6:]}-{case}") for dtype in DTYPES for case in masked_cases(dtype)]


NUMBERS_OF_THREADS = (1, 2, 5)


@pytest.fixture(params=NUMBERS_OF_THREADS, ids=lambda number: f"threads{number}")
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def poisoned():
    """Memory that nobody wrote is NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(100).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


#: A thread is woken only for so many bytes of weights.
(TASK_BYTES,) = map(int, re.findall(r"TASK_BYTES = (\d+);", (SOURCES / "cpu.cpp").read_text(encoding="utf-8")))


def on_threads(every: list) -> pytest.MarkDecorator:
    """Each case on one thread, and on several if its weights are large enough to be split."""
    found = []
    for each in every:
        (case,) = each.values
        weights = [case.weight] if isinstance(case, Masked) else [case.up_weight, case.down_weight_transposed]
        several = sum(weight.nbytes for weight in weights) >= 2 * TASK_BYTES
        for number in NUMBERS_OF_THREADS if several else NUMBERS_OF_THREADS[:1]:
            found.append(pytest.param(case, number, id=f"{each.id}-threads{number}"))
    return pytest.mark.parametrize(("case", "threads"), found, indirect=["threads"])


@on_threads(EVERY_CASE)
def test_matches_the_reference(case: Case, threads, poisoned):
    assert_matches_reference(case, operators)
    every_row = Masked(case.name, case.x, case.up_weight, case.gate, case.threshold)
    assert_linear_matches_reference(every_row, operators, masked=False)


@on_threads(EVERY_MASKED)
def test_linear_with_a_score(case: Masked, threads, poisoned):
    assert_linear_matches_reference(case, operators)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", range(1, 9))
def test_large_enough_for_several_threads(batch, dtype, threads, poisoned):
    case = random_case("several_tasks", dtype, batch, 520, 1031, density=0.4)
    assert_matches_reference(case, operators)
    masked = random_masked("several_tasks", dtype, batch, 520, 1031, density=0.4)
    assert_linear_matches_reference(masked, operators)
    assert_linear_matches_reference(masked, operators, masked=False)


def ffn_arguments(case: Case) -> tuple:
    return case.x, case.gate, case.up_weight, case.down_weight_transposed, case.threshold


def assert_dense_is_sparse(case: Case) -> None:
    for relu_up in (False, True):
        dense, sparse = (
            operator(*ffn_arguments(case), relu_up=relu_up) for operator in (operators.dense_ffn, operators.sparse_ffn)
        )
        assert dense.dtype == sparse.dtype
        torch.testing.assert_close(dense, sparse, rtol=0, atol=0, equal_nan=True)


@on_threads([each for each in EVERY_CASE if each.values[0].down_weight_transposed.isfinite().all()])
def test_dense_and_sparse_ffn_agree_bit_for_bit(case: Case, threads, poisoned):
    """The sparse one is held to the reference above, so this holds the dense one to it."""
    assert_dense_is_sparse(case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0, 0.01, 0.1, 0.5, 0.97, 1])
def test_dense_and_sparse_ffn_agree_whatever_is_active(density, dtype, threads, poisoned):
    for batch in range(1, 9):
        assert_dense_is_sparse(random_case("several_tasks", dtype, batch, 520, 1031, density))


@given(
    batch=st.integers(1, 8),
    hidden=st.integers(1, 300),
    intermediate=st.integers(1, 300),
    density=st.floats(0, 1),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=60, deadline=None)
def test_every_shape(batch, hidden, intermediate, density, dtype):
    case = random_case("drawn", dtype, batch, hidden, intermediate, density)
    assert_matches_reference(case, operators)
    assert_dense_is_sparse(case)


@given(
    batch=st.integers(1, 8),
    columns=st.integers(1, 300),
    rows=st.integers(1, 300),
    density=st.floats(0, 1),
    threshold=st.floats(-3, 3),
    dtype=st.sampled_from(DTYPES),
    masked=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_shape_of_linear(batch, columns, rows, density, threshold, dtype, masked):
    case = random_masked("drawn", dtype, batch, columns, rows, density, threshold)
    assert_linear_matches_reference(case, operators, masked)


@pytest.mark.parametrize("sizes", [(0, 24, 16), (16, 0, 16), (16, 24, 0)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_sizes(sizes, dtype, poisoned):
    hidden, intermediate, columns = sizes
    case = random_case("empty", dtype, 2, hidden, intermediate, density=0.5)
    down = torch.ones(intermediate, columns, dtype=dtype)
    x1 = operators.sparse_up(case.x, case.gate, case.up_weight, case.threshold)
    torch.testing.assert_close(x1, reference.sparse_up(case.x, case.gate, case.up_weight, case.threshold))
    torch.testing.assert_close(operators.sparse_down(x1, down), reference.sparse_down(x1, down))
    arguments = (case.x, case.gate, case.up_weight, down, case.threshold)
    torch.testing.assert_close(operators.sparse_ffn(*arguments), reference.sparse_ffn(*arguments))
    torch.testing.assert_close(operators.dense_ffn(*arguments), reference.dense_ffn(*arguments))
    for mask in ((), (case.gate, -0.5)):
        linear = operators.linear(case.x, case.up_weight, *mask)
        torch.testing.assert_close(linear, reference.linear(case.x, case.up_weight, *mask))


def test_one_column_however_it_is_strided():
    case = random_case("narrow", torch.float32, 2, 1, 24, density=0.5)
    down = case.down_weight_transposed.as_strided((24, 1), (1, 24))  # as torch makes it by .t().contiguous()
    assert down.stride(1) != 1
    arguments = (case.x, case.gate, case.up_weight, down, case.threshold)
    torch.testing.assert_close(operators.sparse_ffn(*arguments), reference.sparse_ffn(*arguments))
    torch.testing.assert_close(operators.dense_ffn(*arguments), reference.dense_ffn(*arguments))
    interface.check_ffn(*arguments)


LOWER_SETS = """
import sys
sys.path.insert(0, {tests!r})
import torch
from helpers.operator_cases import (
    DTYPES, assert_linear_matches_reference, assert_matches_reference, cases, masked_cases, random_case, random_masked
)
from prosparse import operators
for dtype in DTYPES:
    several = random_case("several_tasks", dtype, 3, 520, 1031, density=0.4)
    for case in [*cases(dtype), several]:
        assert_matches_reference(case, operators)
    arguments = (several.x, several.gate, several.up_weight, several.down_weight_transposed, several.threshold)
    for relu_up in (False, True):
        dense = operators.dense_ffn(*arguments, relu_up=relu_up)
        assert torch.equal(dense, operators.sparse_ffn(*arguments, relu_up=relu_up))
    for case in [*masked_cases(dtype), random_masked("several_tasks", dtype, 3, 520, 1031, density=0.4)]:
        assert_linear_matches_reference(case, operators)
        assert_linear_matches_reference(case, operators, masked=False)
"""


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_other_instruction_sets(capability):
    """The vectors of other machines: what ATEN_CPU_CAPABILITY allows, as far as this machine has it."""
    script = LOWER_SETS.format(tests=str(ROOT / "tests"))
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-W", "error", "-c", script], env=environment, check=True)


WIDER = """
from torch.utils import cpp_extension
load = cpp_extension.load
def load_wide(*arguments, extra_cflags, **others):
    load(*arguments, extra_cflags=["-O1", "-DBASELINE_WIDTH=16", "-Wno-psabi"], **others)
cpp_extension.load = load_wide
"""


@pytest.mark.slow
@pytest.mark.commands("c++")
def test_vectors_of_avx512_in_pieces(tmp_path):
    """The loops for 16 floats, which the compiler cuts up for a machine without AVX-512."""
    script = WIDER + LOWER_SETS.format(tests=str(ROOT / "tests"))
    changes = {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "2", "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "error", "-c", script], env=os.environ | changes, check=True)


@pytest.mark.commands("objdump")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86 machine code")
def test_machine_code_uses_each_set_of_vectors():
    """The compiler keeps the vectors whole: multiply-adds are fused and as wide as the set's vectors (but for few
    of single values)."""
    code = subprocess.run(
        ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(cpu.library())],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    functions = re.findall(r"^[0-9a-f]+ <(.*)>:\n((?:.+\n)*)", code, re.MULTILINE)
    for name, register in (("avx2", "ymm"), ("avx512", "zmm")):
        bodies = [body for function, body in functions if f"{name}::" in function]
        multiply_adds = [line for body in bodies for line in re.findall(r"vf\w*madd\w+ps .*", body)]
        assert len(multiply_adds) >= 500, name
        assert sum(register in line for line in multiply_adds) >= 0.99 * len(multiply_adds), name


def test_repeats_bit_for_bit(threads):
    case = random_case("repeated", torch.bfloat16, 2, 1000, 2000, density=0.3)
    first = operators.sparse_ffn(*ffn_arguments(case))
    for _ in range(20):
        again = operators.sparse_ffn(*ffn_arguments(case))
        assert torch.equal(first, again)


def test_threads_do_not_change_what_has_one_row_to_a_value():
    case = random_case("repeated", torch.bfloat16, 1, 1000, 2000, density=0.3)
    before = torch.get_num_threads()
    found = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        up = operators.sparse_up(case.x, case.gate, case.up_weight, case.threshold)
        masked = operators.linear(case.x, case.up_weight, case.gate, -0.5)
        found.append(torch.stack([up, masked, operators.linear(case.x, case.up_weight)]))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0.02, 0.3, 1])
def test_a_token_does_not_depend_on_its_batch(density, dtype, threads):
    """Nor on its place in it, nor on how many share it; sparse_down alone may add up its rows in another order."""
    case = random_case("batch", dtype, 8, 520, 1031, density)

    def results(tokens: list[int]) -> list[torch.Tensor]:
        x, gate = case.x[tokens], case.gate[tokens]
        up, ffn = (x, gate, case.up_weight), (x, gate, case.up_weight, case.down_weight_transposed, case.threshold)
        return [
            operators.sparse_up(*up, case.threshold), operators.sparse_ffn(*ffn), operators.dense_ffn(*ffn),
            operators.linear(x, case.up_weight, gate, -0.5), operators.linear(x, case.up_weight),
            operators.sparse_ffn(*ffn, relu_up=True),
        ]  # fmt: skip

    alone = [torch.cat(tokens) for tokens in zip(*(results([token]) for token in range(8)), strict=True)]
    for batch in ([0, 1], [5, 2, 7], [6, 3, 1, 4], [0, 0, 2, 6, 5], [7, 6, 5, 4, 3, 2, 1, 0]):
        for together, expected in zip(results(batch), alone, strict=True):
            assert torch.equal(together, expected[batch])


def bad_calls():
    case = random_case("valid", torch.bfloat16, 2, 16, 24, density=0.5)
    x, gate, up, down = case.x, case.gate, case.up_weight, case.down_weight_transposed
    return {
        "x must have 2 dimensions": (x[0], gate, up, down, 0.0),
        "gate must have contiguous rows": (x, gate.t().contiguous().t(), up, down, 0.0),
        "up_weight must have contiguous rows": (x, gate, up.t().contiguous().t(), down, 0.0),
        "down_weight_transposed must have contiguous rows": (x, gate, up, down.t().contiguous().t(), 0.0),
        "float32 is needed": (x.double(), gate.double(), up.double(), down.double(), 0.0),
        "dtype|the same for all": (x, gate.half(), up, down, 0.0),
        "x has 9 rows; the sparse operators take 1 to 8": (x[[0] * 9], gate[[0] * 9], up, down, 0.0),
        "x has 0 rows": (x[:0], gate[:0], up, down, 0.0),
        r"gate.shape\[0\] is 1, but x.shape\[0\] is 2": (x, gate[:1], up, down, 0.0),
        r"gate.shape\[1\] is 23, but up_weight.shape\[0\] is 24": (x, gate[:, :23], up, down, 0.0),
        r"x.shape\[1\] is 15, but up_weight.shape\[1\] is 16": (x[:, :15], gate, up, down, 0.0),
        r"down_weight_transposed.shape\[0\] is 23, but up_weight.shape\[0\] is 24": (x, gate, up, down[:23], 0.0),
        "threshold must be finite and not negative, not -1": (x, gate, up, down, -1.0),
        "threshold must be finite and not negative, not nan": (x, gate, up, down, float("nan")),
    }


def bad_linear_calls():
    case = random_masked("valid", torch.bfloat16, 2, 16, 24, density=0.5)
    x, weight, score = case.x, case.weight, case.score
    return {
        "x must have 2 dimensions, not 1": (x[0], weight),
        "x must have contiguous rows": (x.t().contiguous().t(), weight),
        "weight must have 2 dimensions, not 3": (x, weight[None]),
        r"weight must have contiguous rows: stride\(1\) is 24, call .contiguous\(\) once": (
            x,
            weight.t().contiguous().t(),
        ),
        "score must have 2 dimensions, not 1": (x, weight, score[0]),
        "score must have contiguous rows": (x, weight, score.t().contiguous().t()),
        "one of bfloat16, float16 and float32 is needed": (x.double(), weight.double(), score.double()),
        "(?#weight)dtype|the same for all": (x, weight.half(), score),
        "(?#score)dtype|the same for all": (x, weight, score.float()),
        "x has 9 rows; the sparse operators take 1 to 8": (x[[0] * 9], weight, score[[0] * 9]),
        "x has 0 rows": (x[:0], weight),
        r"x.shape\[1\] is 15, but weight.shape\[1\] is 16": (x[:, :15], weight, score),
        r"score.shape\[0\] is 1, but x.shape\[0\] is 2": (x, weight, score[:1]),
        r"score.shape\[1\] is 23, but weight.shape\[0\] is 24": (x, weight, score[:, :23]),
        "threshold must be finite, not -inf": (x, weight, score, -INF),
        "threshold must be finite, not nan": (x, weight, score, NAN),
        "(?#no score)threshold must be finite, not inf": (x, weight, None, INF),
    }


def assert_refuses(message: str, arguments: tuple, operator: Callable, check: Callable) -> None:
    """With the same words before the call (shapes alone, as torch.compile sees them) and in it."""
    with pytest.raises(ValueError, match=message):
        operator(*arguments)
    with pytest.raises(ValueError, match=message):
        check(*arguments)
    with pytest.raises(ValueError, match=message):
        operator(*(a.to("meta") if isinstance(a, torch.Tensor) else a for a in arguments))


@pytest.mark.parametrize("message", bad_calls())
@pytest.mark.parametrize("operator", [operators.sparse_ffn, operators.dense_ffn], ids=str)
def test_refuses(operator, message):
    assert_refuses(message, bad_calls()[message], operator, interface.check_ffn)


@pytest.mark.parametrize("message", bad_linear_calls())
def test_linear_refuses(message):
    assert_refuses(message, bad_linear_calls()[message], operators.linear, interface.check_linear)


def test_refuses_x1_of_another_width():
    x1, down = torch.zeros(1, 4), torch.zeros(5, 3)
    message = r"x1.shape\[1\] is 4, but down_weight_transposed.shape\[0\] is 5"
    for call in (operators.sparse_down, interface.check_down):
        with pytest.raises(ValueError, match=message):
            call(x1, down)


def test_torch_knows_the_operators():
    case = random_case("known", torch.float32, 2, 16, 24, density=0.5)
    up = (case.x, case.gate, case.up_weight, case.threshold)
    down = (case.gate, case.down_weight_transposed)
    both, dense, masked = ffn_arguments(case), (case.x, case.up_weight), (case.x, case.up_weight, case.gate, -0.5)
    for operator, arguments in [
        (operators.sparse_up, up), (operators.sparse_down, down), (operators.sparse_ffn, both),
        (operators.dense_ffn, both), (operators.linear, dense), (operators.linear, masked),
    ]:  # fmt: skip
        torch.library.opcheck(operator, arguments)
    for operator, arguments in [
        (operators.sparse_up, up), (operators.sparse_ffn, both), (operators.dense_ffn, both),
    ]:  # fmt: skip
        torch.library.opcheck(operator, arguments, {"relu_up": True})


class FFN(torch.nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        up, down = self.case.up_weight, self.case.down_weight_transposed
        gate = operators.linear(x, up, operators.linear(x, up) + 0.5, -0.5) - 0.5
        dense = operators.dense_ffn(x, gate, up, down, 0.1)
        return 2 * operators.sparse_ffn(x, gate, up, down, 0.1, relu_up=True) - dense


def test_compiles_and_exports_in_one_graph():
    case = random_case("compiled", torch.float32, 1, 16, 24, density=0.5)
    ffn = FFN(case)
    expected = ffn(case.x)
    assert torch.equal(torch.compile(ffn, backend="aot_eager", fullgraph=True)(case.x), expected)
    exported = torch.export.export(ffn, (case.x,))
    assert {operators.linear, operators.sparse_ffn, operators.dense_ffn} <= {n.target for n in exported.graph.nodes}
    assert torch.equal(exported.module()(case.x), expected)


@pytest.mark.parametrize("relu_up", [False, True])
@pytest.mark.parametrize("density", [0, 0.1, 1])
def test_gathered_matches_the_reference(density, relu_up):
    case = random_case("gathered", torch.float32, 3, 64, 96, density)
    arguments, options = ffn_arguments(case), {"relu_up": relu_up}
    expected = reference.sparse_ffn(*arguments, **options)
    torch.testing.assert_close(gathered.sparse_ffn(*arguments, **options), expected)
    torch.testing.assert_close(gathered.dense_ffn(*arguments, **options), expected)
    x1 = gathered.sparse_up(*arguments[:3], case.threshold, **options)
    torch.testing.assert_close(x1, reference.sparse_up(*arguments[:3], case.threshold, **options))
    inactive = case.gate < case.threshold
    assert torch.equal(x1 == 0, inactive | (case.x @ case.up_weight.T <= 0) if relu_up else inactive)


def test_relu_up_by_hand():
    """x1 = relu(gate) relu(up), both factors of either sign."""
    x, gate = torch.tensor([[2.0, -1.0]]), torch.tensor([[3.0, 3.0, -3.0, 0.5]])
    up_weight, down = torch.tensor([[1.0, 0], [0, 1], [1, 0], [1, 1]]), torch.tensor([[1.0], [10], [100], [1000]])
    expected = [3.0 * 2, 0, 0, 0.5 * 1]
    for module in (operators, reference, gathered):
        assert module.sparse_up(x, gate, up_weight, 0.0, relu_up=True).tolist() == [expected]
        for ffn in (module.sparse_ffn, module.dense_ffn):
            assert ffn(x, gate, up_weight, down, 0.0, relu_up=True).item() == 6 + 500


@pytest.mark.parametrize("case", masked_cases(torch.float32), ids=str)
def test_gathered_linear_matches_the_reference(case):
    for masked in (True, False):
        assert_linear_matches_reference(case, gathered, masked)


WITHOUT_A_COMPILER = """
import sys, warnings
sys.path.insert(0, {tests!r})
import torch
with warnings.catch_warnings(record=True) as caught:
    from prosparse import operators
from helpers.operator_cases import random_case
assert ["no_such_compiler: not found" in str(w.message) for w in caught] == [True], caught
from prosparse.operators import gathered
case = random_case("fallback", torch.bfloat16, 2, 64, 96, 0.2)
arguments = (case.x, case.gate, case.up_weight, case.down_weight_transposed, case.threshold)
for name in ("sparse_ffn", "dense_ffn"):
    assert torch.equal(getattr(operators, name)(*arguments), getattr(gathered, name)(*arguments))
assert torch.equal(operators.linear(case.x, case.up_weight), gathered.linear(case.x, case.up_weight))
masked = (case.x, case.up_weight, case.gate, -0.5)
assert torch.equal(operators.linear(*masked), gathered.linear(*masked))
"""


def test_works_without_a_compiler(tmp_path):
    script = WITHOUT_A_COMPILER.format(tests=str(ROOT / "tests"))
    environment = os.environ | {"CXX": str(tmp_path / "no_such_compiler"), "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert not list(tmp_path.iterdir()), "a failed build must leave nothing behind"


def test_reads_the_rows_it_is_given():
    """The bandwidth limit's own kernel: a checksum over exactly those rows, whatever the split over threads."""
    weight = torch.randint(-(2**31), 2**31 - 1, (300, 64), dtype=torch.int32)
    for rows in (torch.arange(300), torch.tensor([7]), torch.tensor([], dtype=torch.int64), torch.tensor([299, 3, 3])):
        expected = 0
        for row in rows.tolist():
            for word in weight[row].tolist():
                expected ^= word & 0xFFFFFFFF
        assert torch.ops.prosparse.read_rows(weight, rows) == expected
    with pytest.raises(ValueError, match="row 300 is not one of the 300 rows"):
        torch.ops.prosparse.read_rows(weight, torch.tensor([300]))
