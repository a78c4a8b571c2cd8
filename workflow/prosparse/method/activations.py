"""Activation functions of the gate and their substitution (paper, sections 3.1 and 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prosparse.config import Activation, UserError


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


@dataclass(frozen=True)
class GatedFFN:
    """One layer's FFN ``down_proj(act(gate) * up)``; the input of ``down_proj`` is x1 of Eq. 2."""

    name: str
    module: nn.Module
    activation_attribute: str

    @property
    def down_proj(self) -> nn.Module:
        return self.module.get_submodule("down_proj")


class UnsupportedArchitecture(UserError):
    """The model has no gated FFN, whose x1 is what the method makes sparse."""


#: What transformers' gated MLPs call their activation (LLaMA, Mistral, Qwen, Gemma, Granite; Phi-3, GLM).
ACTIVATION_ATTRIBUTES = ("act_fn", "activation_fn")


def gated_ffns(model: nn.Module) -> list[GatedFFN]:
    """The gated FFNs of a model in layer order, whether gate and up are two matrices or one.

    Raises:
        UnsupportedArchitecture: the model has none (GPT-2's ungated MLP, or experts).
    """
    found = []
    for name, module in model.named_modules():
        children = dict(module.named_children())
        gated = "gate_up_proj" in children or {"gate_proj", "up_proj"} <= children.keys()
        attribute = next((a for a in ACTIVATION_ATTRIBUTES if hasattr(module, a)), None)
        if gated and "down_proj" in children and attribute is not None:
            found.append(GatedFFN(name, module, attribute))
    if not found:
        raise UnsupportedArchitecture(
            f"{type(model).__name__} has no gated FFN: a module with gate_proj and up_proj (or gate_up_proj), "
            f"down_proj and {' or '.join(ACTIVATION_ATTRIBUTES)} is needed (LLaMA, Mistral, Qwen, Phi-3 have one)"
        )
    return found


def substitute(model: nn.Module, activation: Activation) -> None:
    """Replace the gate's activation in every layer; weights stay as they are.

    The choice is written to the model's config as ``hidden_act`` and ``hidden_act_param``, the
    names that the authors' released checkpoints use. silu and relu checkpoints stay loadable by
    any stock loader; one that does not know the others refuses their ``hidden_act``.
    """
    for ffn in gated_ffns(model):
        setattr(ffn.module, ffn.activation_attribute, activation_module(activation))
    config = getattr(model, "config", None)
    if config is not None:
        config.hidden_act = activation.name
        if activation.parameter is not None:
            config.hidden_act_param = activation.parameter
        elif hasattr(config, "hidden_act_param"):
            del config.hidden_act_param
