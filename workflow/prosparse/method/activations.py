"""The gate's activation functions, and how to substitute them (sections 3.1, 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ReLUSquaredActivation

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
    """``x if x >= threshold else 0``, compared in x's dtype."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x >= self.threshold, x, 0)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold:g}"


class ReLULinear(nn.Linear):
    """``relu(x W^T + b)``: the up projection under dReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


def activation_module(activation: Activation) -> nn.Module:
    """Return the function of the gate; under dReLU (TurboSparse, arXiv 2406.05955) it is one of two ReLUs.

    relu2 is Primer's squared ReLU (arXiv 2109.08668), as transformers computes it.
    """
    match activation.name:
        case "silu":
            return nn.SiLU()
        case "relu" | "drelu":
            return nn.ReLU()
        case "relu2":
            return ReLUSquaredActivation()
        case "shiftrelu":
            return ShiftedReLU(float(activation.parameter or 0))
        case "fatrelu":
            return FATReLU(float(activation.parameter or 0))


#: Names of the projections in transformers' gated MLPs; the last one writes to the residual stream. In a fused gate and
#: up projection, the gate's rows come first.
PROJECTIONS = (
    ("gate_proj", "up_proj", "down_proj"),  # LLaMA, Mistral, Qwen, Gemma, Granite
    ("gate_up_proj", "down_proj"),  # Phi-3, GLM
    ("input_linear", "output_linear"),  # Granite 4
)
#: Names of their activation.
ACTIVATION_ATTRIBUTES = ("act_fn", "activation_fn", "activation")


@dataclass(frozen=True)
class GatedFFN:
    """One layer's FFN ``down_proj(act(gate) * up)``; the input of ``down_proj`` is x1 of Eq. 2.

    ``up`` is what the up projection's module returns: with ``relu_up``, after its ReLU.
    """

    name: str
    module: nn.Module
    activation_attribute: str
    projections: tuple[str, ...]

    @property
    def activation(self) -> nn.Module:
        return getattr(self.module, self.activation_attribute)

    @property
    def relu_up(self) -> bool:
        """Whether a ReLU follows the up projection (dReLU)."""
        return isinstance(self.module.get_submodule(self.projections[-2]), ReLULinear)

    def set_relu_up(self, relu: bool) -> None:
        """Add or remove the up projection's ReLU; its parameters, their names and their values stay.

        A joint projection rectifies the gate too, whose activation under dReLU is ReLU anyway.

        Raises:
            UnsupportedArchitecture: the projection is not a plain linear layer.
        """
        if relu == self.relu_up:
            return
        name = self.projections[-2]
        replaced: Any = self.module.get_submodule(name)
        if type(replaced) not in (nn.Linear, ReLULinear):
            raise UnsupportedArchitecture(
                f"{self.name}.{name} is a {type(replaced).__name__}: drelu needs a plain linear layer"
            )
        with torch.device("meta"):
            linear = (ReLULinear if relu else nn.Linear)(
                replaced.in_features, replaced.out_features, bias=replaced.bias is not None
            )
        linear.weight, linear.bias = replaced.weight, replaced.bias
        setattr(self.module, name, linear.train(replaced.training))

    @property
    def down_proj(self) -> nn.Module:
        return self.module.get_submodule(self.projections[-1])

    @property
    def gate_proj(self) -> nn.Module:
        """The projection that computes the gate, and the up projection too where they are one matrix."""
        return self.module.get_submodule(self.projections[0])

    @property
    def gate_weight(self) -> Tensor:
        """[intermediate_size, hidden_size], a view where gate and up projection are one matrix."""
        weight: Any = self.gate_proj.weight
        return weight if len(self.projections) == 3 else weight.chunk(2)[0]

    @property
    def up_weight(self) -> Tensor:
        """[intermediate_size, hidden_size], a view where gate and up projection are one matrix."""
        weight: Any = self.module.get_submodule(self.projections[-2]).weight
        return weight if len(self.projections) == 3 else weight.chunk(2)[1]

    def gate_and_up(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the activation's input and its factor, [..., intermediate_size] each."""
        first = self.gate_proj(x)
        if len(self.projections) == 3:
            return first, self.module.get_submodule(self.projections[1])(x)
        gate, up = first.chunk(2, dim=-1)
        return gate, up


class UnsupportedArchitecture(UserError):
    """Some of the model's FFN computation is outside gated FFNs, whose x1 the method makes sparse."""


def gated_ffns(model: nn.Module) -> list[GatedFFN]:
    """Find a model's gated FFNs, in layer order, with separate or fused gate and up projections.

    They are found by name; ``whole_ffn.check`` verifies that they compute what their names say and that there are no
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
            "down_proj and act_fn is needed (LLaMA, Mistral, Qwen, Phi-3 have one; mixture-of-experts layers do not "
            "count)"
        )
    return found


def activation_key(config: Any) -> str:
    """Return the name of the config field that holds the FFNs' activation."""
    return next((key for key in ("hidden_activation", "mlp_hidden_act") if hasattr(config, key)), "hidden_act")


def substitute(model: nn.Module, activation: Activation) -> None:
    """Replace the gate's activation in every layer, for dReLU the up projection's too; the weights do not change.

    The model's config records it as ``hidden_act`` (Gemma: ``hidden_activation``) and ``hidden_act_param``, the names
    that the authors' released checkpoints use. Any stock loader opens silu, relu and relu2 checkpoints; one that does
    not know the other activations refuses their ``hidden_act``.
    """
    for ffn in gated_ffns(model):
        ffn.set_relu_up(activation.name == "drelu")
        setattr(ffn.module, ffn.activation_attribute, activation_module(activation))
    config = getattr(model, "config", None)
    if config is not None:
        setattr(config, activation_key(config), activation.name)
        if activation.parameter is not None:
            config.hidden_act_param = activation.parameter
        elif hasattr(config, "hidden_act_param"):
            del config.hidden_act_param
