"""Open a GGUF file's model with its Q8_0 or Q4_0 matrices as they are stored."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    LlamaTensorProcessor,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from prosparse.experiment.activation import Activation
from prosparse.experiment.model import PretrainedInit
from prosparse.inference.gguf_file import reader, stored, stored_dtype
from prosparse.inference.sparse_ffn import Rounding
from prosparse.method.activations import substitute
from prosparse.models import third_party
from prosparse.models.load import own_activation, pretrained
from prosparse.operators import quantized
from prosparse.operators.quantized import BY_DTYPE
from prosparse.system.errors import ConfigError, UserError

EMBEDDING, HEAD = "token_embd.weight", "output.weight"


def is_gguf(checkpoint: str) -> bool:
    """Whether a checkpoint is given as a GGUF file, not as a folder or a hub's name."""
    return checkpoint.endswith(".gguf")


@dataclass(frozen=True)
class GGUFModel:
    """A model whose matrices are the file's."""

    model: PreTrainedModel
    rounding: Rounding | None  # of a file in Q8_0 or Q4_0
    notes: list[str]  # what is rounded all the same


@functools.lru_cache(maxsize=1)
def _reader(path: Path, written: int) -> gguf.GGUFReader:
    """Reading a vocabulary takes seconds."""
    return reader(path)


def _matrices(path: Path) -> tuple[dict[str, gguf.ReaderTensor], torch.dtype]:
    """The matrices that products read, not loaded yet, and their type: the embedding only if it is the head too.

    Raises:
        UserError: not a complete GGUF file, or not all of its matrices have the same type.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    read = _reader(path, path.stat().st_mtime_ns)
    tensors = {tensor.name: tensor for tensor in read.tensors if len(tensor.shape) == 2}
    if HEAD in tensors:
        tensors.pop(EMBEDDING, None)
    types: dict[torch.dtype, str] = {}
    for name, tensor in tensors.items():
        types.setdefault(stored_dtype(path, tensor), name)
    if len(types) != 1:
        found = ", ".join(f"{name} is {precision_name(dtype)}" for dtype, name in types.items()) or "there are none"
        raise UserError(f"{path}: all matrices must have the same type; {found}")
    return tensors, next(iter(types))


def precision_name(dtype: torch.dtype) -> str:
    """As ``--precision`` names it."""
    return BY_DTYPE[dtype].name if dtype in BY_DTYPE else str(dtype).removeprefix("torch.")


def precision_of(path: Path) -> str:
    """How the file stores its matrices: q8_0, q4_0 or a dtype.

    Raises:
        UserError: not a complete GGUF file, or one with matrices of several types, or of one that we do not read.
    """
    return precision_name(_matrices(path)[1])


def tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The file's tokenizer.

    Raises:
        UserError: transformers cannot open it (a byte-level BPE without merges, for example).
    """
    try:
        return third_party.tokenizer(path.parent, gguf_file=path.name)
    except ConfigError as error:
        reason = str(error).removeprefix(f"{path.parent} has no tokenizer that transformers can open: ")
        raise UserError(f"{path} has no tokenizer that transformers can open: {reason}") from None


def open_gguf(path: Path, activation: Activation | None = None) -> GGUFModel:
    """Open a file in Q8_0 or Q4_0 with its own blocks and float32 for all else, another file in its matrices' dtype.

    Raises:
        UserError: not a complete GGUF file; a quantization that is not read here; or an architecture that transformers
            cannot open, or whose tensors it rearranges in another way than LLaMA's.
    """
    matrices, dtype = _matrices(path)
    try:
        model = pretrained(PretrainedInit(pretrained=str(path.parent), gguf_file=path.name))
        substitute(model, activation or own_activation(model.config))
    except UserError:
        raise
    except Exception as error:  # transformers raises anything
        raise UserError(f"{path} cannot be opened by transformers: {str(error).partition(chr(10))[0]}") from error
    if dtype not in BY_DTYPE:
        norms = [parameter for parameter in model.parameters() if parameter.ndim == 1]
        rounded = sum(int((norm.to(dtype).float() != norm).sum()) for norm in norms)
        notes = [f"{rounded} values of norms and biases are rounded to {precision_name(dtype)}"] if rounded else []
        return GGUFModel(model.to(dtype), None, notes)  # type: ignore[arg-type]
    form = BY_DTYPE[dtype]
    notes = [
        f"the down projections are rounded to {form.name} a second time: decoding reads their transpose, whose "
        "blocks hold other values than the file's"
    ]
    return GGUFModel(model, Rounding(form, _by_parameter(path, model, matrices)), notes)


def _by_parameter(path: Path, model: PreTrainedModel, matrices: dict[str, gguf.ReaderTensor]) -> dict[str, Tensor]:
    """Packed matrices by the names of the model's parameters, their rows in transformers' order."""
    config: Any = model.config
    architecture = str(_reader(path, path.stat().st_mtime_ns).fields["general.architecture"].contents())
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    if processor not in (TensorProcessor, LlamaTensorProcessor):
        raise UserError(f"{path}: its architecture {architecture} can only be opened as a 16-bit checkpoint")
    rearranging = processor(config=config.to_dict())
    names = get_gguf_hf_weights_map(model, rearranging)
    parameters, found = dict(model.named_parameters()), {}
    for name, tensor in matrices.items():
        matrix = stored(path, tensor)
        rows = rearranging.process(
            matrix.view(torch.uint8).numpy(), name, tensor_key_mapping=names, parsed_parameters={}
        )
        packed = torch.from_numpy(rows.weights.copy()).view(matrix.dtype)
        parameter = names[name]
        if not torch.equal(quantized.dequantize(packed, torch.float32), parameters[parameter]):
            raise UserError(f"{path}: {name} is not what transformers reads")
        found[parameter] = packed
    if config.tie_word_embeddings:
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
    return found
