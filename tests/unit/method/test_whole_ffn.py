"""Models changed in one place, so that the gated FFNs found by name are not all of the FFN computation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prosparse.method.activations import UnsupportedArchitecture, gated_ffns
from prosparse.method.whole_ffn import check, check_formula


class Changed(nn.Module):
    """LLaMA's FFN with one thing changed; its children keep their names."""

    def __init__(self, mlp: nn.Module, change: str) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = mlp.gate_proj, mlp.up_proj
        self.down_proj, self.act_fn = mlp.down_proj, mlp.act_fn
        self.change = change
        self.branch = nn.Linear(self.gate_proj.in_features, self.gate_proj.in_features, bias=False)

    def forward(self, x):
        gate, up = self.gate_proj(x), self.up_proj(x)
        if self.change == "gate clamped":
            gate = gate.clamp(max=7)
        if self.change == "up clamped":
            up = up.clamp(-10, 10)
        if self.change == "up shifted":
            up = up + 1
        if self.change == "gate scaled":
            gate = gate * 1.5
        act = nn.functional.silu if self.change == "activation fixed" else self.act_fn
        x1 = act(gate) * up
        if self.change == "x1 normed":
            x1 = x1 / x1.square().mean(-1, keepdim=True).sqrt()
        if self.change == "gate and up exchanged":
            x1 = act(up) * gate
        if self.change == "down_proj bypassed":
            return nn.functional.linear(x1, self.down_proj.weight)
        output = self.down_proj(x1)
        if self.change == "output scaled":
            output = output * 0.9
        if self.change == "a branch beside":
            output = output + self.branch(x)
        return output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("gate clamped", "is not act"),
        ("up clamped", "is not act"),
        ("up shifted", "is not act"),
        ("gate scaled", "is not act"),
        ("activation fixed", "is not act"),
        ("x1 normed", "is not act"),
        ("gate and up exchanged", "is not act"),
        ("down_proj bypassed", "is not act"),
        ("output scaled", "does not return the output"),
        ("a branch beside", "does not return the output"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_ffn_that_computes_something_else(tiny_llama, change, message, dtype):
    model = tiny_llama(dtype=dtype)
    model.model.layers[1].mlp = Changed(model.model.layers[1].mlp, change).to(dtype)
    with pytest.raises(UnsupportedArchitecture, match=rf"model\.layers\.1\.mlp \(Changed\).*{message}"):
        check(model)


class Experts(nn.Module):
    """Two, weighted per token; their weights are plain parameters."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(2, size, 40)), nn.Parameter(torch.randn(2, 40, size))

    def forward(self, x):
        share = x[..., :2].softmax(-1)
        each = torch.einsum("btd,edf->betf", x, self.up).relu()
        return torch.einsum("betf,efd,bte->btd", each, self.down, share)


class WithShared(nn.Module):
    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.shared, self.experts = mlp, Experts(mlp.gate_proj.in_features)

    def forward(self, x):
        return self.shared(x) + self.experts(x)


class Twice(nn.Module):
    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x):
        return self.mlp(x + self.mlp(x))


def layer(model, index=1):
    return model.model.layers[index]


def experts(model):
    layer(model).mlp = Experts(32)


def shared_expert(model):
    layer(model).mlp = WithShared(layer(model).mlp)


def ungated(model):
    layer(model, 0).mlp = nn.Sequential(nn.Linear(32, 50), nn.GELU(), nn.Linear(50, 32))


def shared_by_layers(model):
    layer(model).mlp = layer(model, 0).mlp


def twice(model):
    layer(model).mlp = Twice(layer(model).mlp)


def projected_norm(model):
    layer(model).input_layernorm = nn.Sequential(layer(model).input_layernorm, nn.Linear(32, 32))


def unused(model):
    model.model.vision_tower = nn.Linear(32, 32)


def unused_ffn(model):
    model.model.vision_mlp = type(layer(model).mlp)(model.config)


def own_weights(model):
    layer(model).table = nn.Parameter(torch.zeros(4, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (experts, r"model\.layers\.1\.mlp \(Experts\) computes each token by itself"),
        (shared_expert, r"model\.layers\.1\.mlp\.experts \(Experts\) computes each token by itself"),
        (ungated, r"model\.layers\.0\.mlp \(Sequential\) computes each token by itself"),
        (shared_by_layers, r"model\.layers\.0\.mlp runs 2 times"),
        (twice, r"model\.layers\.1\.mlp\.mlp runs 2 times"),
        (projected_norm, r"model\.layers\.1\.input_layernorm \(Sequential\) computes each token by itself"),
        (unused, r"model\.vision_tower does not run on text"),
        (unused_ffn, r"model\.vision_mlp runs 0 times"),
        (own_weights, r"model\.layers\.1 \(LlamaDecoderLayer\) has weights in addition to"),
    ],
)
def test_a_model_with_other_ffns(tiny_llama, change, message):
    model = tiny_llama()
    change(model)
    with pytest.raises(UnsupportedArchitecture, match=message):
        check(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [False, True])
def test_leaves_the_model_as_it_was(tiny_llama, dtype, training):
    model = tiny_llama("relu", dtype=dtype).train(training)
    activations = [ffn.activation for ffn in gated_ffns(model)]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training == training
    assert [ffn.activation for ffn in gated_ffns(model)] == activations
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_restores_the_activation_when_it_refuses(tiny_llama):
    model = tiny_llama("relu")
    mlp = model.model.layers[0].mlp = Changed(model.model.layers[0].mlp, "gate clamped")
    (ffn, _) = gated_ffns(model)
    with pytest.raises(UnsupportedArchitecture):
        check_formula(ffn)
    assert ffn.activation is mlp.act_fn
    assert not mlp.down_proj._forward_pre_hooks
