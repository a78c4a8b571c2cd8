"""What turns of decoding read, and that a model is left as it was."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_decoders import LAYERS, build, configs

from prosparse.inference.decoding import prepare
from prosparse.inference.generation import greedy
from prosparse.measure import decoding_turns
from prosparse.measure.decoding_bytes import bytes_of_a_token
from prosparse.operators.quantized import FORMATS

CONFIGS = configs(160)


def test_dense_reads_every_weight_but_the_embedding_and_the_norms():
    for name in ("llama", "phi3"):
        model = build(CONFIGS[name], "relu")
        matrices = sum(p.numel() for n, p in model.named_parameters() if "norm" not in n and "embed" not in n)
        decoder = prepare(model)
        assert bytes_of_a_token(decoder, "dense", torch.zeros(LAYERS, 6), context=0)["all"] == 4 * matrices


@pytest.mark.parametrize("form", [None, FORMATS["q4_0"]])
def test_nothing_read_is_undone(form):
    model = build(CONFIGS["llama"], "relu")
    decoder = prepare(model, form=form)
    prompt = torch.arange(5)[None]
    expected, written = model(prompt).logits, greedy(decoder, range(5), 10)

    def stopped():
        with decoding_turns.nothing_read(decoder):
            assert not model(prompt).logits.any()
            assert not any(greedy(decoder, range(5), 10))
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        stopped()
    assert torch.equal(model(prompt).logits, expected)
    assert greedy(decoder, range(5), 10) == written
    assert not any("forward" in vars(module) for module in model.modules())
