"""Released folders in vLLM's own model classes; skipped where no vLLM is named."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
import torch
from helpers.repository import ROOT
from transformers import AutoModelForCausalLM, GraniteConfig, LlamaConfig

from prosparse.experiment.activation import Activation
from prosparse.models.load import load
from prosparse.paper.release.folder import portable_config
from prosparse.paper.release.loading import vllm_overrides

VLLM = "PROSPARSE_VLLM"
TOKENS = [1, 200, 30, 4, 55, 6, 107]
SIZES = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "initializer_range": 0.2, "tie_word_embeddings": True,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "granite": GraniteConfig(
        **SIZES, embedding_multiplier=12.0, residual_multiplier=0.5, logits_scaling=4.0, attention_multiplier=32**-0.5
    ),
}


@pytest.mark.skipif(
    VLLM not in os.environ, reason=f"needs vLLM: pip install vllm elsewhere, name that Python in {VLLM}"
)
def test_vllm_computes_what_we_compute_or_refuses(tmp_path):
    torch.manual_seed(0)
    folders, given = [], []
    for name, config in CONFIGS.items():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for activation in map(Activation.parse, ("silu", "relu", "fatrelu-0.3")):
            folder = tmp_path / f"{name} {activation}"
            model.save_pretrained(folder)
            settings = portable_config(json.loads((folder / "config.json").read_text()), activation)
            (folder / "config.json").write_text(json.dumps(settings))
            folders.append(folder)
            given.append([str(folder), vllm_overrides(settings, activation) or {}, TOKENS])
    # without the overrides, and what vLLM has nowhere
    refused = [
        [str(tmp_path / f"{name} {activation}"), {}, TOKENS]
        for name in CONFIGS
        for activation in ("relu", "fatrelu-0.3")
    ]
    program = [os.environ[VLLM], str(ROOT / "tests" / "helpers" / "vllm_logits.py")]
    run = subprocess.run(program, input=json.dumps(given + refused), capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    for folder, logits in zip(folders, found, strict=False):
        expected = load(folder).eval()(torch.tensor([TOKENS])).logits[0]
        torch.testing.assert_close(torch.tensor(logits), expected, rtol=1e-4, atol=1e-4)
    assert all(isinstance(reason, str) and "Unsupported activation" in reason for reason in found[len(folders) :])
