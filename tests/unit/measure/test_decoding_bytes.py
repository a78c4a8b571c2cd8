"""Bytes that a token reads, counted by hand and by hooks."""

from __future__ import annotations

import pytest
import torch
from helpers.observation import observed
from helpers.tiny_decoders import HIDDEN, VOCABULARY, build, configs, random_predictors

from prosparse.inference.decoding import prepare
from prosparse.inference.predictors import Predictor
from prosparse.measure.decoding_bytes import bytes_of_a_token, count_shares

CONFIG = configs(160)["llama"]


def predictors() -> list[Predictor]:
    return random_predictors((HIDDEN, 12, 160))


# layer by layer: 40 and 20 neurons active, 80 and 60 predicted, 30 and 10 both; 6 and 3 of the predictor's 12 not zero
SHARES = torch.tensor([[40 / 160, 80 / 160, 30 / 160, 6 / 12], [20 / 160, 60 / 160, 10 / 160, 3 / 12]])


@pytest.mark.parametrize(("dtype", "size"), [(torch.bfloat16, 2), (torch.float32, 4)])
@pytest.mark.parametrize(
    ("mode", "gate_rows", "active_rows", "predictor"),
    [
        ("dense", 320, 320, 0),
        ("exact", 320, 40 + 20, 0),
        # fc1 is read whole, of fc2 the columns of the hidden neurons that are not zero
        ("predicted", 80 + 60, 30 + 10, 2 * 12 * 64 + (6 + 3) * 160),
    ],
)
def test_bytes_of_a_token(dtype, size, mode, gate_rows, active_rows, predictor):
    decoder = prepare(build(CONFIG, "relu", dtype), predictors())
    expected = {
        "attention": 2 * (64 * 64 + 64 * 32 + 64 * 32 + 64 * 64) * size,
        "head": 199 * 64 * size,
        "gate": gate_rows * 64 * size,
        "active_rows": 2 * active_rows * 64 * size,  # W_1's and W_2's
        "predictor": predictor * size,
        "kv_cache": 2 * 2 * 32 * 20 * size,  # keys and values, layers, two heads of 16, tokens
    }
    found = bytes_of_a_token(decoder, mode, SHARES, context=20)
    assert found == {**expected, "all": sum(expected.values())}


def test_counts_what_hooks_count():
    """On the model before it is prepared, whose products are torch's."""
    model, predicted = build(CONFIG, "fatrelu-0.1"), predictors()
    texts = torch.randint(VOCABULARY, (3, 21), generator=torch.Generator().manual_seed(1))
    residuals, x1 = observed(model, texts)
    expected = []
    for predictor, residual, value in zip(predicted, residuals, x1, strict=True):
        active, chosen = value != 0, predictor(residual) >= 0
        hidden = torch.relu(predictor.fc1(residual)) != 0
        expected.append([part.double().mean() for part in (active, chosen, active & chosen, hidden)])
    found = count_shares(prepare(model, predicted), texts.tolist())
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-4)
