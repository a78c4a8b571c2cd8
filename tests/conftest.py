"""Tiny models and text, the same for every test."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here, and no Snakemake that a test starts, may reach for a hub
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny: threads only wait for one another

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM


@pytest.fixture
def tiny_llama():
    """A function that builds a random LLaMA; two layers, 96 neurons each."""

    def build(hidden_act: str = "silu", seed: int = 0, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            hidden_act=hidden_act,
            initializer_range=0.2,  # x1 well away from zero
        )
        return LlamaForCausalLM(config).to(dtype)

    return build
