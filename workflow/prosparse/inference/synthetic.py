"""Models with random weights, as sparse and predictable as a row of Table 2.

For measuring speed when no trained model of that shape is available. Nothing in them is trained, and their output is
meaningless.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prosparse.experiment.activation import Activation
from prosparse.experiment.decoding import Shape
from prosparse.inference.predictors import Predictor, feeding_norms
from prosparse.method.activations import gated_ffns, substitute
from prosparse.models.build import configuration, empty, in_memory

CONSTANT = 8.0  # coordinate 0 of every token's residual stream, which stands in for biases
CALIBRATION_TOKENS = 64
NORMAL = NormalDist()


@dataclass(frozen=True)
class Target:
    """Shares of a layer's neurons, 0 to 1, as printed in a row of Table 2."""

    sparsity: float
    activation_recall: float
    predicted_sparsity: float

    def correlation(self) -> float:
        """Correlation of a gate and its logit, both normal, that gives this activation recall."""
        active, predicted = NORMAL.inv_cdf(self.sparsity), NORMAL.inv_cdf(self.predicted_sparsity)
        gate = torch.linspace(active, active + 8, 4001, dtype=torch.float64)
        weight = torch.exp(-gate.square() / 2)
        weight /= weight.sum()
        low, high = 0.0, 1 - 1e-6
        for _ in range(50):
            middle = (low + high) / 2
            below = (predicted - middle * gate) / math.sqrt(1 - middle**2)
            recall = float((weight * torch.special.ndtr(-below)).sum())
            low, high = (middle, high) if recall < self.activation_recall else (low, middle)
        return low


class _Values:
    """Normal values, drawn once and reused: drawing billions would take longer than using them."""

    def __init__(self, generator: torch.Generator) -> None:
        self._drawn = torch.randn(1 << 24, generator=generator)
        self._generator = generator

    def fill(self, weight: Tensor, deviation: float) -> None:
        for part in weight.view(-1).split(len(self._drawn)):
            start = int(torch.randint(len(self._drawn) - len(part) + 1, (), generator=self._generator))
            part.copy_(self._drawn[start : start + len(part)] * deviation)
            part.copy_(part.roll(int(torch.randint(len(part), (), generator=self._generator))))


@torch.inference_mode()
def synthetic(
    shape: Shape,
    target: Target,
    dtype: torch.dtype,
    seed: int = 0,
    place: Callable[[Tensor], Tensor] = in_memory,
) -> tuple[PreTrainedModel, list[Predictor]]:
    """A ReLU model and its predictors that meet the target on the model's own tokens.

    A gate's row is part low-rank, part noise, and the predictor knows the low-rank part; their proportion sets the
    recall. The constant in the residual stream gives each layer's gates and logits the bias that sets the two
    sparsities.

    Args:
        place: ``in_memory`` or ``on_disk``.
    """
    config = configuration(shape, shape.vocabulary_size, context_length=4096)
    model = empty(config, dtype, place).eval()
    values = _Values(torch.Generator().manual_seed(seed))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.fill_(1.0)
        elif "embed_tokens" in name:
            values.fill(parameter, 1.0)
            parameter[:, 0] = CONSTANT
        else:
            values.fill(parameter, parameter.shape[1] ** -0.5)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter[0] = 0  # nothing changes the constant
    if not shape.tied_embeddings:
        model.get_output_embeddings().weight[:, 0] = 0
    substitute(model, Activation(name="relu"))
    correlation = target.correlation()
    constant = CONSTANT * getattr(model.config, "embedding_multiplier", 1.0)
    predictors = [_predictable(ffn.module, shape.rank, correlation, constant, values) for ffn in gated_ffns(model)]
    _set_biases(model, predictors, target, seed)
    return model, predictors


def _predictable(module: nn.Module, rank: int, correlation: float, constant: float, values: _Values) -> Predictor:
    """Give a gate the part that its predictor knows, and return that part."""
    gate: Tensor = module.get_submodule("gate_proj").weight  # type: ignore[assignment]
    intermediate, hidden = gate.shape
    half = rank // 2 - 1
    fc1, fc2 = torch.zeros(rank, hidden, dtype=gate.dtype), torch.zeros(intermediate, rank, dtype=gate.dtype)
    inner, outer = torch.empty(half, hidden), torch.empty(intermediate, half)
    values.fill(inner, hidden**-0.5)
    values.fill(outer, half**-0.5)
    inner[:, 0] = 0
    known = outer @ inner
    gate.copy_(known.mul_(correlation).add_(gate.float(), alpha=math.sqrt(1 - correlation**2)))
    gate[:, 0] = 0
    fc1[0, 0] = 1 / constant  # a hidden neuron that is always 1
    fc1[1 : half + 1], fc1[half + 1 : 2 * half + 1] = inner, -inner
    fc2[:, 1 : half + 1], fc2[:, half + 1 : 2 * half + 1] = outer, -outer
    return Predictor.of(fc1, fc2).requires_grad_(False)


def _set_biases(model: PreTrainedModel, predictors: list[Predictor], target: Target, seed: int) -> None:
    """Set the biases layer by layer, since a layer's input depends on the biases before it."""
    ffns, norms = gated_ffns(model), feeding_norms(model)

    def set_layer(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            residual = inputs[0].flatten(0, -2)
            normed = norms[layer].forward(inputs[0]).flatten(0, -2)
            gate: Tensor = ffns[layer].module.get_submodule("gate_proj").weight  # type: ignore[assignment]
            quantile = _quantile(normed @ gate.T, target.sparsity)
            gate[:, 0] = -quantile / normed[:, 0].float().mean()
            logits = predictors[layer](residual)
            predictors[layer].fc2.weight[:, 0] = -_quantile(logits, target.predicted_sparsity)

        return hook

    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(model.config.vocab_size, (CALIBRATION_TOKENS, 1), generator=generator)
    hooks = [norm.register_forward_pre_hook(set_layer(layer)) for layer, norm in enumerate(norms)]
    model.base_model(input_ids=tokens.T, use_cache=False)
    for hook in hooks:
        hook.remove()


def _quantile(values: Tensor, share: float) -> float:
    ordered = values.float().flatten().sort().values
    return float(ordered[min(int(share * len(ordered)), len(ordered) - 1)])
