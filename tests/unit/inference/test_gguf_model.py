"""Decoding a GGUF file: its own blocks, against those that ggml's rounding makes of the model's weights."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from helpers.tiny_decoders import build, configs

from prosparse.commands.opening import open_model, precisions
from prosparse.experiment.activation import Activation
from prosparse.inference.decoding import prepare
from prosparse.inference.export import export_llama_cpp
from prosparse.inference.generation import Text
from prosparse.inference.gguf_file import reader
from prosparse.inference.gguf_model import open_gguf, precision_of
from prosparse.inference.sparse_ffn import StreamingLinear
from prosparse.method.activations import substitute
from prosparse.operators import quantized
from prosparse.operators.quantized import FORMATS, Q8_0
from prosparse.system.errors import ConfigError, UserError

CONFIGS = configs(160)
TOKENS = [5, 17, 101, 3, 99, 6, 7]
EACH_FORMAT = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)


@pytest.fixture
def model():
    return build(CONFIGS["llama"], "silu", torch.float32)


def exported(model, path, dtype):
    export_llama_cpp(model, None, path, dtype, activation_ignored=True)
    return path


def logits(decoder) -> torch.Tensor:
    text = Text(decoder, len(TOKENS))
    return torch.stack([text.read(TOKENS[:4]), *(text.read([token]) for token in TOKENS[4:])])


@EACH_FORMAT
def test_blocks_are_the_files(form, model, tmp_path):
    expected = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and not name.endswith("down_proj"):
            expected[name] = quantized.quantize(module.weight, form)
    found = open_gguf(exported(model, tmp_path / "model.gguf", form.dtype))
    decoder = prepare(found.model, form=found.rounding)
    assert decoder.native is not None, decoder.without_native
    held = {
        name: module.weight for name, module in decoder.model.named_modules() if isinstance(module, StreamingLinear)
    }
    for layer, ffn in enumerate(decoder.ffns):
        held[f"model.layers.{layer}.mlp.gate_proj"] = ffn.gate_weight
        held[f"model.layers.{layer}.mlp.up_proj"] = ffn.up_weight
    assert held.keys() == expected.keys()
    for name, weight in held.items():
        assert torch.equal(weight, expected[name]), name
    assert "down projections are rounded to" in found.notes[0]


@EACH_FORMAT
def test_computes_the_model_that_was_exported(form, model, tmp_path):
    """Whose embedding and down projections the file rounds first; the latter's transposes are rounded again."""
    found = open_gguf(exported(model, tmp_path / "model.gguf", form.dtype))
    for module in [model.model.embed_tokens, *(layer.mlp.down_proj for layer in model.model.layers)]:
        rounded = quantized.dequantize(quantized.quantize(module.weight, form), torch.float32)
        module.weight = torch.nn.Parameter(rounded, requires_grad=False)
    assert torch.equal(logits(prepare(found.model, form=found.rounding)), logits(prepare(model, form=form)))


def test_blocks_that_ggml_would_round_otherwise(model, tmp_path):
    """Other tools choose scales that leave the largest integers unused."""
    path = exported(model, tmp_path / "model.gguf", Q8_0.dtype)
    tensor = next(each for each in gguf.GGUFReader(path, "r+").tensors if each.name == "blk.0.ffn_gate.weight")
    blocks = tensor.data.reshape(len(tensor.data), -1, Q8_0.block_bytes)
    integers = blocks[..., 2:].view(np.int8)
    integers[:] = integers // 3
    written = quantized.from_blocks(torch.from_numpy(np.array(tensor.data)), Q8_0)
    tensor.data.flush()
    assert not torch.equal(quantized.quantize(quantized.dequantize(written, torch.float32), Q8_0), written)
    found = open_gguf(path)
    assert torch.equal(prepare(found.model, form=found.rounding).ffns[0].gate_weight, written)


@EACH_FORMAT
@pytest.mark.parametrize("activation", ["relu2", "drelu"])
def test_a_file_decodes_with_the_activation_it_was_trained_with(activation, form, model, tmp_path):
    """The file does not name it."""
    path = exported(model, tmp_path / "model.gguf", form.dtype)
    found = open_gguf(path, Activation.parse(activation))
    for module in [model.model.embed_tokens, *(layer.mlp.down_proj for layer in model.model.layers)]:
        rounded = quantized.dequantize(quantized.quantize(module.weight, form), torch.float32)
        module.weight = torch.nn.Parameter(rounded, requires_grad=False)
    substitute(model, Activation.parse(activation))
    decoder = prepare(found.model, form=found.rounding)
    assert decoder.modes == ("dense", "exact")
    assert torch.equal(logits(decoder), logits(prepare(model, form=form)))


def test_another_activation_skips_neurons(model, tmp_path):
    path = exported(model, tmp_path / "model.gguf", torch.uint8)
    decoder = prepare(*open_model(str(path), Activation.parse("relu"), "q4_0")[:1], form=FORMATS["q4_0"])
    assert decoder.modes == ("dense", "exact")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_files_keep_their_dtype(dtype, model, tmp_path):
    expected = {name: parameter.to(dtype) for name, parameter in model.named_parameters()}
    found = open_gguf(exported(model, tmp_path / "model.gguf", dtype))
    assert found.rounding is None
    for name, parameter in found.model.named_parameters():
        assert torch.equal(parameter, expected[name]), name
    rounded = sum(int((norm != norm.to(dtype)).sum()) for norm in model.parameters() if norm.ndim == 1)
    assert found.notes == ([f"{rounded} values of norms and biases are rounded to {str(dtype)[6:]}"] if rounded else [])


def test_bad_files_are_one_line(model, tmp_path):
    path = exported(model, tmp_path / "model.gguf", Q8_0.dtype)
    whole, cut = path.read_bytes(), tmp_path / "cut.gguf"
    for size in (0, 3, 20, 300, len(whole) // 3, len(whole) - 1000):
        cut.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"^\S+cut.gguf is not a complete GGUF file: [^\n]+$"):
            precision_of(cut)
    with pytest.raises(UserError, match=r"^\S+missing.gguf is not a file$"):
        precision_of(tmp_path / "missing.gguf")
    types = gguf.GGMLQuantizationType
    for kinds, message in {
        (types.Q5_0, types.Q5_0): r"blk.0.weight is Q5_0; BF16, F16, F32, Q4_0, Q8_0 can be read",
        (types.Q8_0, types.Q4_0): r"all matrices must have the same type; blk.0.weight is q8_0, blk.1.weight is q4_0",
    }.items():
        writer = gguf.GGUFWriter(tmp_path / "other.gguf", "llama")
        for index, kind in enumerate(kinds):
            values = gguf.quants.quantize(np.ones((2, 64), dtype=np.float32), kind)
            writer.add_tensor(f"blk.{index}.weight", values, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(UserError, match=rf"^\S+other.gguf: {message}$"):
            open_gguf(tmp_path / "other.gguf")


def test_a_files_precision_is_its_own(model, tmp_path):
    path = str(exported(model, tmp_path / "model.gguf", torch.uint8))
    assert precisions(path, []) == precisions(path, ["q4_0"]) == ["q4_0"]
    with pytest.raises(ConfigError, match=r"^--precision bfloat16: the matrices of \S+model.gguf are in q4_0"):
        precisions(path, ["bfloat16"])
    assert reader(tmp_path / "model.gguf").fields["general.architecture"].contents() == "llama"
    assert precisions("a-folder", []) == ["bfloat16"]
