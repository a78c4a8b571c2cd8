"""Parameters and FLOPs of a model's shape, against published counts, a hand calculation and torch's counter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.paper_scale import LLAMA2_7B, MINICPM_1B
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from prosparse.experiment.model import Architecture
from prosparse.plan.costs import of_architecture
from prosparse.published.shapes import DecoderShape


def test_parameters_of_llama2_7b_are_those_published():
    assert of_architecture(Architecture(**LLAMA2_7B)).parameters == 6_738_415_616


def test_parameters_of_minicpm_1b_are_those_published():
    """1,247,442,432 without the embedding: MiniCPM's technical report (Hu et al. 2024), table of its sizes."""
    assert of_architecture(Architecture(**MINICPM_1B)).parameters == 1_247_442_432 + 73440 * 1536


@pytest.mark.parametrize("kv_heads", [1, 4])
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_those_of_transformers(kv_heads, tied, tmp_path):
    config = LlamaConfig(
        vocab_size=101, hidden_size=32, intermediate_size=88, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=kv_heads, head_dim=16, tie_word_embeddings=tied,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    config.save_pretrained(tmp_path)
    shape = DecoderShape.read(tmp_path / "config.json")
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_training_flops_of_llama2_7b_by_hand():
    """Every product of one token written out: 2 FLOPs a weight forward, twice that backward."""
    d, f, vocabulary, context = 4096, 11008, 32000, 4096
    layer = 0
    for rows, columns in [(d, d)] * 4 + [(f, d), (f, d), (d, f)]:
        layer += 2 * rows * columns
    layer += 2 * context * 128 * 32  # scores: each of 32 heads, a query of 128 with every key
    layer += 2 * context * 128 * 32  # their product with the values
    forward = 32 * layer + 2 * vocabulary * d
    assert of_architecture(Architecture(**LLAMA2_7B)).training_flops(context) == 3 * forward
    # near the rule of thumb: 6 a parameter, and 16 % for attention at this context
    assert 3 * forward == pytest.approx(6 * 6.607e9 + 12 * 32 * 4096 * 4096, rel=1e-3)


def test_training_flops_of_minicpm_1b_by_hand():
    d, f, keys, vocabulary, context = 1536, 3840, 8 * 64, 73440, 4096
    products = 2 * d * d + 2 * keys * d + 3 * f * d
    attention = 2 * (2 * context * 1536)
    forward = 52 * (2 * products + attention) + 2 * vocabulary * d
    assert of_architecture(Architecture(**MINICPM_1B)).training_flops(context) == 3 * forward


def tiny() -> tuple[LlamaForCausalLM, DecoderShape]:
    config = LlamaConfig(
        vocab_size=160, hidden_size=64, intermediate_size=176, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False, attn_implementation="eager", use_cache=False,
    )  # fmt: skip
    return LlamaForCausalLM(config), DecoderShape(64, 176, 3, 4, 2, 16, 160, False)


def counted(step: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def test_flops_are_those_that_torch_counts():
    model, shape = tiny()
    rows = torch.randint(0, 160, (2, 48))
    # torch also counts the rotary angles
    assert counted(lambda: model(input_ids=rows)) == pytest.approx(96 * shape.forward_flops(48), rel=1e-3)
    step = lambda: model(input_ids=rows, labels=rows).loss.backward()  # noqa: E731
    plain = counted(step)
    assert plain == pytest.approx(96 * shape.training_flops(48), rel=1e-3)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    again = counted(step) - plain
    # torch leaves out each layer's last product, whose result nothing needs again
    last = 96 * 2 * 3 * 64 * 176
    assert again == pytest.approx(96 * shape.recomputed_flops(48) - last, rel=1e-3)
