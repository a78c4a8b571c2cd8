"""A tiny model, the same for every test."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_revision():
    """Git is asked once for the revision that every result records."""
    from prosparse.system import provenance

    revision = provenance.code_revision()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "code_revision", lambda: revision)
        yield


@pytest.fixture
def tiny_llama():
    """A function that builds a random LLaMA; two layers, 96 neurons each."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

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
