"""Activation functions of the gate and their substitution (paper, sections 3.1 and 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prosparse.experiment.activation import Activation
from prosparse.system.errors import UserError


class ShiftedReLU(nn.Module):
    """``max(x - bias, 0)``, the Shifted ReLU baseline."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x - self.bias)

    def extra_repr(self) -> str:
        return f"bias={self.bias:g}"


class FATReLU(nn.Module):
    """``x if x >= threshold else 0``; compared in x's dtype, and x = threshold is kept."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x >= self.threshold, x, 0)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold:g}"


def activation_module(activation: Activation) -> nn.Module:
    match activation.name:
        case "silu":
            return nn.SiLU()
        case "relu":
            return nn.ReLU()
        case "shiftrelu":
            return ShiftedReLU(float(activation.parameter or 0))
        case "fatrelu":
            return FATReLU(float(activation.parameter or 0))


#: How transformers' gated MLPs name their projections, the one back to the residual stream last. Of a joint gate and
#: up projection, the gate's rows come first.
PROJECTIONS = (
    ("gate_proj", "up_proj", "down_proj"),  # LLaMA, Mistral, Qwen, Gemma, Granite
    ("gate_up_proj", "down_proj"),  # Phi-3, GLM
    ("input_linear", "output_linear"),  # Granite 4
)
#: What they call their activation.
ACTIVATION_ATTRIBUTES = ("act_fn", "activation_fn", "activation")


@dataclass(frozen=True)
class GatedFFN:
    """One layer's FFN ``down_proj(act(gate) * up)``; the input of ``down_proj`` is x1 of Eq. 2."""

    name: str
    module: nn.Module
    activation_attribute: str
    projections: tuple[str, ...]

    @property
    def activation(self) -> nn.Module:
        return getattr(self.module, self.activation_attribute)

    @property
    def down_proj(self) -> nn.Module:
        return self.module.get_submodule(self.projections[-1])

    @property
    def gate_weight(self) -> Tensor:
        """[intermediate_size, hidden_size], a view where gate and up projection are one matrix."""
        weight: Any = self.module.get_submodule(self.projections[0]).weight
        return weight if len(self.projections) == 3 else weight.chunk(2)[0]

    @property
    def up_weight(self) -> Tensor:
        """[intermediate_size, hidden_size], a view where gate and up projection are one matrix."""
        weight: Any = self.module.get_submodule(self.projections[-2]).weight
        return weight if len(self.projections) == 3 else weight.chunk(2)[1]

    def gate_and_up(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The activation's input and its factor, [..., intermediate_size] each."""
        first = self.module.get_submodule(self.projections[0])(x)
        if len(self.projections) == 3:
            return first, self.module.get_submodule(self.projections[1])(x)
        gate, up = first.chunk(2, dim=-1)
        return gate, up


class UnsupportedArchitecture(UserError):
    """Not all of the model's FFN computation is in gated FFNs, whose x1 is what the method makes sparse."""


def gated_ffns(model: nn.Module) -> list[GatedFFN]:
    """The gated FFNs of a model in layer order, whether gate and up are two matrices or one.

    They are found by name; ``whole_ffn.check`` proves that they compute what their names say, and that there are no
    others.

    Raises:
        UnsupportedArchitecture: the model has none (GPT-2's ungated MLP, or experts).
    """
    found = []
    for name, module in model.named_modules():
        children = dict(module.named_children())
        projections = next((names for names in PROJECTIONS if children.keys() >= set(names)), None)
        attribute = next((a for a in ACTIVATION_ATTRIBUTES if hasattr(module, a)), None)
        if projections is not None and attribute is not None:
            found.append(GatedFFN(name, module, attribute, projections))
    if not found:
        raise UnsupportedArchitecture(
            f"{type(model).__name__} has no gated FFN: a module with gate_proj and up_proj (or gate_up_proj), "
            "down_proj and act_fn is needed (LLaMA, Mistral, Qwen, Phi-3 have one; experts are none)"
        )
    return found


def activation_key(config: Any) -> str:
    """The field of a model's config that names the activation of its FFNs."""
    return next((key for key in ("hidden_activation", "mlp_hidden_act") if hasattr(config, key)), "hidden_act")


def substitute(model: nn.Module, activation: Activation) -> None:
    """Replace the gate's activation in every layer; weights stay as they are.

    The choice is written to the model's config as ``hidden_act`` (Gemma: ``hidden_activation``) and
    ``hidden_act_param``, the names that the authors' released checkpoints use. silu and relu checkpoints stay loadable
    by any stock loader; one that does not know the others refuses their ``hidden_act``.
    """
    for ffn in gated_ffns(model):
        setattr(ffn.module, ffn.activation_attribute, activation_module(activation))
    config = getattr(model, "config", None)
    if config is not None:
        setattr(config, activation_key(config), activation.name)
        if activation.parameter is not None:
            config.hidden_act_param = activation.parameter
        elif hasattr(config, "hidden_act_param"):
            del config.hidden_act_param
