"""Describe a prepared model for ``torch.classes.prosparse.Decoder``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ReLUSquaredActivation
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from prosparse.inference import rotary
from prosparse.inference.families import Family, NormKind, family
from prosparse.inference.sparse_ffn import DecodingFFN, StreamingLinear
from prosparse.method.activations import FATReLU, ShiftedReLU
from prosparse.system.errors import UserError

#: As decoder.cpp numbers them.
ACTIVATIONS = {nn.SiLU: 0, nn.ReLU: 1, FATReLU: 1, ShiftedReLU: 2, ReLUSquaredActivation: 3}
OTHER_ATTENTION = ("attn_logit_softcapping", "clip_qkv")  # fields of configs; None: nothing of the kind


class UnknownLayer(UserError):
    """The model computes something that the native decoder does not."""


@dataclass
class Described:
    """The model outside its layers, or one layer, by the names that decoder.cpp knows."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    def add_linear(self, name: str, weight: Tensor, bias: Tensor | None) -> None:
        self.tensors[f"{name}_weight"] = weight.detach()
        if bias is not None:
            self.tensors[f"{name}_bias"] = bias.detach()

    def add_norm(self, name: str, kind: NormKind, module: nn.Module) -> None:
        parts = list(getattr(module, "norms", [module]))  # StableLM has a module per head
        epsilons = (getattr(parts[0], key, None) for key in ("variance_epsilon", "eps"))
        for parameter in ("weight", "bias"):
            values = [value for part in parts if (value := getattr(part, parameter, None)) is not None]
            if values:
                flat = [value.detach().flatten() for value in values]
                self.tensors[f"{name}_{parameter}"] = flat[0] if len(flat) == 1 else torch.cat(flat)
        # OLMo's is fixed
        self.numbers[f"{name}_epsilon"] = next((float(each) for each in epsilons if each is not None), 1e-5)
        self.numbers[f"{name}_narrow"] = kind.narrow
        self.numbers[f"{name}_offset"] = kind.offset
        self.numbers[f"{name}_centred"] = kind.centred


def describe(model: PreTrainedModel) -> tuple[Described, list[Described]]:
    """The model outside its layers, and its layers in order.

    Raises:
        UnknownLayer: the model computes something that the native decoder does not.
    """
    config: Any = model.config
    of = family(model)
    if of is None:
        raise UnknownLayer(f"the native decoder does not support {config.model_type}")
    for key in OTHER_ATTENTION:
        if getattr(config, key, None) is not None:
            raise UnknownLayer(f"the native decoder does not support {key}")
    base, head = model.base_model, model.get_output_embeddings()
    whole = Described()
    whole.add_linear("embedding", model.get_input_embeddings().weight, None)  # type: ignore[arg-type]
    whole.numbers["embedding_multiplier"] = _embedding_multiplier(model)
    whole.add_linear("head", head.weight, head.bias)  # type: ignore[arg-type]
    whole.add_norm("final", of.norm, base.norm)  # type: ignore[arg-type]
    kinds, kept = rotary.kinds(model), DynamicCache(config=config).layers
    types = getattr(config, "layer_types", None) or [None] * len(kept)
    layers = []
    for layer, cached, layer_type in zip(base.layers, kept, types, strict=True):  # type: ignore[arg-type]
        if type(cached) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise UnknownLayer(f"the native decoder does not support a cache of {type(cached).__name__}")
        found = _layer(of, layer)
        found.numbers["window"] = getattr(cached, "sliding_window", None) or 0
        if kinds and of.rotates(layer.self_attn):
            found.numbers["rotary_kind"] = kinds.index(layer_type if layer_type in kinds else None)
        layers.append(found)
    return whole, layers


def _embedding_multiplier(model: PreTrainedModel) -> float:
    module: Any = model.get_input_embeddings()
    if type(module) is nn.Embedding:
        return float(getattr(model.base_model, "embedding_multiplier", 1.0))  # type: ignore[arg-type]
    if hasattr(module, "embed_scale"):
        return float(module.embed_scale.to(module.weight.dtype))
    raise UnknownLayer(f"the native decoder does not support the embedding {type(module).__name__}")


def _layer(of: Family, layer: Any) -> Described:
    found = Described()
    found.numbers["parallel"] = parallel = of.parallel is not None and of.parallel(layer)
    for name in ("before_attention", "after_attention", "before_ffn", "after_ffn"):
        if (module := getattr(of, name)) is not None and not (parallel and name == "before_ffn"):
            found.add_norm(name, of.norm, getattr(layer, module))
    _add_attention(found, layer.self_attn, of)
    ffns = [module for module in layer.children() if isinstance(module, DecodingFFN)]
    if len(ffns) != 1:
        raise UnknownLayer(f"{type(layer).__name__} has {len(ffns)} gated FFNs")
    _add_ffn(found, ffns[0])
    found.numbers["residual_multiplier"] = float(getattr(layer, "residual_multiplier", 1.0))
    return found


def _add_attention(found: Described, attention: Any, of: Family) -> None:
    size = attention.head_dim
    separate = [getattr(attention, name, None) for name in ("q_proj", "k_proj", "v_proj")]
    joint, output = getattr(attention, "qkv_proj", None), getattr(attention, "o_proj", None)
    if type(output) is not StreamingLinear:
        raise UnknownLayer(f"{type(attention).__name__} has no plain projection of its output")
    found.add_linear("output", output.weight, output.bias)
    if type(joint) is StreamingLinear:
        rows = attention.config.num_attention_heads * size
        found.add_linear("joint", joint.weight, joint.bias)
    elif all(type(linear) is StreamingLinear for linear in separate):
        rows = len(separate[0].weight)  # type: ignore[union-attr]
        found.add_linear("joint", *_joined(separate))  # type: ignore[arg-type]
    else:
        raise UnknownLayer(f"{type(attention).__name__} has no plain projections of queries, keys and values")
    heads = {"query": rows // size, "key": (len(found.tensors["joint_weight"]) - rows) // 2 // size}
    found.numbers |= {"heads": heads["query"], "kv_heads": heads["key"], "head_size": size}
    found.numbers["scale"] = float(attention.scaling)
    for name in ("query", "key"):
        module = getattr(attention, getattr(of, f"{name}_norm") or "", None)
        if module is not None:
            found.add_norm(f"{name}_norm", of.norm, module)
            found.numbers[f"{name}_norm_whole"] = of.whole_norms
            weight = found.tensors.get(f"{name}_norm_weight")
            own = not of.whole_norms and weight is not None and len(weight) == heads[name] * size != size
            found.numbers[f"{name}_norm_own"] = own
    found.numbers["norms_after_rotation"] = of.norms_after_rotation
    found.numbers["neighbours"] = of.neighbours
    found.numbers["narrow_rotary"] = of.narrow_rotary


def _joined(linears: list[StreamingLinear]) -> tuple[Tensor, Tensor | None]:
    """One matrix of several layers' rows, which become views of it, and their biases."""
    weight = torch.cat([linear.weight.detach() for linear in linears])
    sizes = [len(linear.weight) for linear in linears]
    for linear, part in zip(linears, weight.split(sizes), strict=True):
        linear.weight = nn.Parameter(part, requires_grad=False)
    biases: list[Tensor | None] = [linear.bias for linear in linears]
    if all(bias is None for bias in biases):
        return weight, None
    dtype = next(bias.dtype for bias in biases if bias is not None)
    filled: list[Tensor] = [
        torch.zeros(n, dtype=dtype) if bias is None else bias for bias, n in zip(biases, sizes, strict=True)
    ]
    return weight, torch.cat(filled)


def _add_ffn(found: Described, ffn: DecodingFFN) -> None:
    if type(ffn.activation) not in ACTIVATIONS:
        raise UnknownLayer(f"the native decoder does not support the activation {type(ffn.activation).__name__}")
    found.numbers["activation"] = ACTIVATIONS[type(ffn.activation)]  # type: ignore[index]
    shift = ffn.activation.bias if isinstance(ffn.activation, ShiftedReLU) else 0.0
    found.numbers["threshold"] = shift if ffn.threshold is None else ffn.threshold
    found.numbers["relu_up"] = ffn.relu_up
    found.numbers["decision_threshold"] = ffn.decision_threshold
    found.add_linear("gate", ffn.gate_weight, None)
    found.tensors |= {"up_weight": ffn.up_weight, "down_weight_transposed": ffn.down_weight_transposed}
    if ffn.down_largest_scales is not None:
        found.tensors["down_largest_scales"] = ffn.down_largest_scales
    if ffn.fc1_weight is not None:
        found.tensors |= {"fc1_weight": ffn.fc1_weight, "fc2_weight_transposed": ffn.fc2_weight_transposed}
        if ffn.fc2_largest_scales is not None:
            found.tensors["fc2_largest_scales"] = ffn.fc2_largest_scales
