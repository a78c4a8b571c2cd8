"""The sparse operators inside a Hugging Face model: exact, gate first, with the tokens of the dense model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prosparse.config import UserError
from prosparse.method.activations import FATReLU, GatedFFN, ShiftedReLU, gated_ffns
from prosparse.operators import MAX_BATCH, sparse_ffn


class TransposedLinear(nn.Module):
    """A linear layer that holds its weight transposed, [in_features, out_features], for ``sparse_down`` to share."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight_transposed = nn.Parameter(weight.detach().t().contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_transposed.t()
        if weight.device.type == "cpu" and weight.dtype != torch.float32:
            # torch's 16-bit product for CPUs takes about 70 times as long on a transposed view
            weight = weight.contiguous()
        return nn.functional.linear(x, weight)


def _threshold(ffn: GatedFFN) -> float | None:
    """The gate's threshold, None where the activation's values and not its inputs say what is active.

    Raises:
        UserError: the operators cannot do what this FFN does.
    """
    for name in ("gate_proj", "up_proj", "gate_up_proj", "down_proj"):
        projection = getattr(ffn.module, name, None)
        if projection is None:
            continue
        if type(projection) is not nn.Linear:
            raise UserError(f"{ffn.name}.{name} is a {type(projection).__name__}: a plain linear layer is needed")
        if projection.bias is not None:
            raise UserError(f"{ffn.name}.{name} has a bias, which the sparse operators do not add")
    activation = getattr(ffn.module, ffn.activation_attribute)
    match activation:
        case nn.ReLU():
            return 0.0
        case FATReLU():
            return activation.threshold
        case ShiftedReLU():
            return None
    raise UserError(f"{ffn.name}: {activation} has no zeros to skip; relu, shiftrelu or fatrelu is needed")


class SparseFFN(nn.Module):
    """A gated FFN that reads only the rows of W_1 and W_2 whose gate is active.

    For up to ``MAX_BATCH`` tokens at once, as in decoding. More of them, as in a prompt, are computed densely: nearly
    every row is then active for one of them.
    """

    dense: Any  # the module it replaces
    activation: nn.Module

    def __init__(self, ffn: GatedFFN, threshold: float | None) -> None:
        super().__init__()
        self.threshold = threshold
        self.dense = ffn.module
        self.activation = getattr(ffn.module, ffn.activation_attribute)
        # for the dense path too, so that the model does not grow
        self.dense.down_proj = TransposedLinear(self.dense.down_proj.weight)

    def _gate_and_up_weights(self) -> tuple[Tensor, Tensor]:
        if hasattr(self.dense, "gate_up_proj"):
            gate_weight, up_weight = self.dense.gate_up_proj.weight.chunk(2)
            return gate_weight, up_weight
        return self.dense.gate_proj.weight, self.dense.up_proj.weight

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        if not 1 <= len(rows) <= MAX_BATCH or torch.is_autocast_enabled(x.device.type):
            return self.dense(x)
        gate_weight, up_weight = self._gate_and_up_weights()
        gate, threshold = nn.functional.linear(rows, gate_weight), self.threshold
        if threshold is None:
            gate, threshold = self.activation(gate), 0.0
        return sparse_ffn(rows, gate, up_weight, self.dense.down_proj.weight_transposed, threshold).view(x.shape)


def use_sparse_ffns(model: nn.Module) -> None:
    """Let every gated FFN of a ReLU-activated model skip its inactive neurons; for inference alone.

    Raises:
        UserError: the model has no gated FFN, or one that the operators cannot do: with a bias, with layers that are
            not plain linear ones, or with an activation without exact zeros. The model is then left as it was.
    """
    ffns = gated_ffns(model)
    thresholds = [_threshold(ffn) for ffn in ffns]
    for ffn, threshold in zip(ffns, thresholds, strict=True):
        model.set_submodule(ffn.name, SparseFFN(ffn, threshold))
