"""How many requests share a batch: the KV cache per token and the memory budget."""

from __future__ import annotations

import pytest
import torch
from helpers.tokenizer_kinds import KINDS, tiny_for

from prosparse.experiment.model import Architecture
from prosparse.measure import batches
from prosparse.models.build import from_scratch

MINICPM = Architecture(
    type="minicpm", hidden_size=64, intermediate_size=128, layers=2, heads=4, kv_heads=2,
    scale_emb=12, scale_depth=1.4, dim_model_base=16,
)  # fmt: skip


@pytest.mark.parametrize("architecture", ["llama", "minicpm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kv_cache_of_a_token_is_as_large_as_reckoned(architecture: str, dtype: torch.dtype) -> None:
    model = tiny_for(KINDS["unigram"]()) if architecture == "llama" else from_scratch(MINICPM, 300, 128, seed=5)
    model = model.to(dtype)
    with torch.no_grad():
        cache = model(torch.ones(3, 7, dtype=torch.long), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert batches.token_memory(model).kv_cache == held / 21


def test_a_budget_is_what_the_free_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_for(KINDS["unigram"]())
    token = batches.token_memory(model).total
    for free, tokens in ((0, 1), (100 * token, 80), (10**12 * token, 5000)):
        monkeypatch.setattr(batches, "free_memory", lambda device, free=free: free)
        assert batches.TokenBudget.for_model(model, 5000).tokens == tokens
