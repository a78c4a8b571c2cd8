"""The device that a model computes on."""

from __future__ import annotations

import torch


def fastest() -> torch.device:
    """This machine's accelerator (the current one of several), or its CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def widest_float(device: torch.device) -> torch.dtype:
    """What sums are taken in on the device: float64, or float32 where there is none (Apple's MPS)."""
    return torch.float64 if device.type in ("cpu", "cuda", "xpu") else torch.float32


def name(device: torch.device) -> str:
    """What a result's provenance calls it: a GPU by its product name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
