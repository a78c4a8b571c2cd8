"""The fused loss against transformers' own, and distillation against its formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prosparse.experiment.model import Architecture
from prosparse.models.build import from_scratch
from prosparse.training import loss as fused

MINICPM = {"type": "minicpm", "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 16}


@pytest.fixture(autouse=True)
def several_slices(monkeypatch):
    monkeypatch.setattr(fused, "SLICE", 96)  # 300 entries: three slices and a part of one


def model_of(**special):
    shape = {"hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2, "kv_heads": 1}
    return from_scratch(Architecture(**shape, **special), 300, 64, seed=0)


def batch():
    ids = torch.randint(0, 300, (3, 20), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[0, 5:9] = -100
    return ids, labels


def loss_and_gradients(model, **given):
    model.zero_grad()
    ids, labels = batch()
    value = model(input_ids=ids, labels=labels, **given).loss
    value.backward()
    return value.item(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("special", [{}, {"tied_embeddings": False}, MINICPM], ids=["tied", "untied", "minicpm"])
@pytest.mark.parametrize("items", [None, 41])
def test_equals_the_loss_of_transformers(special, items):
    assert_equals_the_loss_of_transformers(model_of(**special), items)


@pytest.mark.slow
@pytest.mark.commands("c++")
def test_compiled_it_equals_the_loss_of_transformers():
    assert_equals_the_loss_of_transformers(model_of(), None, compiled=True)


def assert_equals_the_loss_of_transformers(model, items, compiled=False):
    given = {} if items is None else {"num_items_in_batch": torch.tensor(items)}
    expected, expected_gradients = loss_and_gradients(model, **given)
    assert fused.fuse_loss(model, compile=compiled) is not None
    value, gradients = loss_and_gradients(model, **given)
    assert value == pytest.approx(expected, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-6, msg=name)


def test_distillation_is_cross_entropy_and_divergence():
    torch.manual_seed(0)
    share, tokens = 0.3, 7
    hidden, teacher_hidden = torch.randn(1, tokens, 16), torch.randn(1, tokens, 24)
    head, teacher_weight = nn.Linear(16, 300, bias=False), torch.randn(300, 24) / 3
    labels = torch.randint(0, 300, (1, tokens))

    def reference(hidden, weight):
        logits = (hidden @ weight.T)[0, :-1].log_softmax(-1)
        wanted = (teacher_hidden.double() @ teacher_weight.double().T)[0, :-1].log_softmax(-1)
        cross_entropy = nn.functional.nll_loss(logits, labels[0, 1:])
        divergence = nn.functional.kl_div(logits, wanted, log_target=True, reduction="batchmean")
        return (1 - share) * cross_entropy + share * divergence

    exact_hidden = hidden.double().requires_grad_()
    exact_weight = head.weight.detach().double().requires_grad_()
    expected = reference(exact_hidden, exact_weight)
    expected.backward()

    loss = fused.FusedLoss(head, share)
    loss.teacher = teacher_hidden, teacher_weight
    hidden.requires_grad_()
    value = loss(hidden, labels, 300)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(hidden.grad, exact_hidden.grad.float(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(head.weight.grad, exact_weight.grad.float(), rtol=1e-4, atol=1e-6)


def hard_cases(dtype, share, gap):
    """Rows whose target leads all other logits by about ``gap``, over 5,000 entries; and the exact loss of each.

    The logits are the 16-bit product's own, so that what differs is the loss's arithmetic.
    """
    generator = torch.Generator().manual_seed(3)
    tokens, entries = 8, 5000
    hidden, weight = torch.eye(tokens, 16).to(dtype)[None], torch.randn(entries, 16, generator=generator).to(dtype)
    teacher = torch.eye(tokens, 16).to(dtype)[None], torch.randn(entries, 16, generator=generator).to(dtype)
    labels = torch.randint(0, entries, (1, tokens), generator=generator)
    for row, target in enumerate(labels[0, 1:].tolist()):
        weight[target, row] = teacher[1][target, row] = gap
    exact = [(states @ matrix.T)[0, :-1].double().requires_grad_() for states, matrix in ((hidden, weight), teacher)]
    log_p, log_q = exact[0].log_softmax(1), exact[1].detach().log_softmax(1)
    divergence = (log_q.exp() * (log_q - log_p)).sum(1)
    losses = (1 - share) * nn.functional.nll_loss(log_p, labels[0, 1:], reduction="none") + share * divergence
    losses.mean().backward()
    return hidden, weight, labels, teacher, losses.detach(), exact[0].grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize("gap", [2.0, 14.0, 20.0, 30.0])
def test_targets_that_are_nearly_certain(dtype, share, gap, monkeypatch):
    monkeypatch.setattr(fused, "SLICE", 1024)
    hidden, weight, labels, teacher, losses, slopes = hard_cases(dtype, share, gap)
    head = nn.Linear(16, len(weight), bias=False, dtype=dtype)
    head.weight.data = weight
    loss = fused.FusedLoss(head, share)
    loss.teacher = teacher if share else None
    scale = 64.0 if dtype == torch.float16 else 1.0  # the smallest slopes would be float16's subnormal numbers
    hidden.requires_grad_()
    (value := loss(hidden, labels, len(weight)) * scale).backward()
    assert value.item() >= 0
    assert value.item() / scale == pytest.approx(losses.mean().item(), rel=1e-4, abs=2e-6 * share)
    # of the identity's rows, the head's gradient is the slope of the logits
    found = head.weight.grad.T[:7].double() / scale
    targets = labels[0, 1:, None]
    spacing = torch.finfo(dtype).eps + 1e-4
    smallest = 1e-9 if dtype == torch.float16 else 1e-16  # below which float16 has no numbers
    torch.testing.assert_close(
        found.gather(1, targets), slopes.gather(1, targets), rtol=spacing, atol=1e-7 if share else smallest
    )
    torch.testing.assert_close(found, slopes, rtol=spacing, atol=1e-7)


def test_equal_distributions_do_not_diverge():
    """A student that is its teacher: a loss of 0 and not below, whatever float32 rounds."""
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        hidden, weight = torch.randn(1, 3, 16, generator=generator), 4 * torch.randn(500, 16, generator=generator)
        head = nn.Linear(16, 500, bias=False)
        head.weight.data = weight
        loss = fused.FusedLoss(head, share=1.0)
        loss.teacher = hidden, weight
        value = loss(hidden, torch.tensor([[1, 2, 3]]), 500).item()
        assert 0 <= value < 1e-5


def test_bfloat16_autocast_stays_near_float32():
    model = model_of()
    expected, expected_gradients = loss_and_gradients(model)
    fused.fuse_loss(model)
    with torch.autocast("cpu", torch.bfloat16):
        ids, labels = batch()
        model.zero_grad()
        value = model(input_ids=ids, labels=labels).loss
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected, rel=5e-3)
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32
        difference = (parameter.grad - expected_gradients[name]).norm() / expected_gradients[name].norm()
        assert difference < 0.05, name


def test_logits_that_are_more_than_a_product_keep_their_own_loss():
    model = model_of()
    model.config.final_logit_softcapping = 30.0
    assert fused.fuse_loss(model) is None
    assert model(input_ids=batch()[0]).logits.shape[-1] == 300
