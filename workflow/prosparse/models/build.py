"""Build models from a config: random, uninitialized, or shaped like a released one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GraniteConfig, LlamaConfig, PretrainedConfig, PreTrainedModel

from prosparse.experiment.model import Architecture
from prosparse.method.activations import activation_key
from prosparse.models.third_party import scalings


def configuration(architecture: Architecture, vocabulary_size: int, context_length: int) -> PretrainedConfig:
    """Build the config of a SwiGLU decoder.

    MiniCPM is LLaMA with three scalings, which transformers implements as Granite.
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
        assert architecture.scale_emb is not None  # the experiment config has checked all three
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
    """Build a randomly initialized SwiGLU decoder; the same seed gives the same weights."""
    config = configuration(architecture, vocabulary_size, context_length)
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)


def in_memory(weight: Tensor) -> Tensor:
    """An uninitialized tensor like this one."""
    return torch.empty_like(weight, device="cpu")


def on_disk(weight: Tensor) -> Tensor:
    """An uninitialized tensor like this one in a temporary file.

    The system writes it to disk and reads it again as it needs memory, so that a model that is rounded to fewer bits
    matrix by matrix need never fit in memory whole. The same holds for a checkpoint whose dtype is kept: transformers
    maps its files.
    """
    with tempfile.NamedTemporaryFile(prefix="prosparse-weights-") as file:  # without its name once it is mapped
        return torch.from_file(file.name, True, weight.numel(), dtype=weight.dtype).view(weight.shape)


def empty(
    config: PretrainedConfig, dtype: torch.dtype = torch.float32, place: Callable[[Tensor], Tensor] = in_memory
) -> PreTrainedModel:
    """Build a model with uninitialized weights, each where ``place`` says, and an activation that transformers knows.

    Drawing random weights by the billion takes minutes, so callers set them from elsewhere. Buffers are initialized,
    since no checkpoint provides the non-persistent ones (rotary frequencies, Gemma's scales).
    """
    setattr(config, activation_key(config), "silu")
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(place(weight), weight.requires_grad))
    model.tie_weights()
    return model
