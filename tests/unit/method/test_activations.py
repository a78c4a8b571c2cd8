"""Substitution and x1 against Hugging Face's own modules."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GraniteMoeHybridConfig,
    GraniteMoeHybridForCausalLM,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from prosparse.experiment.activation import Activation
from prosparse.method.activations import (
    FATReLU,
    ShiftedReLU,
    UnsupportedArchitecture,
    activation_module,
    gated_ffns,
    substitute,
)

TOKENS = torch.arange(24).reshape(2, 12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fatrelu_keeps_exactly_the_threshold(dtype):
    t = torch.tensor(0.01, dtype=dtype)
    below, above = torch.nextafter(t, t - 1), torch.nextafter(t, t + 1)
    x = torch.stack([below, t, above, -t, torch.zeros_like(t)])
    # the threshold is given as the value that the dtype holds
    assert FATReLU(t.item())(x).tolist() == [0, t.item(), above.item(), 0, 0]


def test_fatrelu_against_its_definition():
    x = torch.randn(1000)
    expected = [v if v >= 0.3 else 0.0 for v in x.tolist()]
    assert FATReLU(0.3)(x).tolist() == expected
    assert torch.equal(FATReLU(0.0)(x), torch.relu(x))


def test_shifted_relu_against_its_definition():
    x = torch.randn(1000, dtype=torch.float64)
    assert ShiftedReLU(0.1)(x).tolist() == [max(v - 0.1, 0.0) for v in x.tolist()]


def test_relu_substitution_equals_a_llama_built_with_relu(tiny_llama):
    ours, theirs = tiny_llama("silu"), tiny_llama("relu")
    substitute(ours, Activation(name="relu"))
    assert torch.equal(ours(TOKENS).logits, theirs(TOKENS).logits)
    assert ours.config.hidden_act == "relu"


def test_relu2_against_its_definition():
    x = torch.randn(1000, dtype=torch.float64)
    relu2 = activation_module(Activation(name="relu2"))
    assert relu2(x).tolist() == [v * v if v > 0 else 0.0 for v in x.tolist()]


def test_relu2_substitution_equals_a_llama_built_with_relu2(tiny_llama, tmp_path):
    ours, theirs = tiny_llama("silu"), tiny_llama("relu2")
    substitute(ours, Activation(name="relu2"))
    assert torch.equal(ours(TOKENS).logits, theirs(TOKENS).logits)
    ours.save_pretrained(tmp_path)
    assert torch.equal(LlamaForCausalLM.from_pretrained(tmp_path)(TOKENS).logits, theirs(TOKENS).logits)


def test_drelu_keeps_the_parameters_and_can_be_taken_back(tiny_llama):
    model = tiny_llama("relu")
    expected, parameters = model(TOKENS).logits, dict(model.named_parameters())
    substitute(model, Activation(name="drelu"))
    assert not torch.allclose(model(TOKENS).logits, expected)
    assert model.config.hidden_act == "drelu"
    substitute(model, Activation(name="drelu"))
    found = dict(model.named_parameters())
    assert found.keys() == parameters.keys()
    assert all(found[name] is parameters[name] for name in parameters)
    substitute(model, Activation(name="relu"))
    assert torch.equal(model(TOKENS).logits, expected)
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear


def test_a_stock_loader_refuses_drelu(tiny_llama, tmp_path):
    model = tiny_llama("relu")
    substitute(model, Activation(name="drelu"))
    model.save_pretrained(tmp_path)
    with pytest.raises(KeyError, match="drelu"):
        LlamaForCausalLM.from_pretrained(tmp_path)


def test_drelu_needs_a_linear_up_projection(tiny_llama):
    model = tiny_llama("relu")
    model.model.layers[1].mlp.up_proj = torch.nn.Sequential(torch.nn.Linear(32, 96))
    with pytest.raises(UnsupportedArchitecture, match=r"layers.1.mlp.up_proj is a Sequential: drelu needs a plain"):
        substitute(model, Activation(name="drelu"))


def test_silu_substitution_changes_nothing(tiny_llama):
    model = tiny_llama("silu")
    before = model(TOKENS).logits
    substitute(model, Activation(name="silu"))
    assert torch.equal(model(TOKENS).logits, before)


def test_relu_checkpoint_opens_in_the_stock_loader(tiny_llama, tmp_path):
    model = tiny_llama("silu")
    substitute(model, Activation(name="relu"))
    model.save_pretrained(tmp_path)
    assert torch.equal(LlamaForCausalLM.from_pretrained(tmp_path)(TOKENS).logits, model(TOKENS).logits)


def inputs_and_x1(model):
    """Every gated FFN with its input and its x1."""
    seen = []
    for ffn in gated_ffns(model):
        ffn.module.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
        ffn.down_proj.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    model(TOKENS)
    return zip(gated_ffns(model), seen[::2], seen[1::2], strict=True)


def test_x1_is_equation_2(tiny_llama):
    model = tiny_llama("silu")
    substitute(model, Activation(name="fatrelu", parameter=0.2))
    for ffn, x, x1 in inputs_and_x1(model):
        gate = x @ ffn.module.gate_proj.weight.T
        s = torch.where(gate >= 0.2, gate, torch.zeros(()))
        assert torch.allclose(x1, s * (x @ ffn.module.up_proj.weight.T))


def build(config_class, model_class, **extra):
    torch.manual_seed(0)
    config = config_class(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, **extra,
    )  # fmt: skip
    return model_class(config)


FAMILIES = {
    "mistral": lambda: build(MistralConfig, MistralForCausalLM),
    "qwen2": lambda: build(Qwen2Config, Qwen2ForCausalLM),
    "phi3": lambda: build(Phi3Config, Phi3ForCausalLM, pad_token_id=0),  # gate and up fused in one matrix
    "granitemoehybrid": lambda: build(  # also fused, under other names
        GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM, num_local_experts=0, layer_types=["attention"] * 2,
        mamba_n_heads=4, shared_intermediate_size=48,
    ),
}  # fmt: skip
X1 = {
    "relu": lambda gate, up: gate.clamp(min=0) * up,
    "relu2": lambda gate, up: gate.clamp(min=0) ** 2 * up,
    "drelu": lambda gate, up: gate.clamp(min=0) * up.clamp(min=0),
}


@pytest.mark.parametrize("activation", X1)
@pytest.mark.parametrize("family", FAMILIES)
def test_x1_in_float64(family, activation):
    """From the weights themselves, with gate and up projection apart or fused."""
    model = FAMILIES[family]().double()
    substitute(model, Activation(name=activation))
    for ffn, x, x1 in inputs_and_x1(model):
        expected = X1[activation](x @ ffn.gate_weight.T, x @ ffn.up_weight.T)
        torch.testing.assert_close(x1, expected, rtol=1e-12, atol=1e-14)
        share = (x1 == 0).double().mean()
        assert abs(share - (0.75 if activation == "drelu" else 0.5)) < 0.1  # random gates and ups are of either sign
        assert ffn.relu_up == (activation == "drelu")


@pytest.mark.parametrize("family", ["mistral", "qwen2", "phi3"])
def test_every_gated_family(family):
    model = FAMILIES[family]()
    assert len(gated_ffns(model)) == 2
    substitute(model, Activation(name="relu"))
    share = []
    for ffn in gated_ffns(model):
        ffn.down_proj.register_forward_pre_hook(lambda m, x1: share.append((x1[0] == 0).float().mean().item()))
    model(TOKENS)
    assert all(0.3 < s < 0.7 for s in share)  # random gates are negative half of the time


def test_ungated_model_is_refused():
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=32))
    with pytest.raises(UnsupportedArchitecture, match=r"GPT2LMHeadModel has no gated FFN"):
        gated_ffns(model)
