"""A GGUF file, written one tensor at a time and read back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import gguf_reader
from torch import Tensor

from prosparse.operators import quantized
from prosparse.system.errors import UserError

#: The first bytes of PowerInfer's files, in place of "GGUF".
POWERINFER_MAGIC = b"PWRI"
#: Of matrices, by dtype; that of a packed matrix names its format.
FILE_TYPES = {
    torch.int8: (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    torch.uint8: (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    torch.float32: (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    torch.float16: (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    torch.bfloat16: (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
}


READABLE = sorted(types[0].name for types in FILE_TYPES.values())
#: The dtype in which the writer sees an element, by its bytes.
ITEMS = {1: np.uint8, 2: np.uint16, 4: np.float32}


@dataclass(frozen=True)
class Entry:
    """A tensor of the file, made from a weight of the model only when it is written."""

    name: str
    weight: Tensor
    change: Callable[[Tensor], Tensor] = lambda weight: weight
    of_model: bool = True  # False for a predictor's

    def shape(self) -> torch.Size:
        return self.change(torch.empty_like(self.weight, device="meta")).shape

    def data(self) -> Tensor:
        return self.change(self.weight.detach())


def _converted(tensor: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    if dtype in quantized.BY_DTYPE:
        try:
            return quantized.quantize(tensor, quantized.BY_DTYPE[dtype], name)
        except ValueError as error:
            raise UserError(str(error)) from None
    converted = tensor.to(dtype)
    if dtype == torch.float16 and not torch.stack(converted.aminmax()).isfinite().all():  # without copying the matrix
        raise UserError(f"{name} holds values that are not finite in float16, beyond 65504: write bfloat16 or float32")
    return converted


def _stored_values(stored: Tensor, dtype: torch.dtype) -> Tensor:
    return quantized.dequantize(stored, dtype) if quantized.is_packed(stored) else stored.to(dtype)


def _bytes(stored: Tensor) -> np.ndarray:
    """The tensor as the file holds it."""
    if quantized.is_packed(stored):
        return quantized.to_blocks(stored).numpy()
    raw = stored.contiguous().cpu()
    return (raw.view(torch.uint16) if raw.dtype == torch.bfloat16 else raw).numpy()


def write(
    path: Path,
    architecture: str,
    add_fields: Callable[[gguf.GGUFWriter], None],
    entries: Sequence[Entry],
    dtype: torch.dtype,
    magic: bytes | None = None,
) -> float:
    """Write the file atomically, one tensor at a time; norms are in float32.

    Args:
        dtype: of matrices; int8 and uint8 stand for Q8_0 and Q4_0, as in ``prosparse.operators.quantized``.

    Returns:
        The share of the model's values that the file's dtypes round.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(temporary, architecture)
    rounded, values = 0, 0
    try:
        add_fields(writer)
        writer.add_file_type(FILE_TYPES[dtype][1])
        dtypes = [dtype if entry.weight.ndim == 2 else torch.float32 for entry in entries]
        for entry, stored in zip(entries, dtypes, strict=True):
            shape, item = entry.shape(), np.dtype(ITEMS[stored.itemsize])
            if stored in quantized.BY_DTYPE:
                form = quantized.BY_DTYPE[stored]
                try:
                    quantized.check_columns(entry.name, shape[1])
                except ValueError as error:
                    raise UserError(str(error)) from None
                shape = torch.Size([shape[0], form.row_bytes(shape[1])])  # in bytes, as the writer wants it
            writer.add_tensor_info(entry.name, shape, item, shape.numel() * item.itemsize, FILE_TYPES[stored][0])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for entry, stored in zip(entries, dtypes, strict=True):
            data = entry.data()
            converted = _converted(data, entry.name, stored)
            if entry.of_model:
                rounded += int(torch.count_nonzero(_stored_values(converted, data.dtype) != data.cpu()))
                values += data.numel()
            writer.write_tensor_data(_bytes(converted))
        writer.close()
        if magic is not None:
            with open(temporary, "r+b") as file:
                file.write(magic)
        os.replace(temporary, path)
        return rounded / values
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)


def reader(path: Path) -> gguf.GGUFReader:
    """Keys and tensors of a file for either engine, memory-mapped.

    Raises:
        UserError: not such a file.
    """
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
        if magic != POWERINFER_MAGIC:
            return gguf.GGUFReader(path, "c")
        known = gguf_reader.GGUF_MAGIC
        gguf_reader.GGUF_MAGIC = int.from_bytes(POWERINFER_MAGIC, "little")  # otherwise the same format
        try:
            return gguf.GGUFReader(path, "c")
        finally:
            gguf_reader.GGUF_MAGIC = known
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{path} is not a complete GGUF file: {error}") from None


def precision(path: Path) -> str:
    """The dtype or format of a file's matrices."""
    types = {tensor.tensor_type.name for tensor in reader(path).tensors if len(tensor.shape) == 2}
    return ", ".join({"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(name, name) for name in sorted(types))


def read_back(path: Path) -> dict[str, Tensor]:
    """The tensors of a file for either engine by name, in their stored dtype and shape.

    Q8_0 and Q4_0 are packed for our operators without rounding anything; other tensors are memory-mapped.

    Raises:
        UserError: not such a file, or one with tensors of another type.
    """
    return {tensor.name: stored(path, tensor) for tensor in reader(path).tensors}


def stored_dtype(path: Path, tensor: gguf.ReaderTensor) -> torch.dtype:
    """The dtype of :func:`stored`, without reading the tensor.

    Raises:
        UserError: a type that is not read here.
    """
    dtype = next((dtype for dtype, types in FILE_TYPES.items() if types[0] == tensor.tensor_type), None)
    if dtype is None:
        raise UserError(f"{path}: {tensor.name} is {tensor.tensor_type.name}; {', '.join(READABLE)} can be read")
    return dtype


def stored(path: Path, tensor: gguf.ReaderTensor) -> Tensor:
    """One of the file's tensors, as :func:`read_back` returns it."""
    dtype, data = stored_dtype(path, tensor), torch.from_numpy(tensor.data)
    form = quantized.BY_DTYPE.get(dtype)
    return data.view(dtype) if form is None else quantized.from_blocks(data, form)
