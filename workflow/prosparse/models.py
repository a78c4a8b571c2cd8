"""Building, loading and converting models; checkpoints are ordinary Hugging Face directories."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    GraniteConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from prosparse import devices
from prosparse.allocator import keep_freed_memory
from prosparse.config import Activation, Architecture, ConfigError, Precision, PretrainedInit
from prosparse.method.activations import substitute
from prosparse.released import configuration as configuration_of
from prosparse.released import scalings


def configuration(architecture: Architecture, vocabulary_size: int, context_length: int) -> PretrainedConfig:
    """Of a SwiGLU decoder.

    MiniCPM is LLaMA with three scalings, which transformers has in its Granite family.
    """
    common: dict[str, Any] = {
        "vocab_size": vocabulary_size,
        "hidden_size": architecture.hidden_size,
        "intermediate_size": architecture.intermediate_size,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.kv_heads,
        "max_position_embeddings": context_length,
        "tie_word_embeddings": architecture.tied_embeddings,
        "hidden_act": "silu",
        "initializer_range": architecture.hidden_size**-0.5,  # the usual 0.02 is far too small for narrow models
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    if architecture.type == "minicpm":
        assert architecture.scale_emb is not None  # the config has checked all three
        assert architecture.scale_depth is not None
        assert architecture.dim_model_base is not None
        return GraniteConfig(
            **common,
            **scalings(
                architecture.layers,
                architecture.hidden_size,
                architecture.heads,
                architecture.scale_emb,
                architecture.scale_depth,
                architecture.dim_model_base,
            ),
        )
    return LlamaConfig(**common)


def from_scratch(architecture: Architecture, vocabulary_size: int, context_length: int, seed: int) -> PreTrainedModel:
    """A randomly initialised SwiGLU decoder; the same seed gives the same weights."""
    config = configuration(architecture, vocabulary_size, context_length)
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)


def unset(architecture: Architecture, vocabulary_size: int, context_length: int, dtype: torch.dtype) -> PreTrainedModel:
    """A SwiGLU decoder whose weights hold nothing yet, for one who sets them all: drawing billions takes minutes."""
    return empty(configuration(architecture, vocabulary_size, context_length), dtype).eval()


def empty(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model of this shape whose weights hold nothing yet, under an activation that transformers knows."""
    config.hidden_act = "silu"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.to_empty(device="cpu")
    rotary = model.base_model.rotary_emb
    model.base_model.rotary_emb = type(rotary)(config=config)  # its frequencies are no weights, and were emptied too
    model.tie_weights()
    return model


def pretrained(init: PretrainedInit, dtype: torch.dtype | Literal["auto"] = torch.float32) -> PreTrainedModel:
    """A model from the hub, a local directory or a GGUF file; ``auto`` is the dtype it was saved in (not for GGUF)."""
    if init.gguf_file is None:
        return load(init.pretrained, revision=init.revision, dtype=dtype)
    loaded = AutoModelForCausalLM.from_pretrained(
        init.pretrained, gguf_file=init.gguf_file, revision=init.revision, dtype=torch.float32
    )
    # the quantisation config stays on a de-quantised model and makes save_pretrained fail
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    model = AutoModelForCausalLM.from_config(type(loaded.config).from_dict(settings), dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    return model


def own_activation(config: PretrainedConfig) -> Activation:
    """The activation a checkpoint was saved with.

    Raises:
        ConfigError: one this project has no operator for (GELU, say).
    """
    try:
        parameter = getattr(config, "hidden_act_param", None)
        return Activation(name=config.hidden_act, parameter=parameter)
    except (AttributeError, ValueError):
        raise ConfigError(
            f"hidden_act {getattr(config, 'hidden_act', None)!r} of {config.model_type}: "
            "allowed are silu, relu, shiftrelu, fatrelu (the last two with hidden_act_param)"
        ) from None


def load(
    directory: str | Path,
    activation: Activation | None = None,
    revision: str | None = None,
    dtype: torch.dtype | Literal["auto"] = torch.float32,
) -> PreTrainedModel:
    """A checkpoint under its own activation, or under another one with the same weights.

    Raises:
        ConfigError: not a model directory, an unsupported activation or architecture, or weights that are not
            those of the architecture.
    """
    config = configuration_of(directory, revision)
    own = own_activation(config)
    config.hidden_act = "silu"  # any that transformers knows: replaced below
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory, config=config, revision=revision, dtype=dtype, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, UnpicklingError) as error:
        raise ConfigError(f"{directory} is no checkpoint that transformers can open: {error}") from None
    model, loading = loaded
    if wrong := [f"{name} is {kind}" for kind in ("missing", "unexpected") for name in sorted(loading[f"{kind}_keys"])]:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ConfigError(f"{directory}: its weights are not those of {type(model).__name__}: {wrong[0]}{more}")
    if config.tie_word_embeddings and model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        raise ConfigError(f"{directory}: tie_word_embeddings is true, but there is a lm_head.weight of its own")
    substitute(model, activation or own)
    return model


def load_to_measure(
    directory: str | Path, activation: Activation | None = None, precision: Precision = "float32"
) -> PreTrainedModel:
    """As ``load``, in evaluation on the fastest device, in a process that keeps the memory it frees."""
    keep_freed_memory()
    model = load(directory, activation, dtype=getattr(torch, precision)).eval()
    return model.to(devices.fastest())  # type: ignore[arg-type]
