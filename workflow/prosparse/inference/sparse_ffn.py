"""A gated FFN for decoding: dense, or skipping inactive neurons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ReLUSquaredActivation

from prosparse.inference.predictors import Predictor
from prosparse.method.activations import FATReLU, GatedFFN, ReLULinear, ShiftedReLU
from prosparse.method.whole_ffn import check_formula
from prosparse.operators import MAX_BATCH, dense_ffn, linear, quantized, sparse_down, sparse_ffn
from prosparse.operators.quantized import Format
from prosparse.system.errors import UserError

MODES = ("dense", "exact", "predicted")
COPIED_BYTES = 8 << 20  # of a prompt's weights at a time: they stay in the cache


def few_tokens(x: Tensor) -> Tensor | None:
    """The input as rows [tokens, features] if the operators take so many tokens, else None."""
    rows = x.reshape(-1, x.shape[-1])
    few = 1 <= len(rows) <= MAX_BATCH and not torch.is_autocast_enabled(x.device.type)
    return rows.contiguous() if few else None


def many_tokens(x: Tensor, weight: Tensor) -> Tensor:
    """The product for prompts: torch's, or with packed weights our own, ``MAX_BATCH`` tokens at a time."""
    if not quantized.is_packed(weight):
        return nn.functional.linear(x, weight)
    return _in_parts(x, len(weight), lambda part: linear(part, weight))


def _in_parts(x: Tensor, features: int, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute rows of ``features`` from the input's rows, as many at a time as the operators take."""
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    parts = [compute(part) for part in rows.split(MAX_BATCH) if len(part) > 0]
    return torch.cat([rows.new_empty(0, features), *parts]).view(*x.shape[:-1], features)


@dataclass(frozen=True)
class Rounding:
    """The format of all matrices, and those that need no rounding, by parameter: a file holds them in the format."""

    form: Format
    packed: Mapping[str, Tensor] = field(default_factory=dict)

    def __call__(self, weight: Tensor, name: str) -> Tensor:
        """The weight in the format.

        Raises:
            UserError: the format cannot hold it.
        """
        if name in self.packed:
            return self.packed[name]
        try:
            return quantized.quantize(weight, self.form, name)
        except ValueError as error:
            raise UserError(str(error)) from None

    def gate_and_up(self, ffn: GatedFFN) -> tuple[Tensor, Tensor]:
        """The FFN's gate and up projection, which may be one matrix."""
        names = [f"{ffn.name}.{projection}.weight" for projection in ffn.projections]
        if len(names) == 2 and names[0] in self.packed:
            gate, up = self.packed[names[0]].chunk(2)
            return gate.clone(), up
        return self(ffn.gate_weight, names[0]), self(ffn.up_weight, names[-2])


def _largest_scales(rows: Tensor) -> Tensor | None:
    """For step (3); None for a matrix that is not packed."""
    return quantized.largest_scales(rows) if quantized.is_packed(rows) else None


class StreamingLinear(nn.Module):
    """A linear layer that reads its weights at memory speed; shares them with the layer it replaces."""

    def __init__(self, replaced: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = replaced.weight, replaced.bias
        self.out_features = replaced.out_features

    def round(self, rounding: Rounding, name: str) -> None:
        """Hold the weights of the module of this name in a format, no longer shared with any other module."""
        self.weight = nn.Parameter(rounding(self.weight, f"{name}.weight"), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = few_tokens(x)
        if rows is None:
            y = many_tokens(x, self.weight)
            return y if self.bias is None else y + self.bias
        y = linear(rows, self.weight)
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], self.out_features)


def _threshold(ffn: GatedFFN) -> float | None:
    """The gate's threshold; None if what is active depends on the activation's values, not its inputs."""
    match ffn.activation:
        case nn.ReLU():
            return 0.0
        case FATReLU(threshold=threshold):
            return threshold
        case _:
            return None


def check(ffn: GatedFFN) -> None:
    """Raise UserError unless ``DecodingFFN`` can compute the FFN."""
    for name in ffn.projections:
        projection: Any = getattr(ffn.module, name)
        if type(projection) not in (nn.Linear, ReLULinear):
            raise UserError(f"{ffn.name}.{name} is a {type(projection).__name__}: a plain linear layer is needed")
        if projection.bias is not None:
            raise UserError(f"{ffn.name}.{name} has a bias, which the sparse operators do not add")
    check_formula(ffn)


def is_sparse(ffn: GatedFFN) -> bool:
    """Whether the activation has exact zeros to skip."""
    return isinstance(ffn.activation, (nn.ReLU, ReLUSquaredActivation, FATReLU, ShiftedReLU))


class DecodingFFN(nn.Module):
    """``down_proj(act(gate) * up)`` with weights laid out for decoding; inference only.

    A neuron's rows of W_1 and W_2^T are adjacent (``neurons`` [intermediate_size, 2, hidden_size]), apart from the
    gate's, which exact decoding reads in full. ``mode`` determines how up to ``MAX_BATCH`` tokens at once are computed:

    - ``dense``: reads every weight;
    - ``exact``: reads the whole gate, then the rows of the active neurons; same values as ``dense``;
    - ``predicted``: reads the gate's rows of the neurons predicted active, then the rows of those that are.

    Under dReLU, both read a row of W_1 where the gate is active, and then that of W_2 where x1 is not 0.

    More tokens, as in a prompt, are computed densely by torch, or exactly, ``MAX_BATCH`` at a time, if the weights are
    packed.

    Args:
        ffn: the source of the weights, taken one after the other: ``ffn.module`` is unusable afterwards.
        predictor: reads ``residual``, which must be set before each call in mode ``predicted``.
        decision_threshold: as a logit.
        rounding: of all weights, the predictor's too; rows of W_2^T are rounded from ``ffn``'s own values.
    """

    def __init__(
        self, ffn: GatedFFN, predictor: Predictor | None, decision_threshold: float, rounding: Rounding | None = None
    ) -> None:
        super().__init__()
        module: Any = ffn.module
        self.mode = "dense"
        self.threshold, self.is_sparse = _threshold(ffn), is_sparse(ffn)
        self.activation, self.relu_up = ffn.activation, ffn.relu_up
        down = getattr(module, ffn.projections[-1]).weight.detach().t()
        dtype = down.dtype
        if rounding is None:
            gate, up = ffn.gate_weight.detach(), ffn.up_weight.detach()
            if len(ffn.projections) == 2:
                gate = gate.clone()  # what we keep of a joint matrix must not keep the other half alive
        else:
            gate, up = rounding.gate_and_up(ffn)
            down = rounding(down, f"{ffn.name}.{ffn.projections[-1]}.weight, transposed")
        neurons = torch.stack([up, down], dim=1)
        self.gate_weight = nn.Parameter(gate, requires_grad=False)
        self.neurons = nn.Parameter(neurons, requires_grad=False)
        self.down_largest_scales = _largest_scales(self.down_weight_transposed)
        for name in ffn.projections:
            delattr(module, name)
        self.residual: Tensor | None = None
        self.decision_threshold = decision_threshold
        self.fc1_weight: nn.Parameter | None = None
        if predictor is not None:
            # transposed, to skip the rows of hidden neurons that the ReLU sets to zero
            weights: list[Tensor] = [predictor.fc1.weight, predictor.fc2.weight.t().contiguous()]
            if rounding is None:
                weights = [weight.detach().to(dtype).to(up.device) for weight in weights]
            else:
                weights = [rounding(weight, f"the predictor of {ffn.name}") for weight in weights]
            fc1, fc2 = weights
            self.fc1_weight = nn.Parameter(fc1, requires_grad=False)
            self.fc2_weight_transposed = nn.Parameter(fc2, requires_grad=False)
            self.fc2_largest_scales = _largest_scales(fc2)

    @property
    def up_weight(self) -> Tensor:
        return self.neurons[:, 0]

    @property
    def down_weight_transposed(self) -> Tensor:
        return self.neurons[:, 1]

    def scores(self, residual: Tensor) -> Tensor:
        """The predictor's logits [tokens, intermediate_size] for rows of the residual stream."""
        assert self.fc1_weight is not None
        hidden = torch.relu(linear(residual, self.fc1_weight))
        return sparse_down(hidden, self.fc2_weight_transposed, self.fc2_largest_scales)

    def forward(self, x: Tensor) -> Tensor:
        rows = few_tokens(x)
        if rows is not None:
            return self._few(rows, self.mode).view(x.shape)
        if quantized.is_packed(self.gate_weight):
            # exact equals dense, and is faster
            return _in_parts(x, x.shape[-1], lambda part: self._few(part, "exact"))
        return self._many(x)

    def _up(self, x: Tensor, weight: Tensor) -> Tensor:
        up = nn.functional.linear(x, weight)
        return up.relu_() if self.relu_up else up

    def _many(self, x: Tensor) -> Tensor:
        gate = self.activation(nn.functional.linear(x, self.gate_weight))
        if self.neurons.device.type != "cpu" or x.dtype == torch.float32:
            return (gate * self._up(x, self.up_weight)) @ self.down_weight_transposed
        # in 16 bits on CPUs torch's product takes about 70 times as long on a view as on a copy
        step = max(1, COPIED_BYTES // self.neurons[0].nbytes)
        output = torch.zeros(x.shape, dtype=torch.float32)
        for part, values in zip(self.neurons.split(step), gate.split(step, dim=-1), strict=True):
            up, down = part.transpose(0, 1).contiguous()
            output += (values * self._up(x, up)) @ down
        return output.to(x.dtype)

    def _few(self, rows: Tensor, mode: str) -> Tensor:
        if mode == "predicted":
            assert self.residual is not None
            residual = self.residual.reshape(rows.shape).contiguous()
            gate = linear(rows, self.gate_weight, self.scores(residual), self.decision_threshold)
        else:
            gate = linear(rows, self.gate_weight)
        if not self.is_sparse:
            # no value is zero, so every row is read
            x1 = self.activation(gate) * linear(rows, self.up_weight)
            return sparse_down(x1, self.down_weight_transposed, self.down_largest_scales)
        threshold = self.threshold
        if threshold is None:
            gate, threshold = self.activation(gate), 0.0
        ffn = dense_ffn if mode == "dense" else sparse_ffn
        down, scales = self.down_weight_transposed, self.down_largest_scales
        return ffn(rows, gate, self.up_weight, down, threshold, scales, relu_up=self.relu_up)
