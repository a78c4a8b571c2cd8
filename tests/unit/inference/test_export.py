"""GGUF files against the model they were made from: tensor by tensor, and recomputed as the engines compute them."""

from __future__ import annotations

import math
import weakref

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import AutoModelForCausalLM, GraniteConfig, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from prosparse.experiment.activation import Activation
from prosparse.inference.export import export_llama_cpp, export_powerinfer
from prosparse.inference.gguf_file import read_back, reader
from prosparse.inference.predictors import Predictor
from prosparse.method.activations import substitute
from prosparse.operators import quantized
from prosparse.operators.quantized import FORMATS
from prosparse.system.errors import UserError

SIZES = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2,
    "bos_token_id": 3, "eos_token_id": 4, "pad_token_id": 0,
}  # fmt: skip
SCALES = {
    "embedding_multiplier": 12.0, "residual_multiplier": 0.5, "logits_scaling": 6.0, "attention_multiplier": 0.1,
}  # fmt: skip


def tiny(name="llama", activation="relu", **changes):
    torch.manual_seed(0)
    config = GraniteConfig(**SIZES | SCALES | changes) if name == "granite" else LlamaConfig(**SIZES | changes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data = (parameter.data + 0.1 * torch.rand_like(parameter)).bfloat16().half().float()
    substitute(model, Activation.parse(activation))
    return model


def predictors(model):
    return [Predictor(64, 16, 1024) for _ in model.model.layers]


def field(path, key):
    return reader(path).fields[key].contents()


def recomputed(tensors, config, tokens, granite=None, predicted=None):
    """Logits from a file's tensors alone, as the engines compute them: RoPE in adjacent pairs, scales from keys."""
    granite = granite or {}
    head = config.hidden_size // config.num_attention_heads
    positions = torch.arange(len(tokens), dtype=torch.float64)
    angles = positions[:, None] * 10000.0 ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]

    def get(name):
        return tensors[name].double()

    def norm(x, name):
        return x / (x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps).sqrt() * get(name)

    def rotated(x):
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)

    x = get("token_embd.weight")[tokens] * granite.get("embedding_scale", 1)
    for index in range(config.num_hidden_layers):
        block = f"blk.{index}"
        normed = norm(x, f"{block}.attn_norm.weight")
        q, k, v = ((normed @ get(f"{block}.attn_{part}.weight").T).unflatten(-1, (-1, head)) for part in "qkv")
        groups = config.num_attention_heads // config.num_key_value_heads
        k, v = (part.repeat_interleave(groups, 1) for part in (rotated(k), v))
        scores = torch.einsum("ihd,jhd->hij", rotated(q), k) * granite.get("attention.scale", head**-0.5)
        scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -math.inf)
        attended = torch.einsum("hij,jhd->ihd", scores.softmax(-1), v).flatten(1)
        x = x + attended @ get(f"{block}.attn_output.weight").T * granite.get("residual_scale", 1)
        normed = norm(x, f"{block}.ffn_norm.weight")
        gate, up = (normed @ get(f"{block}.ffn_{part}.weight").T for part in ("gate", "up"))
        if predicted is None:
            x1 = nn.functional.silu(gate) * up
            down = get(f"{block}.ffn_down.weight")
        else:
            logits = (x @ get(f"{block}.fc1.weight").T).relu() @ get(f"{block}.fc2.weight").T
            x1 = gate.relu() * up * (logits >= predicted)
            down = get(f"{block}.ffn_down_t.weight").T
        x = x + x1 @ down.T * granite.get("residual_scale", 1)
    output = tensors.get("output.weight", tensors["token_embd.weight"]).double()
    return norm(x, "output_norm.weight") @ output.T / granite.get("logit_scale", 1)


TOKENS = [5, 17, 255, 3, 99, 6, 6, 201]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["llama", "granite"])
def test_llama_cpp_file_computes_what_the_model_computes(name, tied, tmp_path):
    model = tiny(name, "silu", tie_word_embeddings=tied)
    path = tmp_path / "model.gguf"
    export_llama_cpp(model, None, path, torch.float32)
    granite = {}
    if name == "granite":
        keys = ("embedding_scale", "residual_scale", "logit_scale", "attention.scale")
        granite = {key: field(path, f"granite.{key}") for key in keys}
    tensors = read_back(path)
    assert ("output.weight" in tensors) != tied
    with torch.no_grad():
        expected = model.double()(torch.tensor([TOKENS])).logits[0]
    logits = recomputed(tensors, model.config, TOKENS, granite)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert field(path, "general.architecture") == name
    assert field(path, f"{name}.rope.freq_base") == 10000
    assert field(path, "tokenizer.ggml.eos_token_id") == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_llama_cpp_tensors_are_the_models(dtype, tmp_path):
    model = tiny(activation="silu")  # values that every dtype holds exactly
    path = tmp_path / "model.gguf"
    export_llama_cpp(model, None, path, dtype)
    tensors = read_back(path)
    layer = model.model.layers[1]
    assert len(tensors) == 3 + 2 * 9
    for name, weight in {
        "token_embd.weight": model.model.embed_tokens.weight,
        "blk.1.attn_v.weight": layer.self_attn.v_proj.weight,
        "blk.1.attn_output.weight": layer.self_attn.o_proj.weight,
        "blk.1.ffn_gate.weight": layer.mlp.gate_proj.weight,
        "blk.1.ffn_up.weight": layer.mlp.up_proj.weight,
        "blk.1.ffn_down.weight": layer.mlp.down_proj.weight,
    }.items():
        assert tensors[name].dtype == dtype
        assert torch.equal(tensors[name].float(), weight)
    for name, weight in {"output_norm": model.model.norm, "blk.1.ffn_norm": layer.post_attention_layernorm}.items():
        assert torch.equal(tensors[f"{name}.weight"], weight.weight)  # float32 whatever the matrices are


@pytest.mark.parametrize("name", ["llama", "granite"])
def test_powerinfer_file_computes_the_masked_model(name, tmp_path):
    """MiniCPM's scales are in the weights; the threshold is a logit."""
    model = tiny(name).double()
    made = predictors(model)
    path = tmp_path / "model.powerinfer"
    export_powerinfer(model, made, 0.4, None, path)
    assert path.read_bytes()[:4] == b"PWRI"
    threshold = field(path, "powerinfer.sparse_threshold")
    assert threshold == pytest.approx(math.log(0.4 / 0.6))
    residuals = {}
    for layer, predictor in zip(model.model.layers, made, strict=True):
        layer.post_attention_layernorm.register_forward_pre_hook(
            lambda module, inputs, predictor=predictor: residuals.update({predictor: inputs[0]})
        )

        def mask(module, inputs, predictor=predictor):
            logits = residuals[predictor] @ predictor.fc1.weight.half().double().T
            active = logits.relu() @ predictor.fc2.weight.half().double().T >= math.log(0.4 / 0.6)
            assert 0.05 < active.double().mean() < 0.95
            return (inputs[0] * active,)

        layer.mlp.down_proj.register_forward_pre_hook(mask)
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS])).logits[0]
    logits = recomputed(read_back(path), model.config, TOKENS, predicted=threshold)
    # a LLaMA's weights are held exactly (transformers has float32 in its norms), a MiniCPM's are scaled and rounded
    tolerance = 1e-5 if name == "llama" else 1e-2
    torch.testing.assert_close(logits, expected, rtol=tolerance, atol=tolerance * expected.std().item())
    tensors = read_back(path)
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim == 2} == {torch.float16}
    assert tensors["blk.1.ffn_down_t.weight"].shape == (1024, 64)
    assert torch.equal(tensors["blk.1.fc1.weight"], made[1].fc1.weight.half())
    assert torch.equal(tensors["blk.1.fc2.weight"], made[1].fc2.weight.half())
    assert field(path, "general.architecture") == "llama"


def test_powerinfer_file_in_4_bits_holds_ggmls_rounding(tmp_path):
    model, path = tiny(), tmp_path / "model"
    made = [Predictor(64, 32, 1024) for _ in model.model.layers]
    export_powerinfer(model, made, 0.5, None, path, torch.uint8)
    tensors = read_back(path)
    layer = model.model.layers[1].mlp
    for name, weight in (
        ("ffn_up", layer.up_proj.weight), ("ffn_down_t", layer.down_proj.weight.T), ("fc2", made[1].fc2.weight)
    ):  # fmt: skip
        expected = gguf.quants.quantize(weight.detach().contiguous().numpy(), gguf.GGMLQuantizationType.Q4_0)
        assert np.array_equal(quantized.to_blocks(tensors[f"blk.1.{name}.weight"]).numpy(), expected)
    assert field(path, "general.file_type") == gguf.LlamaFileType.MOSTLY_Q4_0
    with pytest.raises(UserError, match="PowerInfer skips neurons of float16 and Q4_0 weights only"):
        export_powerinfer(model, made, 0.5, None, path, torch.int8)
    with pytest.raises(UserError, match=r"fc2.weight has rows of 16 values"):
        export_powerinfer(model, predictors(model), 0.5, None, path, torch.uint8)


def test_one_tensor_at_a_time_is_held(tmp_path, monkeypatch):
    written = []
    write = gguf.GGUFWriter.write_tensor_data

    def record(writer, tensor):
        written.append(weakref.ref(tensor))
        assert sum(reference() is not None for reference in written) == 1
        write(writer, tensor)

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", record)
    model = tiny().bfloat16()
    export_powerinfer(model, predictors(model), 0.5, None, tmp_path / "model")
    assert len(written) == 3 + 2 * 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "fatrelu-0.1"}, "fatrelu-0.1, but PowerInfer computes relu.*export the same weights with relu"),
        ({"activation": "silu"}, "activation is silu, but PowerInfer computes relu"),
        ({"activation": "relu2"}, "^the model's activation is relu2, but PowerInfer computes relu .*"),
        ({"activation": "drelu"}, "^the model's activation is drelu, but PowerInfer computes relu .*"),
        ({"intermediate_size": 1000}, "intermediate_size is 1000: PowerInfer needs at least 1001"),
        ({"hidden_size": 60, "num_attention_heads": 2}, "hidden_size is 60: PowerInfer needs a multiple of 8"),
        ({"attention_bias": True}, r"layers.0.self_attn.q_proj has a bias"),
        ({"head_dim": 32}, "head_dim 32 cannot be exported"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rope_type 'linear' cannot"),
    ],
)
def test_refuses_what_powerinfer_would_compute_wrongly(change, message, tmp_path):
    model = tiny(**change)
    with pytest.raises(UserError, match=message):
        export_powerinfer(model, predictors(model), 0.5, None, tmp_path / "model")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("activation", ["relu", "relu2", "drelu", "fatrelu-0.01", "shiftrelu-0.1"])
def test_llama_cpp_gets_an_activation_it_does_not_compute_for_timing_alone(activation, tmp_path):
    model, path = tiny(activation=activation), tmp_path / "model.gguf"
    with pytest.raises(UserError, match=f"activation is {activation}, but llama.cpp computes silu"):
        export_llama_cpp(model, None, path, torch.float16)
    export_llama_cpp(model, None, path, torch.float16, activation_ignored=True)
    description = field(path, "general.description")
    assert description == f"llama for timing only: llama.cpp computes silu, the model has {activation}"


def test_other_architectures_and_predictors_are_refused(tmp_path):
    other = AutoModelForCausalLM.from_config(Qwen2Config(**SIZES))
    with pytest.raises(UserError, match="model_type 'qwen2' cannot be exported"):
        export_llama_cpp(other, None, tmp_path / "model", torch.float16)
    model = tiny()
    with pytest.raises(UserError, match="1 predictors for 2 layers"):
        export_powerinfer(model, predictors(model)[:1], 0.5, None, tmp_path / "model")
    with pytest.raises(UserError, match=r"predictor of layer 1 has weights \[16, 64\] and \[1023, 16\]"):
        export_powerinfer(model, [Predictor(64, 16, 1024), Predictor(64, 16, 1023)], 0.5, None, tmp_path / "model")
    with pytest.raises(UserError, match=r"decision_threshold is 1: a probability"):
        export_powerinfer(model, predictors(model), 1, None, tmp_path / "model")


def test_a_failed_export_leaves_the_old_file(tmp_path):
    model, path = tiny(activation="silu"), tmp_path / "model.gguf"
    path.write_bytes(b"old")
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = 1e5
    with pytest.raises(UserError, match=r"blk.1.ffn_down.weight holds values that are not finite in float16"):
        export_llama_cpp(model, None, path, torch.float16)
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_quantized_matrices_are_ggmls(form, tmp_path):
    model = tiny(activation="silu")
    path = tmp_path / "model.gguf"
    rounded = export_llama_cpp(model, None, path, form.dtype)
    stored = {tensor.name: tensor for tensor in reader(path).tensors}
    layer = model.model.layers[1]
    for name, weight in {
        "token_embd.weight": model.model.embed_tokens.weight,
        "blk.1.attn_v.weight": layer.self_attn.v_proj.weight,
        "blk.1.ffn_down.weight": layer.mlp.down_proj.weight,
    }.items():
        blocks = gguf.quants.quantize(weight.detach().numpy(), form.ggml_type)
        assert stored[name].tensor_type == form.ggml_type
        assert np.array_equal(stored[name].data, blocks)
        expected = torch.from_numpy(gguf.quants.dequantize(blocks, form.ggml_type))
        assert torch.equal(quantized.dequantize(read_back(path)[name], torch.float32), expected)
    assert torch.equal(read_back(path)["blk.1.ffn_norm.weight"], layer.post_attention_layernorm.weight)
    assert 0.5 < rounded < 1
    assert reader(path).fields["general.file_type"].contents() == {"q8_0": 7, "q4_0": 2}[form.name]  # llama.cpp's


def test_what_cannot_be_quantized_leaves_no_file(tmp_path):
    with pytest.raises(UserError, match=r"^token_embd.weight has rows of 48 values: Q8_0 and Q4_0 need a mult"):
        export_llama_cpp(tiny(activation="silu", hidden_size=48), None, tmp_path / "m", torch.uint8)
    model = tiny(activation="silu")
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = 1e8
    with pytest.raises(
        UserError, match=r"^blk.1.ffn_down.weight holds values that are not finite, or too large for q4_0"
    ):
        export_llama_cpp(model, None, tmp_path / "m", torch.uint8)
    assert not [*tmp_path.iterdir()]


def test_a_truncated_file_is_one_line(tmp_path):
    path = tmp_path / "model.gguf"
    export_llama_cpp(tiny(activation="silu"), None, path, torch.uint8)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"^\S+model.gguf is not a complete GGUF file: [^\n]+$"):
        read_back(path)


@pytest.mark.parametrize("held", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_says_how_many_values_the_file_rounds(held, stored, tmp_path):
    model = tiny(activation="silu")
    generator = torch.Generator().manual_seed(5)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
    model.to(held)
    rounded = export_llama_cpp(model, None, tmp_path / "model.gguf", stored)
    weights = dict(model.named_parameters())
    kept = {name: weight if weight.dim() == 1 else weight.to(stored) for name, weight in weights.items()}  # norms stay
    differ = sum(int((kept[name].double() != weight.double()).sum()) for name, weight in weights.items())
    assert rounded == differ / sum(weight.numel() for weight in weights.values())
    assert (rounded == 0) == (stored in (held, torch.float32))


def test_float16_reaches_powerinfer_as_it_was(tmp_path):
    """On the way through bfloat16, seven of eight values would be rounded."""
    model = tiny().half()
    path = tmp_path / "model.gguf"
    assert export_powerinfer(model, predictors(model), 0.5, None, path) == 0
    assert torch.equal(read_back(path)["blk.1.ffn_up.weight"], model.model.layers[1].mlp.up_proj.weight)


# ---------------------------------------------------------------------------------- vocabulary


def byte_level(split):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat and the hat, the end of 1984 and 12 more\n"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize(
    ("digits", "name"), [([], "gpt-2"), ([pre_tokenizers.Digits(individual_digits=True)], "smollm")]
)
def test_the_tokenizer_is_in_the_file(digits, name, tmp_path):
    splits = [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer = byte_level(pre_tokenizers.Sequence(splits) if digits else splits[0])
    path = tmp_path / "model.gguf"
    export_llama_cpp(tiny(activation="silu"), tokenizer, path, torch.float16)
    assert field(path, "tokenizer.ggml.pre") == name
    pieces = field(path, "tokenizer.ggml.tokens")
    assert pieces[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert len(pieces) == 300
    assert "h e" in field(path, "tokenizer.ggml.merges")
    types = field(path, "tokenizer.ggml.token_type")
    assert types[:3] == [3, 3, 1]  # control, control, normal
    assert types[-1] == (5 if len(tokenizer) < 300 else 1)  # unused


def test_a_tokenizer_that_splits_otherwise_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a byte-level BPE that splits text as GPT-2's"):
        export_llama_cpp(
            tiny(activation="silu"), byte_level(pre_tokenizers.Whitespace()), tmp_path / "m", torch.float16
        )
    smaller = tiny(activation="silu", vocab_size=200)
    larger = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    with pytest.raises(UserError, match=r"the tokenizer has \d+ tokens, the model 200"):
        export_llama_cpp(smaller, larger, tmp_path / "m", torch.float16)


def test_without_a_tokenizer_every_piece_differs(tmp_path):
    path = tmp_path / "model.gguf"
    export_llama_cpp(tiny(activation="silu", vocab_size=40, eos_token_id=None), None, path, torch.float16)
    pieces = field(path, "tokenizer.ggml.tokens")
    assert len(pieces) == len(set(pieces)) == 40
    assert pieces[17] == "<|17|>"
    assert field(path, "tokenizer.ggml.eos_token_id") == 39
    with pytest.raises(UserError, match="vocab_size is 15: at least"):
        export_llama_cpp(tiny(activation="silu", vocab_size=15), None, path, torch.float16)
