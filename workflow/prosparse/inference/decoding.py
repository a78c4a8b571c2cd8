"""Faster decoding of a Hugging Face model, also through its own ``generate``.

::

    from prosparse.inference.decoding import cache, prepare
    from prosparse.inference.generation import greedy

    decoder = prepare(model)             # in place: rearranges the weights without holding any twice
    greedy(decoder, prompt, 100)         # exact: the tokens of the dense model
    model.generate(**prompt, past_key_values=cache(model))  # the same, with all of transformers' options

    decoder = prepare(model, load(Path("predictors")))
    decoder.mode = "predicted"           # faster still, but no longer the same model
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from prosparse.inference.attention import IMPLEMENTATION, cache
from prosparse.inference.layers import UnknownLayer
from prosparse.inference.native import NativeDecoder
from prosparse.inference.predictors import Predictor, check_shapes, decision_logit, feeding_norms
from prosparse.inference.sparse_ffn import MODES, DecodingFFN, Rounding, StreamingLinear, check, is_sparse
from prosparse.method.activations import gated_ffns
from prosparse.models.load import forget_generation_settings
from prosparse.operators import quantized
from prosparse.operators.quantized import Format
from prosparse.system.errors import UserError

CHECKED_TOKENS = 16  # more than the operators take at once, then some one by one
#: Relative differences of the logits that count as rounding with any model.
ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}


class Decoder:
    """A prepared model and the mode in which its FFNs decode.

    ``native`` reads a token in one call; it is None if the model computes something that it does not support, and
    ``without_native`` says what.
    """

    def __init__(self, model: PreTrainedModel, ffns: list[DecodingFFN]) -> None:
        self.model = model
        self.ffns = ffns
        self.native: NativeDecoder | None = None
        self.without_native = ""
        self.mode = self.modes[-1] if self.modes[-1] != "predicted" else "exact"

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that the activation and the predictors allow."""
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
    model: PreTrainedModel,
    predictors: Sequence[Predictor] | None = None,
    decision_threshold: float = 0.5,
    form: Format | Rounding | None = None,
) -> Decoder:
    """Prepare a model for exact decoding, in place; afterwards it is for inference only.

    Decodes a short random prompt and a few tokens before and after, and accepts the model only if the result matches
    transformers' own. Afterwards its ``generate`` ignores the checkpoint's ``generation_config.json``, whose penalties
    would change greedy decoding.

    Args:
        model: a model whose gated FFNs have no biases, under any activation.
        predictors: one per layer; they allow the mode ``predicted``.
        decision_threshold: a neuron is predicted active if the sigmoid of its logit reaches it.
        form: rounds all matrices, except for the embedding's, to 8 or 4 bits (``operators.quantized.FORMATS``). The
            embedding keeps its dtype, since a token reads one row of it; a head that shares it gets its own. A
            ``Rounding`` also holds what a file has in the format already.

    Raises:
        UserError: the operators cannot compute the model, the predictors do not fit, or the format does not. The model
            is left unchanged, unless it holds values beyond the format's range.
    """
    if any(isinstance(module, DecodingFFN) for module in model.modules()):
        raise UserError("this model has been prepared for decoding before; load it again to change its predictors")
    found = gated_ffns(model)
    for ffn in found:
        check(ffn)
    if predictors is not None:
        if not is_sparse(found[0]):
            raise UserError("predictors tell which neurons are zero, and this model's activation has no zeros")
        check_shapes(model, predictors)
    rounding = Rounding(form) if isinstance(form, Format) else form
    if rounding is not None:
        _check_form(model, predictors)
    logit = decision_logit(decision_threshold)
    # before replacing the FFNs, which locate the norms
    norms = feeding_norms(model) if predictors is not None else []
    expected, allowed = _stream(model)
    ffns = []
    for layer, ffn in enumerate(found):
        decoding = DecodingFFN(ffn, predictors[layer] if predictors is not None else None, logit, rounding)
        model.set_submodule(ffn.name, decoding)
        ffns.append(decoding)
    for norm, decoding in zip(norms, ffns, strict=False):
        norm.register_forward_pre_hook(_keep_residual(decoding))
    forget_generation_settings(model)
    if rounding is not None:
        for name, module in model.named_modules():
            if isinstance(module, StreamingLinear):
                module.round(rounding, name)
        expected, allowed = _decoded(model, cache(model)), max(allowed, ROUNDING[torch.bfloat16])
    decoder = Decoder(model, ffns)
    try:
        native = NativeDecoder(model)
        if (difference := _difference(_decoded(model, None, native), expected)) <= allowed:
            decoder.native = native
        else:
            decoder.without_native = f"the native decoder's logits would be off by {difference:.2g} of their size"
    except UnknownLayer as reason:
        decoder.without_native = str(reason)
    for decoding in ffns:
        decoding.residual = None  # of the tokens that were compared
    return decoder


def _check_form(model: PreTrainedModel, predictors: Sequence[Predictor] | None) -> None:
    """Raise UserError unless a format of 32 values per block can hold every matrix, and the operators read it there."""
    if model.device.type != "cpu":
        raise UserError("weights in Q8_0 and Q4_0 are for CPUs: no kernel reads them on a GPU")
    transposed = {f"{ffn.name}.{ffn.projections[-1]}" for ffn in gated_ffns(model)}
    sizes = {
        f"{name}.weight": module.in_features
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name not in transposed
    }
    _check_columns(sizes)
    check_blocks(predictors or [])


def check_blocks(predictors: Sequence[Predictor]) -> None:
    """Raise UserError unless a format of 32 values per block can hold the predictors."""
    for predictor in predictors:
        _check_columns(
            {
                "fc1 of the predictors": predictor.fc1.in_features,
                "fc2 of the predictors, transposed,": predictor.fc2.out_features,
            }
        )


def _check_columns(sizes: dict[str, int]) -> None:
    try:
        for name, columns in sizes.items():
            quantized.check_columns(name, columns)
    except ValueError as error:
        raise UserError(str(error)) from None


def _stream(model: PreTrainedModel) -> tuple[Tensor, float]:
    """Let the operators compute everything but the FFNs: linear layers, attention and cache.

    Returns:
        transformers' own logits of some tokens, and the relative difference that counts as rounding.

    Raises:
        UserError: the model would compute something else; it is left unchanged.
    """
    ffns = {ffn.name for ffn in gated_ffns(model)}
    linears = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and name.rpartition(".")[0] not in ffns
    }
    attention = model.config._attn_implementation
    training, gradients = model.training, [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval().requires_grad_(False)
    try:
        whole, expected = _decoded(model, None), _decoded(model, DynamicCache(config=model.config))
        for name, linear in linears.items():
            model.set_submodule(name, StreamingLinear(linear))
        if attention == "sdpa":  # our attention falls back to sdpa
            model.set_attn_implementation(IMPLEMENTATION)
        found = _decoded(model, cache(model))
        # this model's own rounding: the same tokens at once and one by one
        allowed = max(ROUNDING[model.dtype], 4 * _difference(whole, expected))
        difference = _difference(found, expected)
        if not difference <= allowed:
            raise UserError(
                f"{type(model).__name__} cannot be decoded here: its logits would be off by {difference:.2g} of their "
                f"size, where rounding explains {allowed:.2g}"
            )
        return expected, allowed
    except Exception as error:
        for name, linear in linears.items():
            model.set_submodule(name, linear)
        model.set_attn_implementation(attention)
        model.train(training)
        for parameter in gradients:
            parameter.requires_grad_()
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{type(model).__name__} cannot be decoded here: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error


@torch.inference_mode()
def _decoded(model: PreTrainedModel, past: Cache | None, native: NativeDecoder | None = None) -> Tensor:
    """Logits [CHECKED_TOKENS, vocabulary] of random tokens: at once, or with a cache, a prompt, then one by one.

    With ``native``, it computes those after the prompt, also with a cache.
    """
    forward: Any = model
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(len(model.get_input_embeddings().weight), (1, CHECKED_TOKENS), generator=generator)  # type: ignore[arg-type]
    tokens = tokens.to(model.device)
    parts = [tokens[:, :-3], *tokens[:, -3:].split(1, dim=1)]
    if native is not None:
        room, table = native.room(CHECKED_TOKENS), native.table(CHECKED_TOKENS)
        logits = [forward(input_ids=parts[0], past_key_values=cache(model, room), use_cache=True).logits[0]]
        for position, part in enumerate(parts[1:], CHECKED_TOKENS - 3):
            logits.append(native.step(int(part), position, room, table, "dense")[None])
        return torch.cat(logits).float()
    if past is None:
        return forward(input_ids=tokens, use_cache=False).logits[0].float()
    logits = [forward(input_ids=part, past_key_values=past, use_cache=True).logits[0] for part in parts]
    return torch.cat(logits).float()


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _keep_residual(ffn: DecodingFFN) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        ffn.residual = inputs[0]

    return keep


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def weight_bytes(decoder: Decoder) -> int:
    """Bytes of all parameters, each counted once."""
    return sum(_bytes(parameter) for parameter in decoder.model.parameters())


def dense_bytes(decoder: Decoder) -> dict[str, int]:
    """Bytes of weights that every token reads: attention and head (the embedding adds only one row)."""
    head = decoder.model.get_output_embeddings()
    attention = sum(
        _bytes(module.weight)
        for module in decoder.model.modules()
        if isinstance(module, StreamingLinear) and module is not head
    )
    return {"attention": attention, "head": _bytes(head.weight)}  # type: ignore[arg-type]
