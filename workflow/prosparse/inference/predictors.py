"""Predict which neurons of a gated FFN will be active (section 4.2).

Each layer has its own predictor: two matrices with a ReLU in between map the residual stream before the FFN's norm to
one logit per neuron. A neuron is predicted active if the sigmoid of its logit reaches the decision threshold. Files
have PowerInfer's layout.
"""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prosparse.method.activations import UnsupportedArchitecture, gated_ffns
from prosparse.system.errors import ConfigError, UserError


class Predictor(nn.Module):
    """``fc2(relu(fc1(residual)))`` without biases, [..., hidden_size] -> [..., intermediate_size], logits of neurons.

    ``residual`` is the residual stream before the norm that feeds the FFN, as in PowerInfer.
    """

    def __init__(self, hidden_size: int, rank: int, intermediate_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, rank, bias=False)
        self.fc2 = nn.Linear(rank, intermediate_size, bias=False)

    @classmethod
    def of(cls, fc1: Tensor, fc2: Tensor) -> Predictor:
        """Wrap given weights, [rank, hidden_size] and [intermediate_size, rank], without copying them."""
        with torch.device("meta"):
            predictor = cls(fc1.shape[1], fc1.shape[0], fc2.shape[0])
        predictor.load_state_dict({"fc1.weight": fc1, "fc2.weight": fc2}, assign=True)
        return predictor

    @property
    def rank(self) -> int:
        return self.fc1.out_features

    def forward(self, residual: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(residual)))


def decision_logit(decision_threshold: float) -> float:
    """The logit whose sigmoid is the threshold; 0 for 0.5.

    Raises:
        UserError: the threshold is not a probability above 0 and below 1.
    """
    if not 0 < decision_threshold < 1:
        raise UserError(f"the decision threshold is {decision_threshold:g}: it must be above 0 and below 1")
    return math.log(decision_threshold / (1 - decision_threshold))


# --------------------------------------------------------------------------------------- files


def save(predictors: Sequence[Predictor], directory: Path) -> None:
    """Write ``model_{layer}.pt``, state dicts of ``fc1.weight`` and ``fc2.weight``, each file atomically."""
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.glob("model_*.pt"):
        stale.unlink()  # else load would mix in another model's layers
    for layer, predictor in enumerate(predictors):
        weights = {name: weight.cpu() for name, weight in predictor.state_dict().items()}
        save_whole(weights, directory / f"model_{layer}.pt")


def save_whole(value: Any, path: Path) -> None:
    """Atomic ``torch.save``; the same value gives the same bytes under any name."""
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "wb") as file:  # given a path, torch would also write its name
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(directory: Path, dtype: torch.dtype = torch.float32) -> list[Predictor]:
    """Load a directory's predictors for inference, in layer order, from our files or any in PowerInfer's layout.

    Raises:
        ConfigError: a file is missing or holds anything but the two matrices.
    """
    count = len(list(directory.glob("model_*.pt")))
    if not count:
        raise ConfigError(f"{directory} holds no predictors: model_0.pt, model_1.pt, ... are needed, one per layer")
    return [_load_layer(directory / f"model_{layer}.pt", dtype) for layer in range(count)]


def _load_layer(path: Path, dtype: torch.dtype) -> Predictor:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing, although files of later layers exist") from None
    except pickle.UnpicklingError:
        raise ConfigError(f"{path} is not a predictor: it holds something other than weights, or is damaged") from None
    except (OSError, EOFError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{path} is not a predictor: it cannot be read ({reason})") from None
    matrices = isinstance(weights, dict) and all(isinstance(w, Tensor) and w.dim() == 2 for w in weights.values())
    if not matrices or set(weights) != {"fc1.weight", "fc2.weight"}:
        raise ConfigError(
            f"{path} is not a predictor: it must hold the matrices fc1.weight and fc2.weight, nothing else"
        )
    fc1, fc2 = weights["fc1.weight"], weights["fc2.weight"]
    if fc1.shape[0] != fc2.shape[1]:
        raise ConfigError(f"{path}: fc1.weight {list(fc1.shape)} and fc2.weight {list(fc2.shape)} differ in rank")
    return Predictor.of(fc1.to(dtype), fc2.to(dtype)).requires_grad_(False)


# ---------------------------------------------------------------------------------- in a model


def feeding_norms(model: nn.Module) -> list[nn.Module]:
    """The norm before each gated FFN, in layer order; its input is the predictor's input.

    LLaMA, Granite, Mistral, Qwen and Phi-3 call it ``post_attention_layernorm``.

    Raises:
        UnsupportedArchitecture: a layer has no norm of that name, or has other norms on the FFN's input or output
            (Gemma 2, OLMo 2: there the name is the attention's output norm).
    """
    norms = []
    for ffn in gated_ffns(model):
        layer = model.get_submodule(ffn.name.rpartition(".")[0])
        norm = getattr(layer, "post_attention_layernorm", None)
        others = any(hasattr(layer, name) for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm"))
        if norm is None or others:
            raise UnsupportedArchitecture(
                f"{ffn.name}: predictors need the residual stream in front of a norm post_attention_layernorm that "
                f"feeds the FFN, which {type(layer).__name__} does not have (LLaMA, Granite, Mistral, Qwen, Phi-3 do)"
            )
        norms.append(norm)
    return norms


@contextmanager
def observing(model: nn.Module, observe: Callable[[int, Tensor, Tensor], Tensor | None]) -> Iterator[None]:
    """Call ``observe(layer, residual, x1)`` in every gated FFN of a dense model inside the block.

    ``residual`` [..., hidden_size] is the stream before the feeding norm, ``x1`` [..., intermediate_size] the input of
    ``down_proj`` (Eq. 2). A tensor returned by ``observe`` replaces x1.
    """
    residuals: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            residuals[layer] = inputs[0]

        return hook

    def show(layer: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
            replaced = observe(layer, residuals.pop(layer), inputs[0])
            return None if replaced is None else (replaced,)

        return hook

    hooks = []
    try:
        for layer, (norm, ffn) in enumerate(zip(feeding_norms(model), gated_ffns(model), strict=True)):
            hooks.append(norm.register_forward_pre_hook(keep(layer)))
            hooks.append(ffn.down_proj.register_forward_pre_hook(show(layer)))
        yield
    finally:
        for registered in hooks:
            registered.remove()


@contextmanager
def predicting(model: PreTrainedModel, predictors: Sequence[nn.Module], decision_threshold: float) -> Iterator[None]:
    """Let a dense model compute only with the neurons predicted active inside the block.

    Sets x1 to 0 for neurons predicted inactive. This gives the values of an engine that skips their rows, at any
    sequence length, but at the speed of a dense model: use it for losses and benchmarks.

    Args:
        predictors: one per layer; modules from the residual stream to logits, float32, on the model's device.
        decision_threshold: the least probability at which a neuron is predicted active, above 0 and below 1.

    Raises:
        UserError: the predictors belong to another model.
    """
    check_shapes(model, predictors)
    threshold = decision_logit(decision_threshold)

    def mask(layer: int, residual: Tensor, x1: Tensor) -> Tensor:
        return torch.where(predictors[layer](residual.float()) >= threshold, x1, 0)

    with observing(model, mask):
        yield


def check_shapes(model: PreTrainedModel, predictors: Sequence[nn.Module]) -> None:
    """Raise UserError unless every layer has a predictor of the right shape."""
    ffns = gated_ffns(model)
    if len(predictors) != len(ffns):
        raise UserError(f"{len(predictors)} predictors for a model of {len(ffns)} layers: they belong to another model")
    for layer, (predictor, ffn) in enumerate(zip(predictors, ffns, strict=True)):
        if isinstance(predictor, Predictor):
            wanted = tuple(reversed(ffn.gate_weight.shape))
            found = predictor.fc1.in_features, predictor.fc2.out_features
            if found != wanted:
                raise UserError(
                    f"the predictor of layer {layer} maps {found[0]} to {found[1]} values, the model's "
                    f"hidden_size and intermediate_size are {wanted[0]} and {wanted[1]}: it belongs to another model"
                )


# ------------------------------------------------------------------------------- training-free

#: Root mean square of the SVD predictor's logits: decision thresholds from 0.01 to 0.99 then span three of them.
SVD_LOGIT_SCALE = 1.5


def check_rank(rank: int, hidden_size: int) -> None:
    """Raise ConfigError for a rank that :func:`svd` cannot give."""
    if rank % 2 or rank > 2 * hidden_size:
        raise ConfigError(
            f"predictors.rank is {rank}: kind svd needs an even number, at most {2 * hidden_size} "
            "(twice the hidden size)"
        )


@torch.no_grad()
def svd(model: PreTrainedModel, rank: int, rows: Tensor) -> list[Predictor]:
    """Predictors without training: the sign of the gate, from a truncated SVD of the gate's matrix.

    With G = gate_proj times the norm's weights and V its first rank / 2 right singular vectors, ``fc1 = [V^T; -V^T]``
    and ``fc2 = [G V, -G V]``: since ``v = relu(v) - relu(-v)``, the logits are ``G V V^T residual``. The norm also
    divides by the residual's root mean square, which is positive, so a neuron's gate and its logit have the same sign,
    up to the truncation. A threshold t > 0 of FATReLU and the bias of Shifted ReLU are thus treated as 0, and dReLU's
    up projection as positive.

    Args:
        rank: even; half of it is the truncation.
        rows: token ids [sequences, length]; they only set the scale of each layer's logits, so that decision
            thresholds other than 0.5 are meaningful.

    Raises:
        ConfigError: the rank is invalid.
    """
    size = model.config.hidden_size
    check_rank(rank, size)
    predictors = []
    for norm, ffn in zip(feeding_norms(model), gated_ffns(model), strict=True):
        weight = ffn.gate_weight.float()
        # ones have root mean square 1, so this gives the weights as the norm applies them, w or 1 + w
        gate = weight * norm(torch.ones(size, dtype=model.dtype, device=weight.device)).float()
        right = torch.linalg.eigh(gate.T @ gate).eigenvectors[:, size - rank // 2 :]
        projected = gate @ right
        predictors.append(Predictor.of(torch.cat([right.T, -right.T]), torch.cat([projected, -projected], dim=1)))
    squares = [0.0] * len(predictors)

    def add(layer: int, residual: Tensor, x1: Tensor) -> None:
        squares[layer] += predictors[layer](residual.float()).square().mean().item() * len(residual)

    with observing(model, add):
        for row in rows.split(1):
            model.base_model(input_ids=row.to(model.device), use_cache=False)
    for predictor, square in zip(predictors, squares, strict=True):
        predictor.fc2.weight.mul_(SVD_LOGIT_SCALE / math.sqrt(square / len(rows)))
        predictor.requires_grad_(False)
    return predictors
