"""What the decoder layers of each family compute, for the native decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True)
class NormKind:
    """How a family's norm modules compute; the defaults are RMSNorm in float32, rounded once at the end."""

    narrow: bool = False  # rounds to the weights' dtype before it multiplies by the weight
    offset: float = 0.0  # added to the weight
    centred: bool = False  # LayerNorm


NARROW, WIDE, GEMMA, LAYER_NORM = NormKind(narrow=True), NormKind(), NormKind(offset=1.0), NormKind(centred=True)


def _always(attention: Any) -> bool:
    return True


def _as_they_are(model: Any, logits: Tensor) -> Tensor:
    return logits


def _divided(model: Any, logits: Tensor) -> Tensor:
    return logits / model.config.logits_scaling


def _multiplied(model: Any, logits: Tensor) -> Tensor:
    return logits * model.config.logits_scaling


def _cohere_logits(model: Any, logits: Tensor) -> Tensor:
    return logits * model.logit_scale


def _capped(model: Any, logits: Tensor) -> Tensor:
    cap = model.config.final_logit_softcapping
    return logits if cap is None else (logits / cap).tanh() * cap


@dataclass(frozen=True)
class Family:
    """A layer's modules by their role, None where there is none, and how they compute; the defaults are LLaMA's."""

    norm: NormKind = NARROW
    before_attention: str | None = "input_layernorm"
    after_attention: str | None = None
    before_ffn: str | None = "post_attention_layernorm"
    after_ffn: str | None = None
    parallel: Callable[[Any], bool] | None = None  # whether a layer's FFN reads the input of its attention
    query_norm: str | None = None
    key_norm: str | None = None
    whole_norms: bool = False  # these normalize all heads together
    norms_after_rotation: bool = False
    neighbours: bool = False  # rotates neighbouring features, not those half of them apart
    repeats: bool = False  # the first half of the cosines is for pairs of neighbours
    narrow_rotary: bool = True  # rounds products to the weights' dtype before it adds them
    rotates: Callable[[Any], bool] = _always  # whether an attention module rotates
    logits: Callable[[Any, Tensor], Tensor] = _as_they_are  # from the model and the head's output


LLAMA = Family()
GEMMA2 = Family(
    norm=GEMMA,
    after_attention="post_attention_layernorm",
    before_ffn="pre_feedforward_layernorm",
    after_ffn="post_feedforward_layernorm",
    logits=_capped,
)
OLMO2 = Family(
    norm=WIDE,
    before_attention=None,
    after_attention="post_attention_layernorm",
    before_ffn=None,
    after_ffn="post_feedforward_layernorm",
    query_norm="q_norm",
    key_norm="k_norm",
    whole_norms=True,
    narrow_rotary=False,
)
COHERE = Family(
    norm=LAYER_NORM,
    before_ffn=None,
    parallel=_always,
    query_norm="q_norm",
    key_norm="k_norm",
    neighbours=True,
    narrow_rotary=False,
    logits=_cohere_logits,
)
#: By ``model_type``.
FAMILIES = {
    **dict.fromkeys(("cwm", "internlm3", "iquestcoder", "llama", "ministral", "ministral3"), LLAMA),
    **dict.fromkeys(("mistral", "phi3", "qwen2", "seed_oss"), LLAMA),
    **dict.fromkeys(("granite", "granitemoehybrid"), Family(logits=_divided)),  # MiniCPM is opened as Granite
    "cohere": COHERE,
    "cohere2": Family(
        norm=LAYER_NORM, before_ffn=None, parallel=_always, neighbours=True, narrow_rotary=False,
        rotates=lambda attention: attention.sliding_window is not None, logits=_cohere_logits,
    ),
    "ernie4_5": Family(neighbours=True, repeats=True, narrow_rotary=False),
    "exaone4": Family(
        before_attention=None, after_attention="post_attention_layernorm",
        before_ffn=None, after_ffn="post_feedforward_layernorm", query_norm="q_norm", key_norm="k_norm",
        rotates=lambda attention: attention.sliding_window is None or attention.is_sliding,
    ),
    "gemma": Family(norm=GEMMA),
    "gemma2": GEMMA2,
    "gemma3_text": Family(
        norm=GEMMA, after_attention="post_attention_layernorm", before_ffn="pre_feedforward_layernorm",
        after_ffn="post_feedforward_layernorm", query_norm="q_norm", key_norm="k_norm", logits=_capped,
    ),
    "glm": Family(neighbours=True, repeats=True),
    "glm4": Family(
        after_attention="post_self_attn_layernorm", after_ffn="post_mlp_layernorm", neighbours=True, repeats=True
    ),
    "helium": Family(norm=WIDE, neighbours=True, repeats=True),
    "hunyuan_v1_dense": Family(query_norm="query_layernorm", key_norm="key_layernorm", norms_after_rotation=True),
    "hyperclovax": Family(after_attention="post_norm1", after_ffn="post_norm2", logits=_multiplied),
    "olmo": Family(norm=LAYER_NORM, narrow_rotary=False),
    "olmo2": OLMO2,
    "olmo3": OLMO2,
    "qwen3": Family(query_norm="q_norm", key_norm="k_norm"),
    "smollm3": Family(rotates=lambda attention: bool(attention.use_rope)),
    "stablelm": Family(
        norm=LAYER_NORM, query_norm="q_layernorm", key_norm="k_layernorm",
        parallel=lambda layer: layer.use_parallel_residual,
    ),
    "vaultgemma": Family(norm=GEMMA, before_ffn="pre_feedforward_layernorm", logits=_capped),
}  # fmt: skip


def family(model: PreTrainedModel) -> Family | None:
    """The model's family, if it is known."""
    return FAMILIES.get(model.config.model_type)
