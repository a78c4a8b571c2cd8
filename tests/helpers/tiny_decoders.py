"""Small random decoders for tests of decoding, and random predictors."""

from __future__ import annotations

import copy

import torch
from transformers import (
    AutoModelForCausalLM,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from prosparse.experiment.activation import Activation
from prosparse.inference.predictors import Predictor
from prosparse.method.activations import substitute

HIDDEN, LAYERS, VOCABULARY = 64, 2, 199


def sizes(intermediate_size: int) -> dict[str, float | int | None]:
    return {
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": intermediate_size,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 512, "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": None,
        "pad_token_id": 0,
    }  # fmt: skip


def configs(intermediate_size: int) -> dict[str, PretrainedConfig]:
    shared = sizes(intermediate_size)
    # MiniCPM: scaled embeddings, residual branches and logits
    scales = {
        "embedding_multiplier": 12.0, "residual_multiplier": 0.99, "logits_scaling": 2.0, "attention_multiplier": 0.25,
    }  # fmt: skip
    return {
        "llama": LlamaConfig(**shared),
        "llama_tied": LlamaConfig(**shared, tie_word_embeddings=True),
        "granite": GraniteConfig(**shared, **scales),
        "phi3": Phi3Config(**shared),  # the gate's and W_1's rows in one matrix
        "mistral": MistralConfig(**shared, sliding_window=None),
        "qwen2": Qwen2Config(**shared),  # biases in attention
    }


def build(
    config: PretrainedConfig, activation: str, dtype: torch.dtype = torch.float32, seed: int = 0
) -> PreTrainedModel:
    """A random model, whose biases are not zero."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    substitute(model, Activation.parse(activation))
    return model.requires_grad_(False)


def random_predictors(
    sizes: tuple[int, int, int], layers: int = LAYERS, seed: int = 2, scale: float = 1.0
) -> list[Predictor]:
    """One per layer, of ``sizes`` (hidden, rank, intermediate). About half of the neurons are predicted active."""
    hidden, rank, intermediate = sizes
    generator = torch.Generator().manual_seed(seed)
    return [
        Predictor.of(
            scale * torch.randn(rank, hidden, generator=generator), torch.randn(intermediate, rank, generator=generator)
        ).requires_grad_(False)
        for _ in range(layers)
    ]  # fmt: skip
