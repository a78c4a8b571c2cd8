"""The native decoder against transformers' own layers and models, which are left unprepared."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers
from helpers.tiny_decoders import HIDDEN, LAYERS, VOCABULARY, random_predictors, sizes
from transformers import AutoModelForCausalLM, DynamicCache, Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from prosparse.experiment.activation import Activation
from prosparse.inference.decoding import Decoder, cache, prepare
from prosparse.inference.generation import Text, continued, greedy
from prosparse.inference.predictors import Predictor, predicting
from prosparse.method.activations import substitute

INTERMEDIATE, RANK = 150, 12
SIZES = sizes(INTERMEDIATE)
CONFIGS = {
    "llama": ("LlamaConfig", {}),
    "llama_biases": ("LlamaConfig", {"attention_bias": True}),
    "llama_wide_heads": ("LlamaConfig", {"head_dim": 20, "num_key_value_heads": 4}),
    "granite": (
        "GraniteConfig",
        {"embedding_multiplier": 12.0, "residual_multiplier": 0.9, "logits_scaling": 2.0, "attention_multiplier": 0.25},
    ),
    "phi3": ("Phi3Config", {"partial_rotary_factor": 0.5}),
    "mistral_window": ("MistralConfig", {"sliding_window": 5}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "cohere": ("CohereConfig", {"use_qk_norm": True}),
    "glm4": ("Glm4Config", {"head_dim": 16}),
    "gemma3_text": ("Gemma3TextConfig", {"head_dim": 16, "sliding_window": 5, "query_pre_attn_scalar": 16}),
    "olmo2": ("Olmo2Config", {}),
    "stablelm": ("StableLmConfig", {"qk_layernorm": True}),
}

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.prosparse, "attention"), reason="the native CPU operators could not be built"
)


def tiny(name: str, activation: str = "relu", dtype: torch.dtype = torch.float32, **more) -> PreTrainedModel:
    kind, changes = CONFIGS[name]
    config = getattr(transformers, kind)(**{**SIZES, **changes, **more})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():  # norms and biases start at 1 and 0
        if weight.dim() == 1:
            weight.data += 0.2 * torch.randn_like(weight)
    substitute(model, Activation.parse(activation))
    return model.to(dtype).requires_grad_(False)


def tokens(count: int) -> list[int]:
    return torch.randint(2, VOCABULARY, (count,), generator=torch.Generator().manual_seed(1)).tolist()


def predictors() -> list[Predictor]:
    return random_predictors((HIDDEN, RANK, INTERMEDIATE))


def watched(model: PreTrainedModel, given: list[int], entering: torch.Tensor | None = None) -> torch.Tensor:
    """Input and output of every layer for each token, [layers, tokens, 2, hidden_size]; inputs may be given."""
    found = torch.zeros(LAYERS, len(given), 2, HIDDEN, dtype=model.dtype)
    hooks, position = [], 0
    for index, layer in enumerate(model.model.layers):

        def enter(module, inputs, options, index=index):
            hidden = inputs[0] if inputs else options.pop("hidden_states")
            if entering is not None:
                hidden = entering[index, position].to(hidden.dtype)[None, None]
            found[index, position, 0] = hidden
            return (hidden, *inputs[1:]), options

        def leave(module, inputs, output, index=index):
            found[index, position, 1] = output

        hooks += [layer.register_forward_pre_hook(enter, with_kwargs=True), layer.register_forward_hook(leave)]
    past = DynamicCache(config=model.config)
    for position, token in enumerate(given):  # noqa: B007 (the hooks read it)
        model(input_ids=torch.tensor([[token]]), past_key_values=past, use_cache=True)
    for hook in hooks:
        hook.remove()
    return found


def native_layers(decoder: Decoder, mode: str, entering: torch.Tensor) -> torch.Tensor:
    """Outputs of every layer for each token, [layers, tokens, hidden_size]."""
    native, count = decoder.native, entering.shape[1]
    assert native is not None, decoder.without_native
    room, table = native.room(count), native.table(count)
    found = torch.empty_like(entering)
    for index in range(LAYERS):
        for position in range(count):
            found[index, position] = native.layer(index, entering[index, position], position, room, table, mode)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ["relu", "fatrelu-0.2", "shiftrelu-0.1", "silu", "relu2", "drelu"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_layer_is_transformers_layer(name, activation, dtype):
    """Each is given transformers' own input; in 16 bits, our error is like transformers' own against float32."""
    model, given = tiny(name, activation, dtype), tokens(11)
    entering, expected = watched(model, given).unbind(2)
    precise = watched(copy.deepcopy(model).float(), given, entering)[:, :, 1]
    decoder = prepare(model)
    for mode in decoder.modes:
        found = native_layers(decoder, mode, entering)
        if dtype == torch.float32:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        else:
            if not activation.startswith("fatrelu"):  # whose jump at the threshold may round either way
                assert (found - precise).norm() <= 1.3 * (expected - precise).norm()
            assert (found - precise).norm() <= 0.05 * (precise - entering).norm()


@pytest.mark.parametrize("activation", ["fatrelu-0.2", "relu2", "drelu"])
@pytest.mark.parametrize("name", ["llama", "granite", "phi3"])
def test_predicted_is_the_model_with_what_is_predicted_inactive_set_to_0(name, activation):
    model, given = tiny(name, activation), tokens(12)
    with torch.no_grad(), predicting(model, predictors(), 0.4):
        expected = model(torch.tensor([given])).logits[0]
        exact = model(torch.tensor([given[:1]])).logits[0]
    assert expected.shape[0] == len(given)
    decoder = prepare(model, predictors(), 0.4)
    assert decoder.native is not None
    decoder.mode = "predicted"
    text = Text(decoder, len(given))
    found = torch.stack([text.read([token]) for token in given])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    decoder.mode = "exact"
    assert not torch.allclose(Text(decoder, 1).read(given[:1]), exact[0], rtol=0.1, atol=0.1)


def read_all(decoder: Decoder, mode: str, prompt: list[int], following: list[int]) -> torch.Tensor:
    decoder.mode = mode
    text = Text(decoder, len(prompt) + len(following))
    return torch.stack([text.read(prompt), *(text.read([token]) for token in following)])


@pytest.mark.parametrize(
    ("name", "activation", "dtype"),
    [
        ("llama", "relu", torch.bfloat16),
        ("granite", "fatrelu-0.2", torch.bfloat16),
        ("phi3", "shiftrelu-0.1", torch.float32),
        ("mistral_window", "relu", torch.float16),
        ("llama", "relu2", torch.bfloat16),
        ("phi3", "drelu", torch.bfloat16),
        ("granite", "drelu", torch.float32),
    ],
)
def test_exact_is_dense_bit_for_bit(name, activation, dtype):
    decoder = prepare(tiny(name, activation, dtype))
    written = greedy(decoder, tokens(5), 220)
    assert len(set(written)) > 5, "a model that repeats itself would show little"
    assert torch.equal(*(read_all(decoder, mode, tokens(5), written) for mode in ("dense", "exact")))


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        *((name, "relu") for name in ("llama", "qwen2", "granite", "phi3", "mistral_window", "glm4", "olmo2")),
        ("llama", "relu2"),
        ("phi3", "drelu"),
    ],
)
def test_writes_what_the_unprepared_model_does(name, activation):
    model = tiny(name, activation)
    options = {"max_new_tokens": 60, "do_sample": False}
    expected = model.generate(torch.tensor([tokens(5)]), **options)[0, 5:].tolist()
    decoder = prepare(model)
    assert decoder.native is not None
    assert greedy(decoder, tokens(5), 60) == expected
    assert (
        model.generate(torch.tensor([tokens(5)]), **options, past_key_values=cache(model))[0, 5:].tolist() == expected
    )


def test_samples_what_generate_does_under_one_seed():
    model = tiny("llama")
    decoder = prepare(model)
    options = {"do_sample": True, "temperature": 0.8, "top_k": 0, "max_new_tokens": 40}
    torch.manual_seed(3)
    expected = model.generate(torch.tensor([tokens(5)]), **options, past_key_values=cache(model))[0, 5:].tolist()
    torch.manual_seed(3)
    assert list(continued(Text(decoder, 45), tokens(5), 40, temperature=0.8)) == expected
    assert greedy(decoder, tokens(5), 40) != expected


def test_stops_after_an_end():
    decoder = prepare(tiny("llama"))
    written = greedy(decoder, tokens(5), 30)
    end = written[9]
    assert list(continued(Text(decoder, 35), tokens(5), 30, ends=[end])) == written[: written.index(end) + 1]


def test_what_it_does_not_know_takes_transformers_modules():
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=16, sliding_window=16, attn_logit_softcapping=0.5)).eval()
    substitute(model, Activation.parse("relu"))
    expected = model.generate(torch.tensor([tokens(5)]), max_new_tokens=30, do_sample=False)[0, 5:].tolist()
    decoder = prepare(model)
    assert decoder.native is None
    assert "attn_logit_softcapping" in decoder.without_native
    assert greedy(decoder, tokens(5), 30) == expected


def test_beyond_the_length_at_which_positions_change_takes_transformers_modules():
    rope = {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
        "factor": 25.6,
    }  # fmt: skip
    model = tiny("phi3", partial_rotary_factor=1.0, rope_parameters=rope, original_max_position_embeddings=20)
    expected = {}
    for count in (10, 40):
        options = {"max_new_tokens": count, "do_sample": False}
        expected[count] = model.generate(torch.tensor([tokens(5)]), **options)[0, 5:].tolist()
    decoder = prepare(model)
    assert decoder.native is not None
    assert decoder.native.longest == 20
    for count, written in expected.items():
        assert greedy(decoder, tokens(5), count) == written


def test_nothing_reads_no_weight():
    model = tiny("llama")
    decoder = prepare(model)
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "embed" not in name:
            weight.fill_(float("nan"))
    native = decoder.native
    assert native is not None
    native.reads_weights = False
    assert not native.step(3, 0, native.room(4), native.table(4), "exact").any()
    native.reads_weights = True
    assert native.step(3, 0, native.room(4), native.table(4), "exact").isnan().all()


def test_any_number_of_threads_reads_the_same_logits():
    model = tiny("llama", "fatrelu-0.2", hidden_size=256, intermediate_size=700, head_dim=64)
    decoder, found, before = prepare(model), [], torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(read_all(decoder, "exact", tokens(5), tokens(20)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-4)  # chunks of the FFN's sums differ


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"token": VOCABULARY}, IndexError, f"token {VOCABULARY} is none of {VOCABULARY}"),
        ({"token": -1}, IndexError, "token -1 is none of"),
        ({"position": 4}, IndexError, "position 4 is outside a cache of 4"),
        ({"position": -1}, IndexError, "position -1 is outside"),
        ({"room": torch.zeros(LAYERS, 2, 2, 4, 16, dtype=torch.bfloat16)}, ValueError, "cache must be contiguous"),
        ({"room": torch.zeros(LAYERS + 1, 2, 2, 4, 16)}, ValueError, "cache must be contiguous"),
        ({"room": torch.zeros(LAYERS, 2, 4, 4, 16)}, ValueError, "the cache's heads are not the layers'"),
        ({"table": torch.zeros(1, 3, 2, 16)}, ValueError, "rotary must be contiguous"),
        ({"table": torch.zeros(1, 4, 2, 18)}, ValueError, "the rotary table is another model's"),
        ({"mode": "predicted"}, ValueError, "there are no predictors"),
    ],
)
def test_wrong_arguments(changed, error, message):
    native = prepare(tiny("llama")).native
    assert native is not None
    given = {"token": 3, "position": 0, "room": native.room(4), "table": native.table(4), "mode": "exact", **changed}
    with pytest.raises(error, match=message):
        native.step(**given)


def test_shares_the_weights():
    model = tiny("llama", dtype=torch.bfloat16)
    decoder = prepare(model)
    before = read_all(decoder, "exact", tokens(5), tokens(3))
    changed = copy.deepcopy(model.model.layers[1].self_attn.o_proj.weight)
    model.model.layers[1].self_attn.o_proj.weight.zero_()
    assert not torch.equal(read_all(decoder, "exact", tokens(5), tokens(3))[1:], before[1:])
    model.model.layers[1].self_attn.o_proj.weight.copy_(changed)
    assert torch.equal(read_all(decoder, "exact", tokens(5), tokens(3)), before)
