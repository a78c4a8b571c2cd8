"""Synthetic models hit their target, counted by hooks of the test's own on tokens they were not calibrated on."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from prosparse.experiment.decoding import Shape
from prosparse.inference.decoding import prepare
from prosparse.inference.generation import greedy
from prosparse.inference.synthetic import Target, synthetic
from prosparse.method.activations import gated_ffns
from prosparse.models.build import in_memory, on_disk
from prosparse.operators.quantized import Q4_0

SIZES = {"hidden_size": 128, "intermediate_size": 384, "layers": 3, "heads": 4, "kv_heads": 2}
RANK, VOCABULARY = 34, 500
SHARED = {**SIZES, "rank": RANK, "vocabulary_size": VOCABULARY, "rows": ["ProSparse-7B"]}
SHAPES = {
    "llama": Shape(**SHARED, tied_embeddings=False),
    "minicpm": Shape(**SHARED, type="minicpm", scale_emb=12, scale_depth=1.4, dim_model_base=64),
}


def counted(model, predictors):
    """Sparsity, recall and predicted sparsity [3, layers]."""
    residuals, x1, hooks = [], [], []
    for layer in model.model.layers:
        hooks.append(layer.post_attention_layernorm.register_forward_pre_hook(lambda m, i: residuals.append(i[0])))
        hooks.append(layer.mlp.down_proj.register_forward_pre_hook(lambda m, i: x1.append(i[0])))
    tokens = torch.randint(VOCABULARY, (2, 300), generator=torch.Generator().manual_seed(77))
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    found = []
    for predictor, residual, value in zip(predictors, residuals, x1, strict=True):
        active = value != 0
        predicted = torch.sigmoid(predictor(residual)) >= 0.5
        recall = (active & predicted).sum() / active.sum()
        found.append([1 - active.double().mean(), recall, 1 - predicted.double().mean()])
    return torch.tensor(found, dtype=torch.float64).T


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ("llama", Target(0.8932, 0.9291, 0.7878)),
        ("llama", Target(0.6682, 0.85, 0.5)),
        ("minicpm", Target(0.8932, 0.9291, 0.7878)),
    ],
)
def test_hits_the_target(shape, target):
    model, predictors = synthetic(SHAPES[shape], target, torch.float32)
    for ffn in gated_ffns(model):
        assert isinstance(getattr(ffn.module, ffn.activation_attribute), torch.nn.ReLU)
    assert [predictor.rank for predictor in predictors] == [RANK] * SIZES["layers"]
    sparsity, recall, predicted_sparsity = counted(model, predictors)
    # every layer, since each was given its own biases
    torch.testing.assert_close(sparsity, torch.full((3,), target.sparsity, dtype=torch.float64), rtol=0, atol=0.03)
    torch.testing.assert_close(
        predicted_sparsity, torch.full((3,), target.predicted_sparsity, dtype=torch.float64), rtol=0, atol=0.03
    )
    torch.testing.assert_close(
        recall, torch.full((3,), target.activation_recall, dtype=torch.float64), rtol=0, atol=0.05
    )


def test_one_seed_one_model():
    target = Target(0.89, 0.93, 0.78)
    (first, ours), (second, same), (other, _) = (
        synthetic(SHAPES["llama"], target, torch.bfloat16, seed) for seed in (1, 1, 2)
    )
    for name, weight in first.state_dict().items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, second.state_dict()[name]), name
        assert "norm" in name or not torch.equal(weight, other.state_dict()[name]), name
    for one, two in zip(ours, same, strict=True):
        assert torch.equal(one.fc1.weight, two.fc1.weight)
        assert torch.equal(one.fc2.weight, two.fc2.weight)


def test_weights_on_disk_are_those_in_memory():
    target = Target(0.89, 0.93, 0.78)
    held, _ = synthetic(SHAPES["llama"], target, torch.bfloat16)
    mapped, _ = synthetic(SHAPES["llama"], target, torch.bfloat16, place=on_disk)
    for name, weight in mapped.named_parameters():
        path = weight.untyped_storage().filename
        assert path is not None, name
        assert not Path(path).exists(), name  # nothing is left behind
        assert torch.equal(weight, held.get_parameter(name)), name


def test_rounding_leaves_only_the_embedding_and_the_norms_on_disk():
    target = Target(0.89, 0.93, 0.78)
    texts = []
    for place in (in_memory, on_disk):
        model, predictors = synthetic(SHAPES["llama"], target, torch.bfloat16, place=place)
        decoder = prepare(model, predictors, form=Q4_0)
        texts.append(greedy(decoder, [5, 6, 7], 12))
    mapped = {name for name, weight in model.named_parameters() if weight.untyped_storage().filename is not None}
    assert mapped == {"model.embed_tokens.weight", *(name for name, _ in model.named_parameters() if "norm" in name)}
    assert texts[0] == texts[1]


@pytest.mark.parametrize("recall", [0.5, 0.6, 0.75, 0.9, 0.99])
def test_correlation_where_half_are_active(recall):
    """Both at their medians: P(logit > 0 | gate > 0) = 1/2 + asin(rho) / pi (Sheppard)."""
    assert Target(0.5, recall, 0.5).correlation() == pytest.approx(math.sin(math.pi * (recall - 0.5)), abs=1e-3)


@pytest.mark.parametrize("target", [Target(0.8932, 0.9291, 0.7878), Target(0.6682, 0.5, 0.8), Target(0.3, 0.95, 0.1)])
def test_correlation_by_drawing_pairs(target):
    generator = torch.Generator().manual_seed(0)
    gate, noise = torch.randn(2, 1_000_000, generator=generator, dtype=torch.float64)
    correlation = target.correlation()
    logit = correlation * gate + math.sqrt(1 - correlation**2) * noise
    active = gate > gate.quantile(target.sparsity)
    predicted = logit > logit.quantile(target.predicted_sparsity)
    recall = (active & predicted).sum() / active.sum()
    assert recall.item() == pytest.approx(target.activation_recall, abs=4e-3)


def test_correlation_ends_at_chance_and_at_certainty():
    assert Target(0.9, 0.1, 0.8).correlation() == 0  # less than a predictor that knows nothing
    assert Target(0.9, 1.0, 0.8).correlation() > 0.9
