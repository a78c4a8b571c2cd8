"""The L1 term on x1 (paper, section 3.2) as a gradient, not as a term of the loss's graph.

The objective is ``LM loss + lambda * sum over layers of mean |x1|``, the mean taken over tokens and
intermediate neurons (the paper does not say how it normalises; this choice is ours). The
gradient of the second part at x1 is ``lambda / x1.numel() * sign(x1)``. An identity on x1 adds it
in its backward pass, which runs exactly once a micro-batch and layer; a list of losses filled by
hooks would miss or double terms under activation checkpointing, DDP or torch.compile.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prosparse.method.activations import gated_ffns


class _L1Gradient(torch.autograd.Function):
    """Identity on x1 whose backward adds ``scale * sign(x1)`` to the gradient.

    ``probe`` (shape [2]) receives, as its own "gradient", this micro-batch's mean |x1| and share of
    zeros: autograd accumulates them over micro-batches like any gradient, and a forward pass
    repeated by activation checkpointing does not count twice.
    """

    @staticmethod
    def forward(ctx: Any, x1: Tensor, scale: Tensor, probe: Tensor | None) -> Tensor:
        ctx.save_for_backward(x1, scale)
        ctx.measuring = probe is not None
        return x1.view_as(x1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor | None]:  # type: ignore[override]
        x1, scale = ctx.saved_tensors
        measured = None
        if ctx.measuring:
            zeros = x1.numel() - torch.count_nonzero(x1)
            measured = torch.stack([x1.abs().sum(dtype=torch.float32), zeros.float()]) / x1.numel()
        return torch.addcmul(gradient, x1.sign(), scale.to(gradient.dtype)), None, measured


class SparsityRegularization:
    """Attaches the L1 gradient to every gated FFN of a model.

    Set ``factor`` (lambda) before each optimizer step. With ``measuring`` on, the step's mean |x1|
    and sparsity are collected at no extra pass; with lambda 0 and measuring off the model runs
    untouched. Gradients must not be loss-scaled (float16): use float32 or bfloat16.

    Args:
        model: any model with gated FFNs.
        accumulation_steps: micro-batches an optimizer step and process; each contributes an equal share. Gradients
            are taken to be averaged over processes, as DDP and FSDP do.
        device: where the model will compute, if its weights are not there yet.
    """

    def __init__(self, model: nn.Module, accumulation_steps: int = 1, device: torch.device | None = None) -> None:
        self._ffns = gated_ffns(model)
        self._accumulation_steps = accumulation_steps
        self._factor = 0.0
        self._active = False  # a bool: torch.compile would compile anew for each value of a float
        device = device or next(model.parameters()).device
        self._scale = torch.zeros((), dtype=torch.float64, device=device)
        self._probes = [torch.zeros(2, device=device, requires_grad=True) for _ in self._ffns]
        self.measuring = False
        self._hooks = [
            ffn.down_proj.register_forward_pre_hook(self._hook(probe))
            for ffn, probe in zip(self._ffns, self._probes, strict=True)
        ]

    @property
    def factor(self) -> float:
        return self._factor

    @factor.setter
    def factor(self, value: float) -> None:
        self._factor = value
        self._active = value > 0
        self._scale.fill_(value / self._accumulation_steps)

    def _hook(self, probe: Tensor) -> Any:
        def add_gradient(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            (x1,) = inputs
            if not (self._active or self.measuring) or not torch.is_grad_enabled():
                return None
            # a tensor, not a number: torch.compile would compile anew for each lambda
            return (_L1Gradient.apply(x1, self._scale / x1.numel(), probe if self.measuring else None),)

        return add_gradient

    def measured(self) -> tuple[list[float], list[float]]:
        """Per layer: mean |x1| and share of zeros since the last call; needs ``measuring``."""
        l1, sparsity = [], []
        for probe in self._probes:
            values = torch.zeros(2) if probe.grad is None else probe.grad.detach().cpu() / self._accumulation_steps
            l1.append(values[0].item())
            sparsity.append(values[1].item())
            probe.grad = None
        return l1, sparsity

    def detach(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
