"""Every family of causal language models that transformers has: equal to transformers' own logits, or refused.

``docs/models.md`` says which.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from helpers.families import FAMILIES, tiny_config
from helpers.repository import ROOT
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from prosparse.experiment.activation import Activation
from prosparse.inference.attention import cache
from prosparse.inference.decoding import prepare
from prosparse.inference.generation import Text
from prosparse.inference.predictors import feeding_norms
from prosparse.method.activations import gated_ffns, substitute
from prosparse.models.build import empty
from prosparse.models.load import check, load, own_activation
from prosparse.models.third_party import configuration
from prosparse.system.errors import UserError

PAGE = (ROOT / "docs" / "models.md").read_text()
(LIST,) = re.findall(r"\n\n(`.*?)\n\n", PAGE.partition("## Supported")[2].partition("\n## ")[0], re.DOTALL)
SUPPORTED = set(re.findall(r"`(\w+)`", LIST))
#: Each of their tokens takes transformers' modules instead of one native call.
(LIST,) = re.findall(r"exceptions\s+are\s(`.*?):", PAGE, re.DOTALL)
NOT_NATIVE = set(re.findall(r"`(\w+)`", LIST))
TOKENS = torch.randint(3, 64, (1, 14), generator=torch.Generator().manual_seed(7))
#: They need configs of several models: none is an ordinary decoder.
NO_DEFAULT = {"gemma4_assistant", "gemma4_unified_assistant", "musicgen", "musicgen_melody", "zamba", "zamba2"}
#: More would take minutes to draw: only families without a gated FFN may be this large under the sizes given.
LARGE = 6_000_000


def logits(model: PreTrainedModel, past) -> torch.Tensor:
    """A prompt, then three tokens one by one."""
    with torch.inference_mode():
        parts = [TOKENS[:, :-3], *TOKENS[:, -3:].split(1, dim=1)]
        return torch.cat([model(input_ids=part, past_key_values=past, use_cache=True).logits[0] for part in parts])


def random_model(family: str, folder: Path) -> PreTrainedModel:
    """Its config is one that ``load`` accepts."""
    config = tiny_config(family)
    config.save_pretrained(folder)
    config = configuration(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if sum(weight.numel() for weight in model.parameters()) > LARGE:
        gated_ffns(model)
        pytest.fail(f"{family} needs smaller sizes")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():  # biases and multipliers begin at 0
        if weight.dim() == 1:
            weight.data += 0.1 * torch.randn_like(weight)
    check(model)
    return model


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in NO_DEFAULT])
def test_computes_what_transformers_does_or_is_refused(family, tmp_path):
    model, refusal = None, ""
    try:
        model = random_model(family, tmp_path)
    except UserError as error:
        refusal = str(error)
    assert (model is not None) == (family in SUPPORTED), refusal or "docs/models.md does not list it"
    if model is None:
        assert "\n" not in refusal
        return
    substitute(model, Activation.parse("relu"))
    model.save_pretrained(tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path).eval()  # built with relu by transformers itself
    expected = logits(stock, DynamicCache(config=stock.config))
    ours = load(tmp_path).eval()
    assert str(own_activation(ours.config)) == "relu"
    torch.testing.assert_close(logits(ours, DynamicCache(config=ours.config)), expected)
    decoder = prepare(ours)
    if hasattr(torch.ops.prosparse, "attention"):
        assert (decoder.native is None) == (family in NOT_NATIVE), decoder.without_native
    for mode in decoder.modes:
        decoder.mode = mode
        torch.testing.assert_close(logits(ours, cache(ours)), expected, rtol=1e-4, atol=1e-4)
        text, tokens = Text(decoder, TOKENS.shape[1]), TOKENS[0].tolist()
        read = [text.read(part) for part in (tokens[:-3], *([token] for token in tokens[-3:]))]
        torch.testing.assert_close(torch.stack(read), expected[-4:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", sorted(SUPPORTED))
def test_what_is_substituted_is_the_whole_ffn(family, tmp_path):
    """Without x1, FFN weights change nothing; what other matrices there are, their names tell."""
    model = random_model(family, tmp_path)
    ffns = gated_ffns(model)
    assert len(ffns) == model.config.num_hidden_layers
    inside = {f"{ffn.name}.{name}" for ffn in ffns for name, _ in ffn.module.named_parameters()}
    outside = [name for name, weight in model.named_parameters() if weight.dim() >= 2 and name not in inside]
    assert all(re.search(r"attn|attention|embed|lm_head|mixer", name) for name in outside), outside
    before = logits(model, DynamicCache(config=model.config))
    for ffn in ffns:
        setattr(ffn.module, ffn.activation_attribute, torch.nn.Threshold(float("inf"), 0.0))
    without = logits(model, DynamicCache(config=model.config))
    assert not torch.allclose(without, before)
    with torch.no_grad():
        for ffn in ffns:
            for name, weight in ffn.module.named_parameters():
                if not name.endswith("bias"):
                    weight.mul_(-3)
    assert torch.equal(logits(model, DynamicCache(config=model.config)), without)


@pytest.mark.parametrize("family", sorted(SUPPORTED))
def test_drelu_is_relu_with_another_after_the_up_projection(family, tmp_path):
    """By a hook on each up projection of the model with ReLU, whether apart or fused with the gate's."""
    model = random_model(family, tmp_path)
    substitute(model, Activation.parse("relu"))
    hooks = []
    for ffn in gated_ffns(model):

        def rectify(module, inputs, output, projections=ffn.projections):
            if len(projections) == 3:
                return output.relu()
            gate, up = output.chunk(2, -1)
            return torch.cat([gate, up.relu()], -1)

        hooks.append(ffn.module.get_submodule(ffn.projections[-2]).register_forward_hook(rectify))
    expected = logits(model, DynamicCache(config=model.config))
    for hook in hooks:
        hook.remove()
    before = logits(model, DynamicCache(config=model.config))
    substitute(model, Activation.parse("drelu"))
    assert torch.equal(logits(model, DynamicCache(config=model.config)), expected)
    assert not torch.allclose(before, expected)


@pytest.mark.parametrize("family", sorted(SUPPORTED))
def test_predictors_read_the_residual_before_the_norm_that_feeds_the_ffn(family, tmp_path):
    model = random_model(family, tmp_path)
    try:
        norms = feeding_norms(model)
    except UserError:
        return
    normed, read = [], []
    for norm, ffn in zip(norms, gated_ffns(model), strict=True):
        norm.register_forward_hook(lambda module, inputs, output: normed.append(output))
        ffn.module.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    logits(model, None)
    assert len(normed) == len(read)
    assert all(torch.equal(one, other) for one, other in zip(normed, read, strict=True))


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "glm4", "granite", "qwen2"])
def test_a_model_without_weights_becomes_the_model_when_it_gets_them(family, tmp_path):
    model = random_model(family, tmp_path)
    substitute(model, Activation.parse("silu"))
    received = empty(configuration(tmp_path)).eval()
    received.load_state_dict(model.state_dict())
    assert torch.equal(received(TOKENS).logits, model(TOKENS).logits)
