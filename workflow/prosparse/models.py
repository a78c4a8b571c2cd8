"""Building, loading and converting models; checkpoints are ordinary Hugging Face directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GraniteConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from prosparse.config import Activation, Architecture, ConfigError, PretrainedInit
from prosparse.method.activations import substitute


def configuration(architecture: Architecture, vocabulary_size: int, context_length: int) -> PretrainedConfig:
    """Of a SwiGLU decoder.

    MiniCPM is LLaMA with three scalings. transformers has exactly these in its Granite family:
    ``embedding_multiplier = scale_emb``, ``residual_multiplier = scale_depth / sqrt(layers)`` and
    ``logits_scaling = hidden_size / dim_model_base`` (the logits are divided by it).
    """
    head_dim = architecture.hidden_size // architecture.heads
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
            embedding_multiplier=architecture.scale_emb,
            residual_multiplier=architecture.scale_depth / architecture.layers**0.5,
            logits_scaling=architecture.hidden_size / architecture.dim_model_base,
            attention_multiplier=head_dim**-0.5,
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


def pretrained(init: PretrainedInit) -> PreTrainedModel:
    """A model from the hub, a local directory or a GGUF file, in float32."""
    if init.gguf_file is None:
        return load(init.pretrained, revision=init.revision)
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
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """A checkpoint under its own activation, or under another one with the same weights.

    Raises:
        ConfigError: not a model directory, or an unsupported activation or architecture.
    """
    try:
        config = AutoConfig.from_pretrained(directory, revision=revision)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{directory} is no checkpoint that transformers can open: {error}") from None
    own = own_activation(config)
    config.hidden_act = "silu"  # any that transformers knows: replaced below
    model = AutoModelForCausalLM.from_pretrained(directory, config=config, revision=revision, dtype=dtype)
    substitute(model, activation or own)
    return model
