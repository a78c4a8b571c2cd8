"""Tiny models and text, the same for every test."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here, and no Snakemake that a test starts, may reach for a hub
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny: threads only wait for one another

import pytest
import torch
from helpers import commands
from transformers import LlamaConfig, LlamaForCausalLM

commands.hide()  # before any test asks what this machine has


def pytest_configure(config):
    config.addinivalue_line("markers", "commands(*names): sees these commands of the machine; skipped without them")


#: On a GPU, Triton compiles the launcher of each kernel with a C compiler.
ALWAYS = ("c++",) if torch.cuda.is_available() else ()


def _asked(item) -> tuple[str, ...]:
    marked = (name for mark in item.iter_markers("commands") for name in mark.args)
    return tuple(dict.fromkeys([*marked, *ALWAYS]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Around the test and its fixtures, those of its module too."""
    before = os.environ["PATH"]
    os.environ["PATH"] = commands.path(*_asked(item))
    try:
        return (yield)
    finally:
        os.environ["PATH"] = before


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if missing := commands.missing(_asked(item)):
        pytest.skip(f"{', '.join(missing)}: not installed")


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
