"""Labels of predictors against the rules token by token, and their loss against its formula in float64."""

from __future__ import annotations

import pytest
import torch

from prosparse.inference.predictor_labels import (
    logit_gradient,
    nonzero_labels,
    pack,
    top_labels,
    unpack,
    weighted_loss,
)


def test_label_rules_token_by_token():
    x1 = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    x1 *= torch.rand(40, 30, generator=torch.Generator().manual_seed(1)) < torch.linspace(0, 1, 40)[:, None]
    nonzero, top = nonzero_labels(x1, 0.15), top_labels(x1, 0.15)
    for token in range(40):
        values = x1[token].tolist()
        assert nonzero[token].tolist() == [value != 0 for value in values]
        kept = sorted(range(30), key=lambda neuron: -abs(values[neuron]))[:4]  # 15 % of 30 neurons, rounded down
        assert top[token].tolist() == [neuron in kept and values[neuron] != 0 for neuron in range(30)]
    assert top.any(1).sum() > 30
    assert (nonzero & ~top).any()


def test_loss_and_its_gradient_against_the_formula():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 20, generator=generator), torch.rand(50, 20, generator=generator) < 0.2
    exact = logits.double().requires_grad_()
    probability = 1 / (1 + torch.exp(-exact))
    share = labels.double().mean()
    loss = torch.where(labels, -probability.log(), -(share + 0.005) * (1 - probability).log()).mean()
    loss.backward()
    assert weighted_loss(logits, labels).item() == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(logit_gradient(logits, labels).double(), exact.grad, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("neurons", [1, 8, 31, 96])
def test_packed_labels_are_the_labels(neurons):
    labels = torch.rand(50, neurons, generator=torch.Generator().manual_seed(0)) < 0.3
    assert pack(labels).numel() == 50 * -(-neurons // 8)
    assert torch.equal(unpack(pack(labels), neurons), labels)
