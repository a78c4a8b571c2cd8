"""Export models to llama.cpp and PowerInfer.

llama.cpp computes its ``llama`` and ``granite`` architectures only with SiLU, PowerInfer its ``llama`` only with ReLU
and a predictor for each layer. A model with any other activation is rejected unless ``activation_ignored`` is set; the
file is then only for timing, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from prosparse.inference import vocabulary
from prosparse.inference.gguf_file import POWERINFER_MAGIC, Entry, write
from prosparse.inference.predictors import decision_logit
from prosparse.method.activations import ReLULinear
from prosparse.models.load import own_activation
from prosparse.operators.quantized import BLOCK, Q4_0
from prosparse.system.errors import UserError

#: PowerInfer computes no FFN with fewer neurons.
LEAST_NEURONS = 1001
POWERINFER_DTYPES = (torch.float16, Q4_0.dtype)


@dataclass(frozen=True)
class Scales:
    """Factors of a Granite (MiniCPM) model that a LLaMA does not have."""

    embedding: float = 1.0
    residual: float = 1.0  # of what attention and FFN add to the residual stream
    query: float = 1.0  # of q.k, in addition to 1 / sqrt(head dimension)
    logits: float = 1.0


def _scales(config: PretrainedConfig) -> Scales:
    if config.model_type == "llama":
        return Scales()
    head_dimension = config.hidden_size // config.num_attention_heads
    return Scales(
        embedding=config.embedding_multiplier,
        residual=config.residual_multiplier,
        query=config.attention_multiplier * math.sqrt(head_dimension),
        logits=1 / config.logits_scaling,
    )


def _scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda weight: weight if factor == 1 else weight.float() * factor


def _rotated_in_pairs(heads: int, factor: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Rows of a query or key projection in these engines' order.

    RoPE rotates pairs of a head's rows: rows i and i + half of the head in transformers, rows 2i and 2i + 1 here.
    """

    def change(weight: Tensor) -> Tensor:
        halves = weight.reshape(heads, 2, -1, weight.shape[1])
        return _scaled(factor)(halves.transpose(1, 2).reshape(weight.shape))

    return change


def _check(model: PreTrainedModel) -> None:
    """Check that these engines can compute the model, apart from its activation.

    Raises:
        UserError: another architecture, a bias, a scaled RoPE, heads of another size, or non-standard layers.
    """
    config = model.config
    if config.model_type not in ("llama", "granite"):
        raise UserError(f"model_type {config.model_type!r} cannot be exported: llama and granite (MiniCPM) can")
    rope = config.rope_parameters["rope_type"]
    if rope != "default":
        raise UserError(f"rope_type {rope!r} cannot be exported: only default can")
    if (getattr(config, "head_dim", None) or 0) not in (0, config.hidden_size // config.num_attention_heads):
        raise UserError(f"head_dim {config.head_dim} cannot be exported: only hidden_size / num_attention_heads can")
    for name, module in model.named_modules():
        if name.endswith("_proj"):
            if type(module) not in (nn.Linear, ReLULinear):
                raise UserError(
                    f"{name} is a {type(module).__name__}: export the model before it is prepared to decode"
                )
            if module.bias is not None:
                raise UserError(f"{name} has a bias, which is not exported")


def _entries(model: Any, scales: Scales) -> Iterator[Entry]:
    """All tensors except the FFNs' down projections, in layer order."""
    config, decoder = model.config, model.model
    yield Entry("token_embd.weight", decoder.embed_tokens.weight, _scaled(scales.embedding))
    yield Entry("output_norm.weight", decoder.norm.weight)
    for index, layer in enumerate(decoder.layers):
        block, attention, ffn = f"blk.{index}", layer.self_attn, layer.mlp
        query = _rotated_in_pairs(config.num_attention_heads, scales.query)
        yield Entry(f"{block}.attn_norm.weight", layer.input_layernorm.weight)
        yield Entry(f"{block}.attn_q.weight", attention.q_proj.weight, query)
        yield Entry(f"{block}.attn_k.weight", attention.k_proj.weight, _rotated_in_pairs(config.num_key_value_heads))
        yield Entry(f"{block}.attn_v.weight", attention.v_proj.weight)
        yield Entry(f"{block}.attn_output.weight", attention.o_proj.weight, _scaled(scales.residual))
        yield Entry(f"{block}.ffn_norm.weight", layer.post_attention_layernorm.weight)
        yield Entry(f"{block}.ffn_gate.weight", ffn.gate_proj.weight)
        yield Entry(f"{block}.ffn_up.weight", ffn.up_proj.weight)


def _add_hyperparameters(writer: gguf.GGUFWriter, config: PretrainedConfig) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def _description(model: PreTrainedModel, engine: str, computed: str, activation_ignored: bool) -> str:
    """The description stored in the file.

    Raises:
        UserError: the engine would compute another activation than the model's.
    """
    activation = str(own_activation(model.config))
    if activation == computed:
        return f"{model.config.model_type} with {activation}"
    if not activation_ignored:
        other = "; export the same weights with relu instead" if activation.startswith("fatrelu") else ""
        raise UserError(
            f"the model's activation is {activation}, but {engine} computes {computed} regardless of the file"
            + (other if computed == "relu" else "")
            + " (activation_ignored: a file for timing only)"
        )
    return f"{model.config.model_type} for timing only: {engine} computes {computed}, the model has {activation}"


@torch.inference_mode()
def export_llama_cpp(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    path: Path,
    dtype: torch.dtype,
    activation_ignored: bool = False,
) -> float:
    """Write a GGUF file for llama.cpp, of architecture ``llama`` or ``granite`` (MiniCPM with its scales).

    The model may have any dtype; the file's matrices get ``dtype`` (bfloat16, float16 or float32), its norms float32.
    Writes one tensor at a time, without a second copy of the weights. Without a tokenizer, pieces ``<|id|>`` stand for
    the token ids.

    Returns:
        The share of the model's values that the file's dtypes round; 0 if ``dtype`` is the model's.

    Raises:
        UserError: the model is not such a LLaMA or Granite, or its activation is not SiLU and not ignored.
    """
    _check(model)
    config = model.config
    description = _description(model, "llama.cpp", "silu", activation_ignored)

    def add_fields(writer: gguf.GGUFWriter) -> None:
        writer.add_description(description)
        _add_hyperparameters(writer, config)
        if config.model_type == "granite":
            writer.add_embedding_scale(config.embedding_multiplier)
            writer.add_residual_scale(config.residual_multiplier)
            writer.add_attention_scale(config.attention_multiplier)
            writer.add_logit_scale(config.logits_scaling)
        vocabulary.add(writer, tokenizer, config)

    entries = list(_entries(model, Scales()))
    for index, layer in enumerate(model.model.layers):
        entries.append(Entry(f"blk.{index}.ffn_down.weight", layer.mlp.down_proj.weight))
    if model.lm_head.weight is not model.model.embed_tokens.weight:
        entries.append(Entry("output.weight", model.lm_head.weight))
    return write(path, config.model_type, add_fields, entries, dtype)


@torch.inference_mode()
def export_powerinfer(
    model: PreTrainedModel,
    predictors: Sequence[Any],
    decision_threshold: float,
    tokenizer: PreTrainedTokenizerBase | None,
    path: Path,
    dtype: torch.dtype = torch.float16,
) -> float:
    """Write a file for PowerInfer, in float16 or Q4_0 (uint8), the types that its sparse operators support.

    Adds the predictors to llama.cpp's layout (``fc1.weight`` [rank, hidden_size] and ``fc2.weight`` [intermediate_size,
    rank] of each layer) and the threshold of their logits, and stores the down projection transposed. PowerInfer does
    not know Granite: a MiniCPM's scales are multiplied into its weights, which makes it a LLaMA.

    Args:
        decision_threshold: the least probability at which a neuron is predicted active. The file holds its logit, since
            PowerInfer compares the predictor's output without a sigmoid.

    Returns:
        The share of the model's values, including a MiniCPM's scales, that the dtype rounds.

    Raises:
        UserError: another dtype; the model is not such a LLaMA or Granite, has a shape that PowerInfer cannot compute,
            or an activation other than ReLU; or the predictors do not fit.
    """
    if dtype not in POWERINFER_DTYPES:
        raise UserError("PowerInfer skips neurons of float16 and Q4_0 weights only")
    _check(model)
    config = model.config
    description = _description(model, "PowerInfer", "relu", activation_ignored=False)
    if config.intermediate_size < LEAST_NEURONS:
        raise UserError(f"intermediate_size is {config.intermediate_size}: PowerInfer needs at least {LEAST_NEURONS}")
    if dtype == Q4_0.dtype and config.intermediate_size % BLOCK:
        raise UserError(f"intermediate_size is {config.intermediate_size}: Q4_0 needs a multiple of {BLOCK}")
    if config.hidden_size % 8:
        raise UserError(f"hidden_size is {config.hidden_size}: PowerInfer needs a multiple of 8")
    if len(predictors) != config.num_hidden_layers:
        raise UserError(f"{len(predictors)} predictors for {config.num_hidden_layers} layers")
    if not 0 < decision_threshold < 1:
        raise UserError(f"decision_threshold is {decision_threshold}: a probability between 0 and 1 is needed")
    scales = _scales(config)

    def add_fields(writer: gguf.GGUFWriter) -> None:
        writer.add_description(description)
        _add_hyperparameters(writer, config)
        writer.add_float32("powerinfer.sparse_threshold", decision_logit(decision_threshold))
        vocabulary.add(writer, tokenizer, config)

    def transposed(weight: Tensor) -> Tensor:
        return _scaled(scales.residual)(weight.t())

    entries = list(_entries(model, scales))
    for index, (layer, predictor) in enumerate(zip(model.model.layers, predictors, strict=True)):
        fc1, fc2 = predictor.fc1.weight, predictor.fc2.weight
        if (fc1.shape[1], *fc2.shape) != (config.hidden_size, config.intermediate_size, fc1.shape[0]):
            raise UserError(f"the predictor of layer {index} has weights {[*fc1.shape]} and {[*fc2.shape]}")
        entries.append(Entry(f"blk.{index}.ffn_down_t.weight", layer.mlp.down_proj.weight, transposed))
        entries.append(Entry(f"blk.{index}.fc1.weight", fc1, of_model=False))
        entries.append(Entry(f"blk.{index}.fc2.weight", fc2, of_model=False))
    # PowerInfer does not support tied embeddings
    entries.append(Entry("output.weight", model.lm_head.weight, _scaled(scales.logits)))
    return write(path, "llama", add_fields, entries, dtype, POWERINFER_MAGIC)
