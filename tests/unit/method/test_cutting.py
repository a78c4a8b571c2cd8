"""Thresholds on a model against its FFNs written out, with separate and fused projections."""

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

from prosparse.method.activations import gated_ffns
from prosparse.method.cutting import calibrate, cutting
from prosparse.method.thresholds import quantiles

TOKENS = torch.randint(0, 64, (8, 12), generator=torch.Generator().manual_seed(5))


def tiny_phi3():
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    return Phi3ForCausalLM(config).eval()


@pytest.fixture(params=["separate", "fused"])
def model(request, tiny_llama):
    return tiny_llama().eval() if request.param == "separate" else tiny_phi3()


def written_out(ffn, x, limits):
    """x, act(gate), x1 and the output, with what is at most each limit replaced by zero."""

    def kept(values, limit):
        return values * (values.abs() > limit)

    x = kept(x, limits.get("input", -1))
    activated = kept(torch.nn.functional.silu(x @ ffn.gate_weight.T), limits.get("activation", -1))
    x1 = kept(activated * (x @ ffn.up_weight.T), limits.get("x1", -1))
    down = ffn.down_proj.weight
    x1 = torch.stack([kept(x1[..., j], limits.get("output", -1) / down[:, j].norm()) for j in range(down.shape[1])], -1)
    return x, activated, x1, x1 @ down.T


@pytest.mark.parametrize(
    "limits", [{"activation": 0.1}, {"input": 0.5, "x1": 0.2}, {"output": 0.3}], ids=["cats", "teal", "cett"]
)
@torch.no_grad()
def test_each_place_is_cut_where_the_formula_says(model, limits):
    x = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(1))
    ffns = gated_ffns(model)
    before = [ffn.module(x) for ffn in ffns]
    with cutting(model, [limits, {place: 2 * limit for place, limit in limits.items()}]):
        for ffn, scale in zip(ffns, (1, 2), strict=True):
            expected = written_out(ffn, x, {place: scale * limit for place, limit in limits.items()})[-1]
            torch.testing.assert_close(ffn.module(x), expected, rtol=1e-4, atol=1e-5)
            assert not torch.equal(ffn.module(x), before[ffns.index(ffn)])
    for ffn, output in zip(ffns, before, strict=True):
        assert torch.equal(ffn.module(x), output), "nothing is left on the model"


@torch.no_grad()
def test_calibration_sees_each_layers_own_activations(model):
    ffns, inputs = gated_ffns(model), []
    hooks = [ffn.module.register_forward_pre_hook(lambda module, given: inputs.append(given[0])) for ffn in ffns]
    model(TOKENS)
    for hook in hooks:
        hook.remove()
    found = calibrate(model, TOKENS)
    assert len(found) == len(ffns)
    for layer, ffn, x in zip(found, ffns, inputs, strict=True):
        x, activated, x1, _ = written_out(ffn, x, {})
        outputs = x1.abs() * ffn.down_proj.weight.norm(dim=0)
        for place, values in (("input", x), ("activation", activated), ("x1", x1), ("output", outputs)):
            assert layer.quantiles[place] == pytest.approx(quantiles(values.abs()), rel=1e-3, abs=1e-6), place
        assert layer.errors[0] == 0
        assert layer.errors[-1] == pytest.approx(1, abs=0.3)
        assert (layer.errors[1:] >= layer.errors[:-1]).all()
    assert not ffns[0].down_proj._forward_pre_hooks
    assert not ffns[0].activation._forward_hooks
