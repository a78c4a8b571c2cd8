"""The L1 term on x1 (section 3.2), added to the gradient rather than to the loss.

The objective is ``LM loss + lambda * sum over layers of mean |x1|``, where the mean is over tokens and intermediate
neurons (the paper does not say how it normalizes; this choice is ours). The gradient of the second term at x1 is
``lambda / x1.numel() * sign(x1)``. An identity on x1 adds it in its backward pass, which runs exactly once per
micro-batch and layer; a list of losses filled by hooks would miss or double terms under activation checkpointing, DDP
or torch.compile.

In 16 bits, ``lambda / x1.numel()`` is usually too small to change the gradient it is added to, so the sum is rounded
stochastically. In float32 it is rounded to nearest as usual.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prosparse.method.activations import gated_ffns
from prosparse.method.rounding import HALF_PRECISION, add_sign, draw_key, draws
from prosparse.system.devices import widest_float


class _L1Gradient(torch.autograd.Function):
    """Identity on x1 whose backward adds ``scale * sign(x1)`` to the gradient.

    ``probe`` (shape [2]) receives this micro-batch's mean |x1| and fraction of zeros as its "gradient". Autograd
    accumulates them over micro-batches like any gradient, and a forward pass that activation checkpointing repeats
    does not count twice.
    """

    @staticmethod
    def forward(
        ctx: Any, x1: Tensor, scale: Tensor, draw_key: Tensor, first_row: Tensor, probe: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x1, scale, draw_key, first_row)
        ctx.measuring = probe is not None
        return x1.view_as(x1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x1, scale, draw_key, first_row = ctx.saved_tensors
        measured = None
        if ctx.measuring:
            zeros = x1.numel() - torch.count_nonzero(x1)
            measured = torch.stack([x1.abs().sum(dtype=torch.float32), zeros.float()]) / x1.numel()
        if gradient.dtype in HALF_PRECISION:
            rows, signs = gradient.flatten(0, -2), x1.flatten(0, -2)
            total = add_sign(rows, signs, scale.float(), *draws(draw_key, first_row, *rows.shape)).reshape(x1.shape)
        else:
            total = torch.addcmul(gradient, x1.sign(), scale.to(gradient.dtype))
        return total, None, None, None, measured


class SparsityRegularization:
    """Attach the L1 gradient to every gated FFN of a model.

    Set ``step`` and ``factor`` (lambda) before each optimizer step. With ``measuring`` on, the step's mean |x1| and
    sparsity are collected without an extra pass; with lambda 0 and measuring off, the model runs unchanged. Gradients
    must not be loss-scaled (float16): use float32 or bfloat16.

    The draws that round a 16-bit gradient depend on the seed, step, layer, token position in the step's batch, and
    neuron. A token's draws do not depend on how many processes share the batch, as long as micro-batches go to the
    processes round-robin, as with accelerate's samplers.

    Args:
        model: any model with gated FFNs.
        accumulation_steps: micro-batches per optimizer step and process, all of equal weight. If a step has another
            number, set the attribute before ``factor``. Gradients must be averaged over processes, as DDP and FSDP do.
        device: where the model will compute, if its weights are not there yet.
        seed: seed of the draws.
        rank, world_size: this process's rank among those that share a batch, and their number.
    """

    def __init__(
        self,
        model: nn.Module,
        accumulation_steps: int = 1,
        device: torch.device | None = None,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._ffns = gated_ffns(model)
        self.accumulation_steps = accumulation_steps
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._factor = 0.0
        self._active = False  # a bool: torch.compile would recompile for each value of a float
        device = device or next(model.parameters()).device
        self._scale = torch.zeros((), dtype=widest_float(device), device=device)
        self._probes = [torch.zeros(2, device=device, requires_grad=True) for _ in self._ffns]
        # tensors, not numbers, for the same reason; one per layer, since all layers share compiled code
        self._draw_keys = [torch.zeros((), dtype=torch.int64, device=device) for _ in self._ffns]
        self._micro_batch = torch.zeros((), dtype=torch.int64, device=device)
        self.step = 1
        self.measuring = False
        self._hooks = [
            model.register_forward_pre_hook(self._next_micro_batch),
            *(
                ffn.down_proj.register_forward_pre_hook(self._hook(probe, key))
                for ffn, probe, key in zip(self._ffns, self._probes, self._draw_keys, strict=True)
            ),
        ]

    @property
    def factor(self) -> float:
        return self._factor

    @factor.setter
    def factor(self, value: float) -> None:
        self._factor = value
        self._active = value > 0
        self._scale.fill_(value / self.accumulation_steps)

    @property
    def step(self) -> int:
        return self._step

    @step.setter
    def step(self, value: int) -> None:
        self._step = value
        for probe in self._probes:
            probe.grad = None
        self._micro_batch.fill_(self._rank - self._world_size)
        for layer, key in enumerate(self._draw_keys):
            key.fill_(draw_key(self._seed, value, layer))

    def _next_micro_batch(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Count micro-batches in a hook on the model, since activation checkpointing repeats those on its layers."""
        if self._active and torch.is_grad_enabled():
            self._micro_batch.add_(self._world_size)

    def _hook(self, probe: Tensor, draw_key: Tensor) -> Any:
        def add_gradient(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            (x1,) = inputs
            if not (self._active or self.measuring) or not torch.is_grad_enabled():
                return None
            # a tensor, not a number: torch.compile would recompile for each lambda
            scale, first_row = self._scale / x1.numel(), self._micro_batch * (x1.numel() // x1.shape[-1])
            return (_L1Gradient.apply(x1, scale, draw_key, first_row, probe if self.measuring else None),)

        return add_gradient

    def measured(self) -> tuple[list[float], list[float]]:
        """Return mean |x1| and the fraction of zeros since the step was set, per layer; needs ``measuring``."""
        l1, sparsity = [], []
        for probe in self._probes:
            values = torch.zeros(2) if probe.grad is None else probe.grad.detach().cpu() / self.accumulation_steps
            l1.append(values[0].item())
            sparsity.append(values[1].item())
        return l1, sparsity

    def detach(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
