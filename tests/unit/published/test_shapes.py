"""Parameters and FLOPs of a model's shape against transformers and torch's counter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from prosparse.published.shapes import DecoderShape


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
