"""Language-model loss without full logits in float32, and distillation in one pass.

With a vocabulary of 49,152, logits are the largest tensor of a small model, and the float32 logits, their softmax and
their gradients pass through memory ten times. Here the head's product, the softmax and the gradient process the
vocabulary one slice at a time, and logits are kept once, in the precision of the product. (torch's
``linear_cross_entropy`` slices tokens instead; on CPUs it was slower than the plain loss.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

SLICE = 4096  # vocabulary entries per slice; a slice of logits stays in cache
IGNORED = -100


def _statistics(logits: Tensor, maximum: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Update each row's running maximum and sum of exponentials with one more slice of logits."""
    values = logits.float()
    higher = torch.maximum(maximum, values.amax(1))
    return higher, total * (maximum - higher).exp() + (values - higher[:, None]).exp().sum(1)


def _divergence(teacher: Tensor, student: Tensor, maximum: Tensor, higher: Tensor, total: Tensor) -> Tensor:
    """Update each row's running sum of ``exp(teacher - maximum) (teacher - student)``, without targets."""
    values = teacher.float()
    difference = torch.where(values > -torch.inf, values - student.float(), 0)
    return total * (maximum - higher).exp() + ((values - higher[:, None]).exp() * difference).sum(1)


def _gradient(logits: Tensor, normalizer: Tensor, weight: Tensor) -> Tensor:
    """``weight * softmax(logits)`` in the dtype of the logits."""
    return ((logits.float() - normalizer[:, None]).exp() * weight[:, None]).to(logits.dtype)


def _distilled_gradient(
    logits: Tensor,
    normalizer: Tensor,
    weight: Tensor,
    teacher: Tensor,
    teacher_normalizer: Tensor,
    teacher_weight: Tensor,
) -> Tensor:
    """``weight * softmax(logits) - teacher_weight * softmax(teacher)``."""
    wanted = (teacher.float() - teacher_normalizer[:, None]).exp() * teacher_weight[:, None]
    return ((logits.float() - normalizer[:, None]).exp() * weight[:, None] - wanted).to(logits.dtype)


def _column(targets: Tensor, start: int, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's target column [n, 1] in a slice, and whether the slice has it [n, 1] (else any column)."""
    column = targets[:, None] - start
    width = logits.shape[1]
    return column.clamp(0, width - 1), (column >= 0) & (column < width)


def _take_out(logits: Tensor, targets: Tensor, start: int, chosen: Tensor) -> Tensor:
    """Move a slice's target logits to ``chosen`` (float32) and replace them by minus infinity."""
    column, inside = _column(targets, start, logits)
    values = logits.gather(1, column)
    logits.scatter_(1, column, values.masked_fill(inside, -torch.inf))
    return torch.where(inside[:, 0], values[:, 0].float(), chosen)


class _Loss(torch.autograd.Function):
    """Cross entropy that treats the target separately from the rest of the vocabulary.

    Let ``rest`` be the log-sum-exp of the other entries. A row's cross entropy is ``softplus(rest - target)`` and its
    gradient at the target ``-sigmoid(rest - target)``. Unlike ``normalizer - target`` and ``softmax - 1``, neither
    loses precision where the target is nearly certain.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        row_weight: Tensor,
        share: float,
        teacher: tuple[Tensor, Tensor] | None,
        kernels: dict[str, Callable[..., Any]],
    ) -> Tensor:
        total = hidden.new_zeros(hidden.shape[0], dtype=torch.float32)
        maximum = torch.full_like(total, -torch.inf)
        chosen = teacher_chosen = teacher_total = difference = total
        teacher_maximum = maximum
        slices, teacher_slices = [], []
        for start in range(0, weight.shape[0], SLICE):
            logits = hidden @ weight[start : start + SLICE].T
            slices.append(logits)
            chosen = _take_out(logits, targets, start, chosen)
            maximum, total = kernels["statistics"](logits, maximum, total)
            if teacher is not None:
                wanted = teacher[0] @ teacher[1][start : start + SLICE].T
                teacher_slices.append(wanted)
                teacher_chosen = _take_out(wanted, targets, start, teacher_chosen)
                higher, teacher_total = kernels["statistics"](wanted, teacher_maximum, teacher_total)
                difference = kernels["divergence"](wanted, logits, teacher_maximum, higher, difference)
                teacher_maximum = higher
        rest = maximum + total.log()
        normalizer = torch.logaddexp(rest, chosen)
        target_slope = -torch.sigmoid(rest - chosen)
        loss = nn.functional.softplus(rest - chosen)
        teacher_normalizer = normalizer
        if teacher is not None:
            teacher_rest = teacher_maximum + teacher_total.log()
            teacher_normalizer = torch.logaddexp(teacher_rest, teacher_chosen)
            divergence = (
                (teacher_maximum - teacher_normalizer).exp() * difference
                + (teacher_chosen - teacher_normalizer).exp() * (teacher_chosen - chosen)
                - teacher_normalizer
                + normalizer
            )
            # equal distributions differ by float32 rounding
            loss = (1 - share) * loss + share * divergence.clamp_min(0)
            target_slope = target_slope + share * torch.sigmoid(teacher_rest - teacher_chosen)
        ctx.save_for_backward(hidden, weight, targets, row_weight, normalizer, teacher_normalizer, target_slope)
        ctx.slices, ctx.teacher_slices, ctx.share, ctx.kernels = slices, teacher_slices, share, kernels
        return (loss * row_weight).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hidden, weight, targets, row_weight, normalizer, teacher_normalizer, target_slope = ctx.saved_tensors
        row_weight = row_weight * gradient
        target_slope = (target_slope * row_weight).to(hidden.dtype)[:, None]
        hidden_gradient = torch.zeros_like(hidden, dtype=torch.float32)
        weight_gradient = torch.empty_like(weight)
        for index, start in enumerate(range(0, weight.shape[0], SLICE)):
            logits, ctx.slices[index] = ctx.slices[index], None  # free each slice once used
            if ctx.teacher_slices:
                wanted, ctx.teacher_slices[index] = ctx.teacher_slices[index], None
                slope = ctx.kernels["distilled_gradient"](
                    logits, normalizer, row_weight, wanted, teacher_normalizer, ctx.share * row_weight
                )
            else:
                slope = ctx.kernels["gradient"](logits, normalizer, row_weight)
            column, inside = _column(targets, start, slope)
            slope.scatter_(1, column, torch.where(inside, target_slope, slope.gather(1, column)))
            hidden_gradient += slope @ weight[start : start + SLICE]
            torch.mm(slope.T, hidden, out=weight_gradient[start : start + SLICE])
        return hidden_gradient.to(hidden.dtype), weight_gradient, None, None, None, None, None


class FusedLoss:
    """Next-token cross entropy, as transformers' ``loss_function``, from hidden states and the head's weight.

    Attach it with :func:`fuse_loss`. With a ``teacher``, the loss is ``(1 - share)`` times cross entropy plus ``share``
    times KL(teacher || student), both in nats per token.

    Args:
        head: the model's output embedding, without a bias.
        share: weight of the divergence from the teacher.
        compile: fuse the passes over a slice with torch.compile.
    """

    def __init__(self, head: nn.Linear, share: float = 0.0, compile: bool = False) -> None:
        self.head = head
        self.share = share
        self.teacher: tuple[Tensor, Tensor] | None = None  # hidden states [batch, length, d] and head weight, per step
        kernels: dict[str, Callable[..., Any]] = {
            "statistics": _statistics,
            "divergence": _divergence,
            "gradient": _gradient,
            "distilled_gradient": _distilled_gradient,
        }
        self._kernels = {n: torch.compile(k, dynamic=False) if compile else k for n, k in kernels.items()}

    def __call__(
        self, logits: Tensor, labels: Tensor, vocab_size: int, num_items_in_batch: Tensor | None = None, **_: Any
    ) -> Tensor:
        """Mean over tokens, or sum divided by ``num_items_in_batch`` (gradient accumulation).

        Args:
            logits: hidden states [batch, length, d], passed through by the detached head.
            labels: [batch, length]; -100 is ignored.
        """
        device = logits.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else logits.dtype
        # keep a row for every position, the last without a target, so that the products' sizes stay round
        targets = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED).flatten()
        counted = targets != IGNORED
        items = counted.sum() if num_items_in_batch is None else num_items_in_batch
        teacher = None
        if self.teacher is not None:
            hidden, weight = self.teacher
            teacher = (hidden.flatten(0, 1).to(dtype), weight.to(dtype))
        return _Loss.apply(
            logits.flatten(0, 1).to(dtype),
            self.head.weight.to(dtype),
            targets.clamp_min(0),
            counted / items,
            self.share,
            teacher,
            self._kernels,
        )


def fuse_loss(model: PreTrainedModel, share: float = 0.0, compile: bool = False) -> FusedLoss | None:
    """Make ``model(input_ids, labels=...)`` compute its loss by :class:`FusedLoss`; ``logits`` are then hidden states.

    Returns None and leaves the model unchanged if its logits are more than a product of hidden states and a matrix.
    """
    head = model.get_output_embeddings()
    if (
        not isinstance(head, nn.Linear)
        or head.bias is not None
        or getattr(model.config, "final_logit_softcapping", None)
    ):
        return None
    loss = FusedLoss(head, share, compile)
    head.forward = lambda hidden: hidden  # type: ignore[method-assign,assignment]
    model.loss_function = loss
    return loss
