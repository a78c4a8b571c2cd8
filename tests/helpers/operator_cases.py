"""Inputs for the operators on every device, and the comparison with the float64 reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prosparse.operators import reference

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Case:
    """Arguments of the FFN operators (and so of ``sparse_up``) under a name; shapes as in reference.py."""

    name: str
    x: Tensor
    gate: Tensor
    up_weight: Tensor
    down_weight_transposed: Tensor
    threshold: float

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Masked:
    """Arguments of ``linear`` with a score, under a name; shapes as in reference.py."""

    name: str
    x: Tensor
    weight: Tensor
    score: Tensor
    threshold: float

    def __str__(self) -> str:
        return self.name


def random_case(
    name: str, dtype: torch.dtype, batch: int, hidden: int, intermediate: int, density: float, threshold: float = 0.01
) -> Case:
    """Standard normal x and weights; each gate is active with probability ``density``."""
    generator = torch.Generator().manual_seed(1000 * hidden + intermediate + batch)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    active = torch.rand(batch, intermediate, generator=generator) < density
    gate = torch.where(active, 2 * threshold + normal(batch, intermediate).abs(), -normal(batch, intermediate).abs())
    x, up, down = normal(batch, hidden), normal(intermediate, hidden), normal(intermediate, hidden)
    return Case(name, x.to(dtype), gate.to(dtype), up.to(dtype), down.to(dtype), threshold)


def _one_active(dtype: torch.dtype) -> list[Case]:
    found = []
    for batch, hidden, neuron in [(1, 200, 256), (3, 64, 0), (8, 7, 100)]:
        case = random_case(f"one_active_batch{batch}", dtype, batch, hidden, 257, density=0)
        case.gate[batch // 2, neuron] = 0.75
        found.append(case)
    return found


def _ordinary(dtype: torch.dtype) -> list[Case]:
    """Every pair of sizes; batches and densities take turns, out of step with the sizes."""
    sizes = [(hidden, intermediate) for hidden in (1, 7, 64, 200) for intermediate in (1, 13, 96, 257)]
    batches, densities = (1, 3, 8), (0.1, 0.0, 0.1, 1.0, 0.5)
    found = []
    for i, (hidden, intermediate) in enumerate(sizes):
        batch, density = batches[i % 3], densities[i % 5]
        name = f"batch{batch}_{hidden}x{intermediate}_density{density:g}"
        found.append(random_case(name, dtype, batch, hidden, intermediate, density, threshold=0.01 * (i % 2)))
    return found


def _thresholds(dtype: torch.dtype) -> list[Case]:
    """Gates at a threshold and at its neighbors; thresholds that the dtype cannot hold."""
    found = []
    for name, threshold in [
        ("at_threshold", 0.01),
        ("at_large_threshold", 3.1),  # rounds down to bfloat16 and float16
        ("threshold_0", 0.0),
        ("threshold_rounds_to_0", 1e-60),
        ("threshold_rounds_to_inf", 1e300),
    ]:
        case = random_case(name, dtype, 2, 7, 13, density=0.5, threshold=threshold)
        held = torch.tensor(threshold, dtype=dtype)
        below, above = (torch.nextafter(held, torch.tensor(limit, dtype=dtype)) for limit in (-INF, INF))
        fixed = [held, below, above, -held, torch.zeros_like(held), -torch.zeros_like(held)]
        case.gate[:, : len(fixed)] = torch.stack(fixed)
        found.append(case)
    return found


def _not_finite(dtype: torch.dtype) -> list[Case]:
    gate = random_case("gate_not_finite", dtype, 3, 64, 32, density=0.5)
    gate.gate[0, ::3], gate.gate[0, 1::3], gate.gate[1, 5], gate.gate[1, 6] = NAN, -INF, INF, NAN

    x = random_case("x_not_finite", dtype, 3, 64, 32, density=0.5)
    x.x[0, 3], x.x[2, 63] = INF, NAN

    idle_x = random_case("x_not_finite_nothing_active", dtype, 3, 64, 32, density=0)
    idle_x.x[0], idle_x.x[2, 63] = NAN, INF

    # rows that some tokens use and others must not see, and rows that nobody uses
    rows = random_case("weights_not_finite", dtype, 3, 64, 32, density=0.3)
    rows.gate[:, :4] = torch.tensor([[1.0, 1, -1, -1], [-1, 1, 1, -1], [-1, -1, -1, -1]])
    rows.up_weight[0], rows.up_weight[1, 63], rows.down_weight_transposed[2, 5:] = NAN, -INF, INF
    unused = ~(rows.gate >= rows.threshold).any(0)
    rows.up_weight[unused], rows.down_weight_transposed[unused] = NAN, INF
    return [gate, x, idle_x, rows]


def _zero_x1(dtype: torch.dtype) -> Case:
    """An x1 of exactly 0 at active gates (x = 0; terms that cancel exactly) where W_2 is not finite."""
    case = random_case("x1_is_0_where_down_weight_is_inf", dtype, 3, 8, 13, density=0.5)
    case.gate[:, 3:5] = 0.5
    case.x[0] = 0
    case.x[1] = torch.tensor([1.0, 1, 2, 2, 4, 4, 8, 8])
    case.up_weight[3:5] = torch.tensor([1.0, -1] * 4)
    case.x[2] = case.x[1]
    case.x[2, 0] = 2  # this token does use the rows
    case.down_weight_transposed[3], case.down_weight_transposed[4, ::2] = INF, NAN
    return case


def _negative_up(dtype: torch.dtype) -> Case:
    """A negative product with W_1 at active gates, which dReLU sets to 0, where W_2 is not finite."""
    case = random_case("up_is_negative_where_down_weight_is_inf", dtype, 3, 8, 13, density=0.5)
    case.gate[:, 3:5] = 0.5
    case.x.abs_()
    case.x[2].neg_()  # this token does use the rows
    case.up_weight[3:5] = -1
    case.down_weight_transposed[3], case.down_weight_transposed[4, ::2] = INF, NAN
    return case


def _denormal(dtype: torch.dtype) -> list[Case]:
    """Denormal numbers count: flushed ones would give 0 where the result is well above the smallest number."""
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    gate = random_case("denormal_gate", dtype, 2, 64, 32, density=0.5, threshold=0.0)
    gate.gate.copy_((torch.arange(64).reshape(2, 32) % 16 - 4) * smallest)
    gate.x.mul_(16)
    x = random_case("denormal_x", dtype, 2, 64, 32, density=0.5)
    x.x.copy_((torch.arange(128).reshape(2, 64) % 16 - 4) * smallest)
    x.up_weight.mul_(64)
    weights = random_case("denormal_weights", dtype, 2, 64, 32, density=0.5)
    for weight in (weights.up_weight, weights.down_weight_transposed):
        weight.copy_((torch.arange(64 * 32).reshape(32, 64) % 16 - 4) * smallest)
    weights.x.mul_(64)
    threshold = random_case("denormal_threshold", dtype, 2, 64, 32, density=0.5, threshold=3 * smallest)
    threshold.gate.copy_(gate.gate)
    return [gate, x, weights, threshold]


def _range_and_rounding(dtype: torch.dtype) -> list[Case]:
    # x1 is about 2 ** 18: infinite in float16, but sparse_ffn, which does not round x1, is finite
    large = random_case("x1_beyond_float16", dtype, 2, 64, 32, density=0.1)
    large.up_weight.copy_(large.up_weight.abs() * 512)
    large.x.copy_(large.x.abs() * 16)
    large.down_weight_transposed.mul_(2.0**-12)

    # neighbors cancel in W_2: an x1 rounded on the way shows in the result
    cancel = random_case("down_weight_cancels", dtype, 2, 64, 32, density=1)
    cancel.up_weight[1::2] = cancel.up_weight[::2]
    cancel.gate[:, 1::2] = cancel.gate[:, ::2] * 1.02
    cancel.down_weight_transposed[1::2] = -cancel.down_weight_transposed[::2]
    return [large, cancel]


def _strided(dtype: torch.dtype) -> list[Case]:
    """The same rows inside wider matrices full of NaN: aligned, and starting one element off."""
    found = []
    for name, before, after in [("strided_rows", 16, 16), ("strided_rows_off_by_one", 1, 4)]:
        case = random_case(name, dtype, 3, 200, 24, density=0.5)

        def widen(tensor: Tensor, before: int = before, after: int = after) -> Tensor:
            rows, columns = tensor.shape
            wide = tensor.new_full((rows, before + columns + after), NAN)
            wide[:, before : before + columns] = tensor
            return wide[:, before : before + columns]

        tensors = [case.x, case.gate, case.up_weight, case.down_weight_transposed]
        found.append(Case(name, *map(widen, tensors), case.threshold))
    return found


def cases(dtype: torch.dtype) -> list[Case]:
    """Ordinary and adversarial inputs in ``dtype``, the same at every call."""
    return [
        *_ordinary(dtype), *_one_active(dtype), *_thresholds(dtype), *_not_finite(dtype), _zero_x1(dtype),
        _negative_up(dtype),
        *_denormal(dtype), *_range_and_rounding(dtype), *_strided(dtype),
    ]  # fmt: skip


def random_masked(
    name: str, dtype: torch.dtype, batch: int, columns: int, rows: int, density: float, threshold: float = -0.5
) -> Masked:
    """Standard normal x and weights; each score reaches the threshold with probability ``density``."""
    generator = torch.Generator().manual_seed(1000 * columns + rows + batch)
    x, weight = (torch.randn(*shape, generator=generator) for shape in ((batch, columns), (rows, columns)))
    chosen, distance = torch.rand(2, batch, rows, generator=generator)
    score = torch.where(chosen < density, threshold + distance, threshold - 0.1 - distance)
    return Masked(name, x.to(dtype), weight.to(dtype), score.to(dtype), threshold)


def masked_cases(dtype: torch.dtype) -> list[Masked]:
    """What the cases above, whose gates serve as scores too, have not: thresholds and scores of every sign, and zeros.

    Beyond the last score, nothing may be taken for one: where zeros are filled in, these reach a negative threshold.
    """
    found = []
    for i, (batch, rows) in enumerate([(1, 1), (2, 257), (8, 13), (5, 96), (4, 31), (7, 33)]):
        density = (0.3, 0, 0.1, 1, 0.6)[i % 5]
        found.append(random_masked(f"batch{batch}_7x{rows}_density{density:g}", dtype, batch, 7, rows, density))
    for name, threshold in [
        ("at_negative_threshold", -0.01),
        ("score_0", 0.0),
        ("negative_threshold_rounds_to_0", -1e-60),
        ("threshold_rounds_to_inf", 1e300),
        ("threshold_rounds_to_minus_inf", -1e300),
    ]:
        case = random_masked(name, dtype, 2, 7, 13, density=0.5, threshold=threshold)
        held = torch.tensor(threshold, dtype=dtype)
        below, above = (torch.nextafter(held, torch.tensor(limit, dtype=dtype)) for limit in (-INF, INF))
        fixed = [held, below, above, -held, held * 0, -held * 0, held * INF, held * NAN]
        case.score[:, : len(fixed)] = torch.stack(fixed)
        case.score[0, -1], case.score[1, -2:] = NAN, torch.tensor([INF, -INF])
        found.append(case)

    # rows that some tokens use and others must not see, and rows that nobody uses
    weight = random_masked("weight_not_finite", dtype, 3, 64, 32, density=0.3)
    weight.score[:, :3] = torch.tensor([[0.0, 0, -1], [-1, 1, NAN], [-1, -1, -1]])
    weight.weight[0], weight.weight[1, 63] = NAN, -INF
    weight.weight[~(weight.score >= weight.threshold).any(0)] = NAN

    x = random_masked("x_not_finite", dtype, 3, 64, 32, density=0.5)
    x.x[0, 3], x.x[2, 63] = INF, NAN

    idle = random_masked("nothing_reaches_the_threshold", dtype, 3, 64, 32, density=0)
    idle.score[0], idle.score[1], idle.weight[:], idle.x[2] = NAN, -INF, NAN, INF
    return [*found, weight, x, idle]


def _assert_close(what: str, actual: Tensor, exact: Tensor, absolute: Tensor, terms: int, slack: Tensor) -> None:
    """Compare with the exact result, allowing what ``terms`` float32 roundings and one rounding to the dtype can do.

    Args:
        actual: the operator's result.
        exact: the same in float64.
        absolute: the sum of the absolute values of exact's terms, which the float32 errors are proportional to.
        terms: float32 roundings between the inputs and a result; any order of summation is allowed.
        slack: the largest sum of float32 underflow errors.
    """
    dtype = actual.dtype
    actual = actual.cpu().double()
    expected = exact.to(dtype).double()
    assert actual.shape == expected.shape, what
    finite = expected.isfinite()
    torch.testing.assert_close(
        actual[~finite], expected[~finite], rtol=0, atol=0, equal_nan=True, msg=lambda m: f"{what}: {m}"
    )
    unit = 2.0**-24 * terms
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    sums = unit / (1 - unit) * absolute + slack
    allowed = sums + torch.finfo(dtype).eps / 2 * (exact.abs() + sums) + smallest / 2
    error = (actual - exact).abs()
    wrong = finite & ~(error <= allowed)  # a NaN is wrong
    assert not wrong.any(), (
        f"{what}: {int(wrong.sum())} of {wrong.numel()} results are wrong, the first at {wrong.nonzero()[0].tolist()}: "
        f"{actual[wrong][0]:g} for {exact[wrong][0]:g} +- {allowed[wrong][0]:g}"
    )


def assert_linear_matches_reference(case: Masked, operators: Any, masked: bool = True) -> None:
    """Compare ``operators.linear``, with the score or without, with the reference in float64."""
    x, weight, score = (t.cpu().double() for t in (case.x, case.weight, case.score))
    threshold = torch.tensor(case.threshold, dtype=case.score.dtype).double().item()
    mask, double_mask = ((case.score, case.threshold), (score, threshold)) if masked else ((), ())
    actual = operators.linear(case.x, case.weight, *mask)
    assert actual.dtype == case.x.dtype
    exact = reference.linear(x, weight, *double_mask)
    absolute = reference.linear(x.abs(), weight.abs(), *double_mask)
    columns = x.shape[1]
    _assert_close("linear", actual, exact, absolute, columns, torch.full_like(exact, 2.0**-149 * columns))
    if masked:
        assert (actual.cpu()[~(score >= threshold)] == 0).all(), "linear: a masked value is not exactly 0"


def assert_matches_reference(case: Case, operators: Any) -> None:
    """Compare the sparse operators, and ``linear`` with the gates as its score, with the reference in float64."""
    for relu_up in (False, True):
        _assert_ffn_matches_reference(case, operators, relu_up)
    assert_linear_matches_reference(Masked(case.name, case.x, case.up_weight, case.gate, case.threshold), operators)


def _assert_ffn_matches_reference(case: Case, operators: Any, relu_up: bool) -> None:
    dtype = case.gate.dtype
    threshold = torch.tensor(case.threshold, dtype=dtype).double().item()  # float64 inputs must not undo this rounding
    x, gate, up, down = (t.cpu().double() for t in (case.x, case.gate, case.up_weight, case.down_weight_transposed))
    hidden, intermediate = x.shape[1], gate.shape[1]
    smallest = 2.0**-149  # of float32
    activated = reference.activated(gate, threshold).nan_to_num(posinf=0)  # slack is of no use beside an infinity
    named = "relu_up: " if relu_up else ""

    x1 = reference.sparse_up(x, gate, up, threshold, relu_up=relu_up)
    absolute_x1 = reference.sparse_up(x.abs(), gate, up.abs(), threshold)
    slack_x1 = torch.where(activated != 0, smallest * (hidden * activated + 1), 0)
    actual = operators.sparse_up(case.x, case.gate, case.up_weight, case.threshold, relu_up=relu_up)
    assert actual.dtype == dtype
    _assert_close(f"{named}sparse_up", actual, x1, absolute_x1, hidden + 1, slack_x1)
    inactive, used = ~((gate >= threshold) & (gate != 0)), x1 != 0  # the others do not reach W_2
    if relu_up:
        before = reference.sparse_up(x, gate, up, threshold)
        negative = before < -(2.0**-23 * (hidden + 1) * absolute_x1 + slack_x1)  # also after rounding
        inactive |= negative
        used |= ~negative & (before != 0)
    assert (actual.cpu()[inactive] == 0).all(), f"{named}sparse_up: an inactive neuron is not exactly 0"

    rounded_x1 = x1.to(dtype).to(case.x.device)
    actual = operators.sparse_down(rounded_x1, case.down_weight_transposed)
    assert actual.dtype == dtype
    exact_x1 = rounded_x1.cpu().double()
    exact, absolute = (reference.sparse_down(exact_x1, down), reference.sparse_down(exact_x1.abs(), down.abs()))
    slack = torch.full_like(exact, smallest * intermediate)
    _assert_close("sparse_down", actual, exact, absolute, intermediate, slack)

    arguments = (case.x, case.gate, case.up_weight, case.down_weight_transposed, case.threshold)
    actual = operators.sparse_ffn(*arguments, relu_up=relu_up)
    assert actual.dtype == dtype
    exact = reference.sparse_ffn(x, gate, up, down, threshold, relu_up=relu_up)
    absolute = reference.sparse_down(torch.where(used, absolute_x1, 0), down.abs())
    slack = reference.sparse_down(torch.where(used, slack_x1, 0), down.abs()) + smallest * intermediate
    _assert_close(f"{named}sparse_ffn", actual, exact, absolute, hidden + 1 + intermediate, slack)
