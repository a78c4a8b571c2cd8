"""The device a model computes on."""

from __future__ import annotations

import torch


def fastest() -> torch.device:
    """This machine's accelerator (the current one of several), or its CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def widest_float(device: torch.device) -> torch.dtype:
    """The dtype for sums on the device: float64, or float32 on devices without it (Apple's MPS)."""
    return torch.float64 if device.type in ("cpu", "cuda", "xpu") else torch.float32


def fast_in_bfloat16() -> bool:
    """Whether models are trained here on an accelerator, or on a CPU that is known to have bfloat16 instructions."""
    return (
        torch.accelerator.is_available() or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )


def name(device: torch.device) -> str:
    """The device's name in a result's provenance; for a GPU, its product name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
