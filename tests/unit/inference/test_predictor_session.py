"""Training steps of predictors against AdamW by hand; when training stops; what a batch holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prosparse.experiment.activation import Activation
from prosparse.experiment.measurement import Predictors
from prosparse.experiment.specifications import PredictorSpecification
from prosparse.inference.predictor_labels import (
    unpack,
    weighted_loss,
)
from prosparse.inference.predictor_session import Session, Trainee
from prosparse.inference.predictors import Predictor
from prosparse.method.activations import substitute


def test_one_step_is_adamw_on_that_loss():
    generator = torch.Generator().manual_seed(0)
    residual, labels = torch.randn(64, 8, generator=generator), torch.rand(64, 12, generator=generator) < 0.3
    torch.manual_seed(0)
    ours = Trainee.of(Predictor(8, 4, 12), 1e-3)
    torch.manual_seed(0)
    other = Predictor(8, 4, 12)
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-3)
    for _ in range(3):
        ours.learn(residual, labels)
        optimizer.zero_grad()
        weighted_loss(other(residual), labels).backward()
        optimizer.step()
    for mine, theirs in zip(ours.predictor.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_stops_without_a_better_recall_and_keeps_the_first_best():
    trainee = Trainee.of(Predictor(8, 4, 12), 1e-3)
    weights = []
    for recall in (0.5, 0.7, 0.6, 0.7):
        assert not trainee.stopped(patience=2)
        trainee.predictor.fc1.weight.data.fill_(recall + len(weights))
        weights.append(trainee.predictor.fc1.weight.detach().clone())
        trainee.judge({"recall": recall})
    assert trainee.stopped(patience=2)
    assert not trainee.stopped(patience=3)
    assert torch.equal(trainee.best["fc1.weight"], weights[1])


@pytest.mark.parametrize("activation", ["relu", "relu2", "drelu"])
def test_labels_are_the_active_neurons(tiny_llama, activation):
    """By the signs of both projections of the residual's norm; top keeps one in eight of the neurons at most."""
    model = tiny_llama().eval()
    substitute(model, Activation.parse(activation))
    settings = Predictors(kinds=["nonzero", "top"], rank=16, tokens=2000, epochs=4, top=0.125)
    wanted = PredictorSpecification(
        activation=Activation.parse(activation), settings=settings, mixture={"a": 1.0}, seed=5
    )
    rows = torch.randint(64, (8, 48), generator=torch.Generator().manual_seed(0))
    residuals, labels = next(Session(wanted, model, rows, rows[:1])._buffers(np.random.default_rng(0)))
    for layer, residual, nonzero, top in zip(
        model.model.layers, residuals, labels["nonzero"], labels["top"], strict=True
    ):
        normed = layer.post_attention_layernorm(residual).detach()
        active = normed @ layer.mlp.gate_proj.weight.T > 0
        if activation == "drelu":
            active &= normed @ layer.mlp.up_proj.weight.T > 0
        assert (unpack(nonzero, 96) == active).float().mean() > 0.999  # a sum near 0 may round to either sign
        assert not (unpack(top, 96) & ~unpack(nonzero, 96)).any()
        assert unpack(top, 96).sum(1).max() == 12


@pytest.mark.parametrize("context", [256, 2048])
def test_a_batch_is_of_many_sequences_however_long_they_are(tiny_llama, context):
    """Each of 16 sequences has tokens of its own, which the first layer's residuals tell apart."""
    settings = Predictors(kinds=["nonzero"], rank=16, tokens=2000, epochs=4, batch_size=256, learning_rate=1e-2)
    wanted = PredictorSpecification(activation=Activation.parse("relu"), settings=settings, mixture={"a": 1.0}, seed=5)
    rows = torch.arange(16)[:, None].expand(16, context)
    session = Session(wanted, tiny_llama("relu").eval(), rows, rows[:1])
    residuals, _ = next(session._buffers(np.random.default_rng(0)))
    for batch in residuals[0].split(256)[:4]:
        assert len(torch.unique(batch.round(decimals=3), dim=0)) >= 8
