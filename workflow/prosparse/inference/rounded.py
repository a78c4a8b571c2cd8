"""Give a model the weights that decoding in 8 or 4 bits holds, to measure their cost."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from prosparse.method.activations import gated_ffns
from prosparse.operators import quantized
from prosparse.operators.quantized import Format
from prosparse.system.errors import UserError


def round_weights(model: PreTrainedModel, form: Format) -> None:
    """Round all matrices but the embedding in place, as ``prepare`` does: W_2 by the rows of its transpose.

    The model stays transformers' own, in its dtype, and rounds no activations.

    Raises:
        UserError: the format cannot hold a matrix.
    """
    transposed = {f"{ffn.name}.{ffn.projections[-1]}" for ffn in gated_ffns(model)}
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name, module in linears.items():
        weight = module.weight.detach()
        try:
            packed = quantized.quantize(weight.t() if name in transposed else weight, form, f"{name}.weight")
        except ValueError as error:
            raise UserError(str(error)) from None
        values = quantized.dequantize(packed, weight.dtype).to(weight.device)
        module.weight = nn.Parameter(values.t().contiguous() if name in transposed else values, requires_grad=False)
