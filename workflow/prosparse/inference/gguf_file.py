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

from prosparse.system.errors import UserError

#: The first bytes of PowerInfer's files, in place of "GGUF".
POWERINFER_MAGIC = b"PWRI"
FILE_TYPES = {
    torch.float32: (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    torch.float16: (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    torch.bfloat16: (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
}


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
    converted = tensor.to(dtype)
    if dtype == torch.float16 and not torch.stack(converted.aminmax()).isfinite().all():  # without copying the matrix
        raise UserError(f"{name} holds values that are not finite in float16, beyond 65504: write bfloat16 or float32")
    return converted


def write(
    path: Path,
    architecture: str,
    add_fields: Callable[[gguf.GGUFWriter], None],
    entries: Sequence[Entry],
    dtype: torch.dtype,
    magic: bytes | None = None,
) -> float:
    """Write the file atomically, one tensor at a time; matrices in ``dtype``, norms in float32.

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
            shape, item = entry.shape(), np.dtype(np.uint16 if stored.itemsize == 2 else np.float32)
            writer.add_tensor_info(entry.name, shape, item, shape.numel() * item.itemsize, FILE_TYPES[stored][0])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for entry, stored in zip(entries, dtypes, strict=True):
            data = entry.data()
            converted = _converted(data, entry.name, stored)
            if entry.of_model:
                rounded += int(torch.count_nonzero(converted.to(data.dtype) != data))
                values += data.numel()
            raw = converted.contiguous().cpu()
            writer.write_tensor_data((raw.view(torch.uint16) if stored == torch.bfloat16 else raw).numpy())
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
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no GGUF file: {error}") from None


def read_back(path: Path) -> dict[str, Tensor]:
    """The tensors of a file for either engine by name, memory-mapped, in their stored dtype and shape.

    Raises:
        UserError: not such a file, or one with quantised tensors.
    """
    tensors = {}
    for tensor in reader(path).tensors:
        dtype = next((dtype for dtype, types in FILE_TYPES.items() if types[0] == tensor.tensor_type), None)
        if dtype is None:
            raise UserError(f"{path}: {tensor.name} is {tensor.tensor_type.name}; F32, F16 and BF16 can be read")
        tensors[tensor.name] = torch.from_numpy(tensor.data).view(dtype)
    return tensors
