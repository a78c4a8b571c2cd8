"""Faster decoding of a Hugging Face model: its own ``generate``, with every weight read by this project's operators.

::

    from prosparse.inference.decoding import cache, prepare

    decoder = prepare(model)             # in place: the weights are laid out anew, none is held twice
    model.generate(**prompt, past_key_values=cache())  # exact: the tokens of the dense model

    decoder = prepare(model, load(Path("predictors")))
    decoder.mode = "predicted"           # faster still, and no longer the same model
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prosparse.config import UserError
from prosparse.inference.attention import IMPLEMENTATION, cache
from prosparse.inference.predictors import Predictor, check_shapes, decision_logit, feeding_norms
from prosparse.inference.sparse_ffn import MODES, DecodingFFN, StreamingLinear, check, is_sparse
from prosparse.method.activations import gated_ffns


class Decoder:
    """A prepared model and how its FFNs decode."""

    def __init__(self, model: PreTrainedModel, ffns: list[DecodingFFN]) -> None:
        self.model = model
        self.ffns = ffns
        self.mode = self.modes[-1] if self.modes[-1] != "predicted" else "exact"

    @property
    def modes(self) -> tuple[str, ...]:
        """Those that the activation and the predictors allow."""
        if not self.ffns[0].is_sparse:
            return MODES[:1]
        return MODES[:2] if self.ffns[0].fc1_weight is None else MODES

    @property
    def mode(self) -> str:
        return self.ffns[0].mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode not in self.modes:
            why = "predictors are needed" if self.ffns[0].is_sparse else "its activation has no zeros to skip"
            raise UserError(f"this model cannot decode in mode {mode!r} ({why}); allowed: {', '.join(self.modes)}")
        for ffn in self.ffns:
            ffn.mode = mode


def prepare(
    model: PreTrainedModel, predictors: Sequence[Predictor] | None = None, decision_threshold: float = 0.5
) -> Decoder:
    """Lay a model out for decoding, in place; afterwards it decodes exactly, for inference alone.

    Args:
        model: LLaMA, Granite (MiniCPM), Mistral, Qwen or Phi-3, under any activation.
        predictors: one a layer, which allow the mode ``predicted``.
        decision_threshold: a neuron is predicted active where the sigmoid of its logit reaches it.

    Raises:
        UserError: the operators cannot do what an FFN does, or the predictors do not fit. The model is then left as
            it was.
    """
    if any(isinstance(module, DecodingFFN) for module in model.modules()):
        raise UserError("this model has been prepared for decoding before; load it anew to change its predictors")
    found = gated_ffns(model)
    for ffn in found:
        check(ffn)
    if predictors is not None:
        if not is_sparse(found[0]):
            raise UserError("predictors say which neurons are zero, and this model's activation has no zeros")
        check_shapes(model, predictors)
    logit = decision_logit(decision_threshold)
    # before the FFNs go: the norms are found by them
    norms = feeding_norms(model) if predictors is not None else []
    ffns = []
    for layer, ffn in enumerate(found):
        decoding = DecodingFFN(ffn, predictors[layer] if predictors is not None else None, logit)
        model.set_submodule(ffn.name, decoding)
        ffns.append(decoding)
    for norm, decoding in zip(norms, ffns, strict=False):
        norm.register_forward_pre_hook(_keep_residual(decoding))
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            model.set_submodule(name, StreamingLinear(module))
    model.eval().requires_grad_(False)
    model.set_attn_implementation(IMPLEMENTATION)
    return Decoder(model, ffns)


def _keep_residual(ffn: DecodingFFN) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        ffn.residual = inputs[0]

    return keep


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def weight_bytes(decoder: Decoder) -> int:
    """All parameters, each once."""
    return sum(_bytes(parameter) for parameter in decoder.model.parameters())


def dense_bytes(decoder: Decoder) -> dict[str, int]:
    """Weights that a token reads whatever its activations: attention and head (the embedding gives one row)."""
    head = decoder.model.get_output_embeddings()
    attention = sum(
        _bytes(module.weight)
        for module in decoder.model.modules()
        if isinstance(module, StreamingLinear) and module is not head
    )
    return {"attention": attention, "head": _bytes(head.weight)}  # type: ignore[arg-type]


def greedy(decoder: Decoder, prompt: Sequence[int], new_tokens: int) -> list[int]:
    """The most likely continuation of a prompt's token ids, without a stop at the end of text."""
    model: Any = decoder.model
    generated = model.generate(
        torch.tensor([list(prompt)], device=model.device),
        past_key_values=cache(), max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False, pad_token_id=0,
    )  # fmt: skip
    return generated[0, len(prompt) :].tolist()
