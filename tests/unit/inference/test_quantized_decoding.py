"""Decoding with Q8_0 and Q4_0 weights against Hugging Face's own model of the same rounded weights."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.tiny_decoders import HIDDEN, build, configs, random_predictors
from transformers import PreTrainedModel

from prosparse.inference.decoding import cache, prepare, weight_bytes
from prosparse.inference.generation import Text, greedy
from prosparse.inference.predictors import Predictor
from prosparse.inference.rounded import round_weights
from prosparse.method.activations import gated_ffns
from prosparse.operators import quantized
from prosparse.operators.quantized import FORMATS, Format
from prosparse.system.errors import UserError

INTERMEDIATE, RANK = 160, 16
CONFIGS = configs(INTERMEDIATE)
PROMPT = [5, 17, 101, 3, 99, 6, 7]
EACH_FORMAT = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)


def tiny(name: str, activation: str = "relu", dtype: torch.dtype = torch.float32, **changes) -> PreTrainedModel:
    config = copy.deepcopy(CONFIGS[name])
    config.update(changes)
    return build(config, activation, dtype)


def predictors() -> list[Predictor]:
    return random_predictors((HIDDEN, RANK, INTERMEDIATE))


def rounded(model: PreTrainedModel, form: Format) -> PreTrainedModel:
    """transformers' model with the values of the format: rows of W_2^T, and of every other matrix but the embedding."""

    def values(weight: torch.Tensor) -> torch.Tensor:
        return quantized.dequantize(quantized.quantize(weight, form), weight.dtype)

    transposed = {f"{ffn.name}.{ffn.projections[-1]}" for ffn in gated_ffns(model)}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            weight = values(module.weight.t().contiguous()).t() if name in transposed else values(module.weight)
            module.weight = torch.nn.Parameter(weight.contiguous(), requires_grad=False)
    return model


def logits(decoder, tokens: list[int]) -> torch.Tensor:
    """Of the prompt's first tokens at once, then of the others one by one."""
    text = Text(decoder, len(tokens))
    return torch.stack([text.read(tokens[:4]), *(text.read([token]) for token in tokens[4:])])


@EACH_FORMAT
@pytest.mark.parametrize(
    ("name", "activation"), [*((name, "relu") for name in CONFIGS), ("llama", "relu2"), ("phi3", "drelu")]
)
def test_computes_transformers_model_of_the_rounded_weights(name, activation, form):
    """Up to the rounding of activations to 8 bits."""
    decoder = prepare(tiny(name, activation), form=form)
    assert decoder.native is not None, decoder.without_native
    found = logits(decoder, PROMPT)
    expected = rounded(tiny(name, activation), form)(torch.tensor([PROMPT])).logits[0, 3:]
    assert (found - expected).norm() <= 0.04 * expected.norm()
    other = tiny(name, activation)(torch.tensor([PROMPT])).logits[0, 3:]
    assert (found - expected).norm() < 0.7 * (found - other).norm()


@EACH_FORMAT
@pytest.mark.parametrize(
    ("name", "activation", "dtype"),
    [
        ("llama", "relu", torch.bfloat16),
        ("llama_tied", "shiftrelu-0.1", torch.bfloat16),
        ("granite", "fatrelu-0.2", torch.float32),
        ("phi3", "fatrelu-0.2", torch.float16),
        ("llama", "relu2", torch.bfloat16),
        ("phi3", "drelu", torch.bfloat16),
        ("granite", "drelu", torch.float32),
    ],
)
def test_exact_is_dense_bit_for_bit_over_220_tokens(name, activation, dtype, form):
    decoder = prepare(tiny(name, activation, dtype), form=form)
    texts, last = {}, {}
    for mode in ("dense", "exact"):
        decoder.mode = mode
        texts[mode] = greedy(decoder, PROMPT, 220)
        last[mode] = logits(decoder, PROMPT + texts[mode][:20])
    assert texts["dense"] == texts["exact"]
    assert torch.equal(last["dense"], last["exact"])
    assert len(set(texts["dense"])) > 5


@EACH_FORMAT
def test_generate_and_the_native_decoder_agree(form):
    decoder = prepare(tiny("llama"), form=form)
    given = torch.tensor([PROMPT])
    past = cache(decoder.model)
    parts = [given[:, :4], *given[:, 4:].split(1, dim=1)]
    found = [decoder.model(input_ids=part, past_key_values=past, use_cache=True).logits[0, -1] for part in parts]
    # a last bit that differs can move an activation to the next of its 8-bit values
    expected = logits(decoder, PROMPT)
    assert (torch.stack(found) - expected).norm() <= 0.02 * expected.norm()
    generated = decoder.model.generate(
        given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=30,
        do_sample=False,
        past_key_values=cache(decoder.model),
    )
    assert generated[0, len(PROMPT) :].tolist() == greedy(decoder, PROMPT, 30)


@EACH_FORMAT
@pytest.mark.parametrize("name", ["llama", "llama_tied", "phi3"])
@pytest.mark.parametrize("length", [9, 40])
def test_a_long_prompt_is_the_same_model(name, form, length):
    """More tokens than the operators take at once are split, up to the rounding of activations."""
    decoder = prepare(tiny(name), form=form)
    given = torch.randint(2, 199, (2, length), generator=torch.Generator().manual_seed(0))
    found = decoder.model(given).logits
    expected = rounded(tiny(name), form)(given).logits
    assert (found - expected).norm() <= 0.04 * expected.norm()
    other = tiny(name)(given).logits
    assert (found - expected).norm() < 0.8 * (found - other).norm()


@EACH_FORMAT
def test_a_prompt_is_read_as_its_tokens_are(form):
    """In parts of 8 tokens whose operators equal those of one token bit for bit."""
    ffn = prepare(tiny("llama", dtype=torch.bfloat16), form=form).ffns[0]
    x = torch.randn(2, 13, HIDDEN, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = ffn(x)
    for mode in ("dense", "exact"):
        ffn.mode = mode
        assert torch.equal(found, torch.cat([ffn(token) for token in x.view(26, 1, HIDDEN)]).view(x.shape))


@EACH_FORMAT
@pytest.mark.parametrize("name", ["llama_tied", "phi3"])
def test_rounded_weights_are_those_that_decode(name, form):
    model = tiny(name)
    round_weights(model, form)
    decoder = prepare(tiny(name), form=form)
    for measured, decoding in zip(gated_ffns(model), decoder.ffns, strict=True):
        transposed = getattr(measured.module, measured.projections[-1]).weight.t()
        assert torch.equal(measured.gate_weight, quantized.dequantize(decoding.gate_weight.detach(), torch.float32))
        assert torch.equal(measured.up_weight, quantized.dequantize(decoding.up_weight, torch.float32))
        assert torch.equal(transposed, quantized.dequantize(decoding.down_weight_transposed, torch.float32))
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "mlp" not in name:
            packed = decoder.model.get_submodule(name).weight.detach()
            assert torch.equal(module.weight, quantized.dequantize(packed, torch.float32))


@EACH_FORMAT
def test_predictors_are_rounded_too(form):
    decoder = prepare(tiny("llama"), predictors(), 1e-300, form=form)
    assert decoder.ffns[0].fc1_weight.dtype == form.dtype
    everything = {}
    for mode in ("exact", "predicted"):
        decoder.mode = mode
        everything[mode] = greedy(decoder, PROMPT, 30)
    assert everything["exact"] == everything["predicted"]
    residual = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(0))
    (wanted, _), ffn = predictors(), decoder.ffns[0]
    assert (ffn.scores(residual) - wanted(residual)).norm() < 0.2 * wanted(residual).norm()


@EACH_FORMAT
def test_weights_are_held_once(form):
    model = tiny("llama", dtype=torch.bfloat16)
    matrices = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    values = sum(module.weight.numel() for module in matrices)
    others = sum(parameter.numel() for parameter in model.parameters()) - values
    assert weight_bytes(prepare(model, form=form)) == values // 32 * form.block_bytes + 2 * others


@EACH_FORMAT
def test_what_no_block_holds_is_one_line(form):
    model = tiny("llama", hidden_size=80)
    with pytest.raises(UserError, match=r"^model\S+q_proj.weight has rows of 80 values: Q8_0 and Q4_0 need"):
        prepare(model, form=form)
    assert isinstance(model.model.layers[0].self_attn.q_proj, torch.nn.Linear)
    with pytest.raises(UserError, match=r"^fc2 of the predictors, transposed, has rows of 150 values"):
        prepare(tiny("llama", intermediate_size=150), [Predictor(HIDDEN, RANK, 150)] * 2, form=form)
    large = tiny("llama")
    large.model.layers[1].mlp.up_proj.weight[0, 0] = 1e8
    with pytest.raises(UserError, match=r"^model.layers.1.mlp.up_proj.weight holds values that are not finite, or too"):
        prepare(large, form=form)
