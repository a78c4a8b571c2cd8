"""Logits by vLLM's own configuration, model classes and weight loading, on a CPU; run by a Python that has vLLM.

Reads from standard input a JSON list of [folder, overrides, token ids], and prints one of logits [tokens, vocabulary],
or of vLLM's reason against the model. Attention alone is torch's here: vLLM's needs a device and its compiled kernels.
"""

import json
import os
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR")

import torch
import vllm.platforms
from vllm.platforms.cpu import CpuPlatform

vllm.platforms._current_platform = CpuPlatform()  # a build for GPUs finds no platform where there is none

# ruff: noqa: E402
from vllm.config import (
    CacheConfig,
    CompilationConfig,
    DeviceConfig,
    LoadConfig,
    ModelConfig,
    VllmConfig,
    set_current_vllm_config,
)
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.forward_context import set_forward_context
from vllm.model_executor.model_loader import get_model_loader
from vllm.model_executor.model_loader.utils import initialize_model, process_weights_after_loading
from vllm.model_executor.models import granite, llama, minicpm


class Attention(torch.nn.Module):
    def __init__(self, num_heads, head_size, scale, num_kv_heads=None, **_):
        super().__init__()
        self.heads, self.head_size, self.scale = (num_heads, num_kv_heads or num_heads), head_size, scale

    def forward(self, query, key, value):
        queries, keys = self.heads
        query, key, value = (x.view(len(x), -1, self.head_size).transpose(0, 1) for x in (query, key, value))
        key, value = (x.repeat_interleave(queries // keys, 0) for x in (key, value))
        attended = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=self.scale)
        return attended.transpose(0, 1).flatten(1)


for module in (granite, llama, minicpm):
    module.Attention = Attention


def logits(folder, overrides, ids):
    model_config = ModelConfig(
        model=folder, hf_overrides=overrides, dtype="float32", enforce_eager=True, skip_tokenizer_init=True
    )
    config = VllmConfig(
        model_config=model_config, device_config=DeviceConfig("cpu"), cache_config=CacheConfig(block_size=16),
        load_config=LoadConfig(), compilation_config=CompilationConfig(mode=0, custom_ops=["none"]),
    )  # fmt: skip
    with set_current_vllm_config(config):
        if not torch.distributed.is_initialized():
            rendezvous = f"file://{tempfile.mkdtemp()}/rendezvous"
            init_distributed_environment(1, 0, rendezvous, 0, backend="gloo")
            initialize_model_parallel(1, 1)
        try:
            model = initialize_model(vllm_config=config)
        except ValueError as error:
            return str(error)
        get_model_loader(config.load_config).load_weights(model, model_config)
        process_weights_after_loading(model, model_config, torch.device("cpu"))
        with torch.no_grad(), set_forward_context(None, config):
            return model.compute_logits(model(torch.tensor(ids), torch.arange(len(ids)))).tolist()


json.dump([logits(*each) for each in json.load(sys.stdin)], sys.stdout)
