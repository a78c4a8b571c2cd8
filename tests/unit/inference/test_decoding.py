"""Decoding with every weight read by the operators against Hugging Face's own model, which is left unprepared."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from helpers.families import tiny_config
from helpers.tiny_decoders import HIDDEN, LAYERS, build, configs, random_predictors, sizes
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig, PreTrainedModel

from prosparse.experiment.activation import Activation
from prosparse.inference.decoding import cache, dense_bytes, prepare, weight_bytes
from prosparse.inference.generation import greedy
from prosparse.inference.predictors import Predictor, predicting
from prosparse.inference.sparse_ffn import DecodingFFN, StreamingLinear
from prosparse.method.activations import gated_ffns, substitute
from prosparse.operators import MAX_BATCH
from prosparse.system.errors import UserError

INTERMEDIATE, RANK = 150, 12
SIZES = sizes(INTERMEDIATE)
CONFIGS = {
    **configs(INTERMEDIATE),
    "llama_as_many_keys": LlamaConfig(**{**SIZES, "num_key_value_heads": 4}),
    "mistral_window": MistralConfig(**SIZES, sliding_window=16),
    # scores so capped that attention is another
    "gemma2": Gemma2Config(**SIZES, head_dim=16, sliding_window=16, attn_logit_softcapping=0.5),
}


def tiny(name: str, activation: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
    return build(CONFIGS[name], activation, dtype, seed)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(2, 199, shape, generator=torch.Generator().manual_seed(1))


def predictors() -> list[Predictor]:
    return random_predictors((HIDDEN, RANK, INTERMEDIATE))


def generate(model: PreTrainedModel, prompts: torch.Tensor, new_tokens: int, **options):
    """Token ids [batch, length], logits [new_tokens, batch, vocabulary]."""
    options = {"do_sample": False, **options}
    found = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=new_tokens, output_logits=True,
        return_dict_in_generate=True, **options,
    )  # fmt: skip
    return found.sequences, torch.stack(found.logits)


@pytest.mark.parametrize(
    ("name", "activation", "dtype", "batch"),
    [
        ("llama", "relu", torch.bfloat16, 1),
        ("llama", "fatrelu-0.2", torch.float32, 8),
        ("llama_tied", "shiftrelu-0.1", torch.bfloat16, 1),
        ("granite", "fatrelu-0.2", torch.bfloat16, 1),
        ("phi3", "shiftrelu-0.1", torch.float32, 3),
        ("mistral", "relu", torch.float16, 5),
        ("llama", "relu2", torch.bfloat16, 1),
        ("mistral", "relu2", torch.float16, 3),
        ("llama", "drelu", torch.float32, 8),
        ("phi3", "drelu", torch.bfloat16, 1),
    ],
)
def test_exact_is_dense_bit_for_bit_over_long_generations(name, activation, dtype, batch):
    decoder = prepare(tiny(name, activation, dtype))
    found = {}
    for mode in ("dense", "exact"):
        decoder.mode = mode
        assert decoder.mode == mode
        found[mode] = generate(decoder.model, tokens(batch, 12), 220, past_key_values=cache(decoder.model))
    assert torch.equal(found["dense"][0], found["exact"][0])
    assert torch.equal(found["dense"][1], found["exact"][1])
    assert len(set(found["dense"][0][0, 12:].tolist())) > 5, "a model that repeats itself would show little"


@pytest.mark.parametrize(
    ("name", "activation", "batch"),
    [
        ("llama", "relu", 1),
        ("llama", "fatrelu-0.2", MAX_BATCH),
        ("llama", "shiftrelu-0.1", 1),
        ("llama_tied", "fatrelu-0.2", 1),
        ("llama_as_many_keys", "relu", 1),
        ("granite", "fatrelu-0.2", 1),
        ("granite", "relu", 3),
        ("phi3", "relu", 1),
        ("phi3", "shiftrelu-0.1", 3),
        ("mistral", "relu", 3),
        ("mistral_window", "fatrelu-0.2", 1),
        ("mistral_window", "relu", 3),
        ("qwen2", "relu", 1),
        ("gemma2", "relu", 1),
        ("qwen2", "fatrelu-0.2", MAX_BATCH + 1),  # more tokens than the operators take
        ("llama", "relu2", 1),
        ("phi3", "relu2", 3),
        ("granite", "drelu", 1),
        ("phi3", "drelu", 3),
        ("qwen2", "drelu", MAX_BATCH + 1),
    ],
)
def test_generates_what_the_unprepared_model_does(name, activation, batch):
    model = tiny(name, activation)
    expected, logits = generate(model, tokens(batch, 12), 30)
    decoder = prepare(model)
    for mode in ("dense", "exact"):
        decoder.mode = mode
        ours, our_logits = generate(model, tokens(batch, 12), 30, past_key_values=cache(model))
        assert torch.equal(ours, expected)
        torch.testing.assert_close(our_logits, logits, rtol=1e-3, atol=1e-3)


def argmax_loop(model: PreTrainedModel, prompt: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """Without a cache: every token from scratch."""
    for _ in range(new_tokens):
        prompt = torch.cat([prompt, model(prompt, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    return prompt


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 3.0},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": list(range(50))},
        {"begin_suppress_tokens": list(range(150))},
        {"bad_words_ids": [[i] for i in range(2, 100)]},
        {"forced_eos_token_id": 7},
        {"min_new_tokens": 30, "eos_token_id": [5, 6]},
        {"sequence_bias": [[[9], 50.0]]},
        {"do_sample": True, "temperature": 5.0, "top_p": 0.9, "top_k": 40},
        {"num_beams": 3, "length_penalty": 2.0},
        {"max_length": 13},
        {"stop_strings": ["a"]},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_greedy_is_the_argmax_whatever_the_generation_config_says(settings):
    model = tiny("llama", "relu")
    expected = argmax_loop(model, tokens(1, 12), 30)
    model.generation_config.update(**settings)
    decoder = prepare(model)
    assert greedy(decoder, tokens(1, 12)[0].tolist(), 30) == expected[0, 12:].tolist()
    eos = model.generation_config.eos_token_id
    ours = generate(model, tokens(1, 12), 30, past_key_values=cache(model), eos_token_id=None)[0]
    assert torch.equal(ours, expected)
    assert eos == settings.get("eos_token_id")  # special tokens are the model's, not a setting


def test_greedy_is_generate_and_needs_no_cache_of_ours():
    model = tiny("llama", "relu")
    expected = generate(model, tokens(1, 12), 30)[0]
    decoder = prepare(model)
    assert greedy(decoder, tokens(1, 12)[0].tolist(), 30) == expected[0, 12:].tolist()
    assert torch.equal(generate(model, tokens(1, 12), 30)[0], expected)


def test_batches_of_prompts_of_different_lengths():
    model = tiny("llama", "relu")
    prompts, mask = tokens(2, 10), torch.ones(2, 10, dtype=torch.long)
    prompts[0, :4] = mask[0, :4] = 0
    options = {"attention_mask": mask, "max_new_tokens": 30, "do_sample": False}
    expected = model.generate(prompts, **options)
    prepare(model)
    assert torch.equal(model.generate(prompts, **options, past_key_values=cache(model)), expected)


def test_silu_decodes_dense():
    model = tiny("llama", "silu")
    expected, logits = generate(model, tokens(1, 12), 40)
    decoder = prepare(model)
    assert decoder.modes == ("dense",)
    assert decoder.mode == "dense"
    ours, our_logits = generate(model, tokens(1, 12), 40, past_key_values=cache(model))
    assert torch.equal(ours, expected)
    torch.testing.assert_close(our_logits, logits, rtol=1e-3, atol=1e-3)


def test_samples_alike_under_one_seed():
    decoder, found = prepare(tiny("llama", "fatrelu-0.2", torch.bfloat16)), []
    for mode in ("dense", "exact"):
        decoder.mode = mode
        torch.manual_seed(5)
        options = {"do_sample": True, "temperature": 1.3, "top_k": 20, "past_key_values": cache(decoder.model)}
        found.append(generate(decoder.model, tokens(2, 6), 60, **options)[0])
    assert torch.equal(*found)
    assert not torch.equal(found[0][0], found[0][1])


# --------------------------------------------------------------------------------- predicted


@pytest.mark.parametrize("decision_threshold", [0.5, 0.2])
@pytest.mark.parametrize(
    ("name", "activation"),
    [("llama", "relu"), ("granite", "fatrelu-0.2"), ("phi3", "relu"), ("llama", "relu2"), ("phi3", "drelu")],
)
def test_predicted_is_the_model_with_what_is_predicted_inactive_set_to_0(name, activation, decision_threshold):
    """By hooks on torch's own products: a prompt this short is computed under the prediction too."""
    model = tiny(name, activation)
    exact = generate(model, tokens(1, 6), 30)[1]
    with predicting(model, predictors(), decision_threshold):
        expected, logits = generate(model, tokens(1, 6), 30)
    assert not torch.allclose(exact, logits, rtol=0.1, atol=0.1)
    decoder = prepare(model, predictors(), decision_threshold)
    assert decoder.modes == ("dense", "exact", "predicted")
    assert decoder.mode == "exact"
    torch.testing.assert_close(
        generate(model, tokens(1, 6), 30, past_key_values=cache(model))[1], exact, rtol=1e-3, atol=1e-3
    )
    decoder.mode = "predicted"
    ours, our_logits = generate(model, tokens(1, 6), 30, past_key_values=cache(model))
    assert torch.equal(ours, expected)
    torch.testing.assert_close(our_logits, logits, rtol=1e-3, atol=1e-3)


def test_predicted_in_a_batch_is_each_token_by_itself():
    model = tiny("llama", "relu")
    rows = tokens(MAX_BATCH, 1)
    with torch.no_grad(), predicting(model, predictors(), 0.5):
        expected = model(rows).logits
    prepare(model, predictors()).mode = "predicted"
    torch.testing.assert_close(model(rows).logits, expected, rtol=1e-3, atol=1e-3)


def test_a_prompt_of_more_tokens_than_the_operators_take_is_computed_densely():
    model = tiny("llama", "relu")
    prompt = tokens(1, MAX_BATCH + 1)
    dense = model(prompt).logits
    with predicting(model, predictors(), 0.5):
        predicted = model(prompt[:, :MAX_BATCH]).logits
    decoder = prepare(model, predictors())
    for mode in decoder.modes:
        decoder.mode = mode
        torch.testing.assert_close(model(prompt).logits, dense, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model(prompt[:, :MAX_BATCH]).logits, predicted, rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------------------------- the FFN


def test_skips_the_rows_of_inactive_neurons_alone():
    """W_1's and W_2's rows of neurons that are never active may hold anything while decoding exactly."""
    model = tiny("llama", "relu")
    module = gated_ffns(model)[0].module
    module.gate_proj.weight[:100] = 0  # a gate of exactly 0
    x = torch.randn(1, 1, HIDDEN, generator=torch.Generator().manual_seed(2))
    expected = module(x)
    decoder = prepare(model)
    ffn = model.model.layers[0].mlp
    assert isinstance(ffn, DecodingFFN)
    ffn.up_weight[:100] = ffn.down_weight_transposed[:100] = float("nan")
    torch.testing.assert_close(ffn(x), expected, rtol=1e-4, atol=1e-4)
    assert ffn(x.expand(1, MAX_BATCH + 1, HIDDEN)).isnan().all()
    decoder.mode = "dense"
    assert ffn(x).isnan().all()


def test_drelu_skips_the_rows_of_w2_where_up_is_not_positive():
    """And those of W_1 where the gate is not; under the predictor, only where it predicts an active neuron."""
    model = tiny("llama", "drelu")
    module, x = gated_ffns(model)[0].module, torch.randn(1, 1, HIDDEN, generator=torch.Generator().manual_seed(2))
    expected = module(x)
    open_gate, positive = module.gate_proj(x)[0, 0] > 0, x[0, 0] @ module.up_proj.weight.T > 0
    chosen = predictors()[0](x)[0, 0] >= 0
    x1 = torch.where(chosen, module.act_fn(module.gate_proj(x)) * module.up_proj(x), 0)
    decoder = prepare(model, predictors())
    ffn = decoder.ffns[0]
    ffn.residual = x
    ffn.up_weight[~open_gate] = ffn.down_weight_transposed[~(open_gate & positive)] = float("nan")
    torch.testing.assert_close(ffn(x), expected, rtol=1e-4, atol=1e-4)
    ffn.gate_weight[~chosen] = ffn.up_weight[~chosen] = ffn.down_weight_transposed[~chosen] = float("nan")
    decoder.mode = "predicted"
    w2 = ffn.down_weight_transposed.nan_to_num()
    torch.testing.assert_close(ffn(x), x1 @ w2, rtol=1e-4, atol=1e-4)
    decoder.mode = "dense"
    assert ffn(x).isnan().all()


def test_predicted_does_not_read_the_gate_of_what_is_predicted_inactive():
    model = tiny("llama", "relu")
    decoder = prepare(model, predictors())
    ffn = decoder.ffns[0]
    ffn.residual = x = torch.randn(1, 1, HIDDEN, generator=torch.Generator().manual_seed(2))
    decoder.mode = "predicted"
    expected = ffn(x)
    predicted = predictors()[0](x)[0, 0] >= 0
    assert 20 < predicted.sum() < INTERMEDIATE - 20
    ffn.gate_weight[~predicted] = ffn.up_weight[~predicted] = ffn.down_weight_transposed[~predicted] = float("nan")
    assert torch.equal(ffn(x), expected)


@pytest.mark.parametrize("activation", ["relu", "relu2", "drelu"])
@pytest.mark.parametrize("name", ["llama", "phi3"])
def test_takes_what_the_dense_module_takes(name, activation):
    model = tiny(name, activation)
    dense = copy.deepcopy(model.model.layers[0].mlp)
    prepare(model)
    ffn = model.model.layers[0].mlp
    x = torch.randn(1, HIDDEN, 4, generator=torch.Generator().manual_seed(3)).transpose(1, 2)  # strided columns
    torch.testing.assert_close(ffn(x), dense(x), rtol=1e-4, atol=1e-4)
    assert ffn(x[:, :0]).shape == (1, 0, HIDDEN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(ffn(x), dense(x))


@pytest.mark.parametrize("activation", ["relu", "relu2", "drelu"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_prompts_give_what_the_dense_model_gives(dtype, activation):
    model = tiny("llama", activation, dtype)
    expected = model(tokens(2, 20)).logits
    prepare(model)
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(model(tokens(2, 20)).logits, expected, rtol=tolerance, atol=tolerance / 10)


# ----------------------------------------------------------------------------- held once


def bytes_held(model: torch.nn.Module) -> int:
    """By all tensors that its modules hold, as parameters or otherwise; shared memory counts once."""
    storages = {}
    for module in model.modules():
        for value in [*vars(module).values(), *module._parameters.values(), *module._buffers.values()]:
            if isinstance(value, torch.Tensor):
                storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return sum(storages.values())


@pytest.mark.parametrize("with_predictors", [False, True])
@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - {"gemma2"}))  # whose norms no predictor reads
def test_weights_are_held_once(name, with_predictors):
    model = tiny(name, "relu", torch.bfloat16)
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    before = bytes_held(model)
    taken = [
        weakref.ref(getattr(ffn.module, projection).weight)
        for ffn in gated_ffns(model)
        for projection in ("gate_up_proj", "up_proj", "down_proj")
        if hasattr(ffn.module, projection)
    ]
    decoder = prepare(model, predictors() if with_predictors else None)
    added = LAYERS * RANK * (HIDDEN + INTERMEDIATE) * 2 if with_predictors else 0
    assert weight_bytes(decoder) == parameters + added
    assert bytes_held(model) == before + added
    gc.collect()
    assert taken
    assert not any(reference() is not None for reference in taken), "weights that were laid out anew are still alive"


def test_bytes_that_every_token_reads():
    decoder = prepare(tiny("llama", "relu", torch.bfloat16))
    attention = 2 * 64 * 64 + 2 * 64 * 32  # query and output; key and value of half as many heads
    assert dense_bytes(decoder) == {"attention": LAYERS * attention * 2, "head": 199 * 64 * 2}
    assert dense_bytes(prepare(tiny("llama_tied", "relu")))["head"] == 199 * 64 * 4
    assert all(type(module) is not torch.nn.Linear for module in decoder.model.modules())
    assert isinstance(decoder.model.get_output_embeddings(), StreamingLinear)


# -------------------------------------------------------------------------------- refusals


def biased() -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, mlp_bias=True, hidden_act="relu")).eval()


def wrapped() -> PreTrainedModel:
    model = tiny("llama", "relu")
    last = gated_ffns(model)[-1].module
    last.up_proj = torch.nn.Sequential(last.up_proj)  # as an adapter would wrap it
    return model


def gemma2() -> PreTrainedModel:
    model = AutoModelForCausalLM.from_config(Gemma2Config(**SIZES, head_dim=16)).eval()
    substitute(model, Activation.parse("relu"))
    return model


def falcon_h1() -> PreTrainedModel:
    config = tiny_config("falcon_h1")  # with multipliers of the gate and of the output
    config.vocab_size = 199
    return AutoModelForCausalLM.from_config(config).eval()


def bitnet() -> PreTrainedModel:
    config = tiny_config("bitnet")
    config.vocab_size = 199
    return AutoModelForCausalLM.from_config(config).eval()


def unlike_without_a_cache() -> PreTrainedModel:
    """A model whose linear layers do more than transformers' own."""
    model = tiny("llama", "relu")
    model.model.layers[1].self_attn.o_proj.register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def other_size() -> list[Predictor]:
    return [*predictors()[:-1], Predictor(HIDDEN, RANK, INTERMEDIATE + 1)]


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (biased, None, r"model\.layers\.0\.mlp\.gate_proj has a bias"),
        (wrapped, None, r"layers\.1\.mlp\.up_proj is a Sequential: a plain linear layer is needed"),
        (lambda: tiny("llama", "silu"), predictors, r"this model's activation has no zeros"),
        (lambda: tiny("llama", "relu"), lambda: predictors()[:1], r"1 predictors for a model of 2 layers"),
        (lambda: tiny("llama", "relu"), other_size, r"predictor of layer 1 maps 64 to 151 values"),
        (gemma2, predictors, r"post_attention_layernorm"),
        (falcon_h1, None, r"model\.layers\.0\.feed_forward \(FalconH1MLP\): the input of down_proj is not act"),
        (bitnet, None, r"model\.layers\.0\.mlp \(BitNetMLP\): the input of down_proj is not act"),
        (unlike_without_a_cache, None, r"LlamaForCausalLM cannot be decoded here: its logits would be off by"),
    ],
)
def test_a_refused_model_is_left_as_it_was(model, given, message):
    model = model()
    expected, modules = model(tokens(1, 5)).logits, [(name, id(module)) for name, module in model.named_modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=message):
        prepare(model, given() if given else None)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [(name, id(module)) for name, module in model.named_modules()] == modules
    assert torch.equal(model(tokens(1, 5)).logits, expected)


@pytest.mark.parametrize(
    ("activation", "given", "mode", "message"),
    [
        ("silu", None, "exact", r"'exact' \(its activation has no zeros to skip\); allowed: dense$"),
        ("relu", None, "predicted", r"'predicted' \(predictors are needed\); allowed: dense, exact$"),
        ("relu", predictors, "guess", r"'guess' .*allowed: dense, exact, predicted$"),
    ],
)
def test_a_mode_that_is_not_allowed_names_those_that_are(activation, given, mode, message):
    decoder = prepare(tiny("llama", activation), given() if given else None)
    before = decoder.mode
    with pytest.raises(UserError, match=message):
        decoder.mode = mode
    assert decoder.mode == before
