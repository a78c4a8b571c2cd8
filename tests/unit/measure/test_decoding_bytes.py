"""Bytes that a token reads, counted by hand and by hooks."""

from __future__ import annotations

import pytest
import torch
from helpers.observation import observed
from helpers.tiny_decoders import HIDDEN, VOCABULARY, build, configs, random_predictors

from prosparse.inference.decoding import prepare
from prosparse.inference.predictors import Predictor
from prosparse.measure.decoding_bytes import bytes_of_a_token, count_shares
from prosparse.method.activations import gated_ffns

CONFIG = configs(160)["llama"]


def predictors() -> list[Predictor]:
    return random_predictors((HIDDEN, 12, 160))


# layer by layer: 40 and 20 neurons active, 50 and 24 with a gate that is not zero, 80 and 60 predicted, 30 and 10 both
# predicted and active, 36 and 12 predicted with such a gate; 6 and 3 of the predictor's 12 not zero
SHARES = torch.tensor([[40, 50, 80, 30, 36, 6 / 12 * 160], [20, 24, 60, 10, 12, 3 / 12 * 160]]) / 160


@pytest.mark.parametrize(("dtype", "size"), [(torch.bfloat16, 2), (torch.float32, 4)])
@pytest.mark.parametrize(
    ("mode", "gate_rows", "active_rows", "predictor"),
    [
        ("dense", 320, 2 * 320, 0),
        # W_1's where the gate is not zero, W_2's where x1 is not zero
        ("exact", 320, (50 + 24) + (40 + 20), 0),
        # fc1 is read whole, of fc2 the columns of the hidden neurons that are not zero
        ("predicted", 80 + 60, (36 + 12) + (30 + 10), 2 * 12 * 64 + (6 + 3) * 160),
    ],
)
def test_bytes_of_a_token(dtype, size, mode, gate_rows, active_rows, predictor):
    decoder = prepare(build(CONFIG, "relu", dtype), predictors())
    expected = {
        "attention": 2 * (64 * 64 + 64 * 32 + 64 * 32 + 64 * 64) * size,
        "head": 199 * 64 * size,
        "gate": gate_rows * 64 * size,
        "active_rows": active_rows * 64 * size,
        "predictor": predictor * size,
        "kv_cache": 2 * 2 * 32 * 20 * size,  # keys and values, layers, two heads of 16, tokens
    }
    found = bytes_of_a_token(decoder, mode, SHARES, context=20)
    assert found == {**expected, "all": sum(expected.values())}


@pytest.mark.parametrize("activation", ["fatrelu-0.1", "relu2", "drelu"])
def test_counts_what_hooks_count(activation):
    """On the model before it is prepared, whose products are torch's."""
    model, predicted, gates = build(CONFIG, activation), predictors(), []
    for ffn in gated_ffns(model):
        ffn.activation.register_forward_hook(lambda module, inputs, output: gates.append(output))
    texts = torch.randint(VOCABULARY, (3, 21), generator=torch.Generator().manual_seed(1))
    residuals, x1 = observed(model, texts)
    expected = []
    for predictor, residual, value, gate in zip(predicted, residuals, x1, gates, strict=True):
        active, open_gate, chosen = value != 0, gate != 0, predictor(residual) >= 0
        hidden = torch.relu(predictor.fc1(residual)) != 0
        parts = (active, open_gate, chosen, active & chosen, open_gate & chosen, hidden)
        expected.append([part.double().mean() for part in parts])
    found = count_shares(prepare(model, predicted), texts.tolist())
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-4)
    assert (found[:, 0] < 0.7 * found[:, 1]).all() == (activation == "drelu")
