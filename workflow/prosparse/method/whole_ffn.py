"""Verify on a random input that a model's gated FFNs are all of its FFN computation.

The method replaces an activation, penalizes x1 and counts its zeros. If experts, clamps, norms or branches compute part
of what the FFN adds to the residual stream, the method misses that part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prosparse.method.activations import GatedFFN, UnsupportedArchitecture, gated_ffns

TOKENS = 8
#: Largest gate of the second probe: above the bounds at which some families clamp their gates (7 to 10), and finite in
#: float16.
LARGE_GATE = 30.0
#: Relative differences attributed to rounding.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}


class _Probe(nn.Module):
    """An activation that no model uses: an FFN whose x1 does not follow it ignores the attribute that holds it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs() + 0.25 * x


@torch.no_grad()
def check(model: nn.Module) -> None:
    """Run a few random tokens through the model, and check the following:

    - Each gated FFN computes ``down_proj(act(gate) * up)``, and ``down_proj`` reads exactly that x1.
    - A forward pass runs each of them exactly once.
    - Every other weight matrix in the decoder layers belongs to a module that mixes tokens (attention, a state-space
      mixer, a convolution). One that computes each token separately is an FFN that the method would not reach.

    Raises:
        UnsupportedArchitecture: one of these does not hold; the message names the module.
    """
    ffns = gated_ffns(model)
    training = model.training
    model.eval()
    try:
        for ffn in ffns:
            check_formula(ffn)
        with _calls(ffns) as calls, _judging(model, ffns) as unjudged:
            _forward(model)
        for ffn in ffns:
            if calls[ffn.name] != 1:
                raise UnsupportedArchitecture(
                    f"{ffn.name} runs {calls[ffn.name]} times per forward pass on text: a gated FFN must run once"
                )
        if unjudged:
            raise UnsupportedArchitecture(
                f"{min(unjudged)} does not run on text: the model is more than a language model"
            )
    finally:
        model.train(training)


def _forward(model: Any) -> None:
    embedding: Any = model.get_input_embeddings()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(len(embedding.weight), (1, TOKENS), generator=generator)
    try:
        model(input_ids=tokens.to(embedding.weight.device), use_cache=False)
    except UnsupportedArchitecture:
        raise
    except Exception as error:  # third-party code raises anything
        raise UnsupportedArchitecture(
            f"{type(model).__name__} does not run on {TOKENS} random tokens ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


@torch.no_grad()
def check_formula(ffn: GatedFFN) -> None:
    """Raise UnsupportedArchitecture unless the module computes ``down_proj(act(gate) * up)``."""
    weight, described = ffn.gate_weight, f"{ffn.name} ({type(ffn.module).__name__})"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, TOKENS, weight.shape[1], generator=generator).to(weight.device, weight.dtype)
    activation, seen = ffn.activation, []
    hook = ffn.down_proj.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    setattr(ffn.module, ffn.activation_attribute, _Probe())
    try:
        for scale in (1.0, LARGE_GATE / float(ffn.gate_and_up(x)[0].abs().max().clamp(min=1e-3))):
            gate, up = ffn.gate_and_up(scale * x)
            seen.clear()
            output = ffn.module(scale * x)
            x1 = _Probe()(gate) * up
            if len(seen) != 1 or not _alike(seen[0], x1):
                raise UnsupportedArchitecture(f"{described}: the input of {ffn.projections[-1]} is not act(gate) * up")
            if not _alike(output, ffn.down_proj(x1)):
                raise UnsupportedArchitecture(f"{described} does not return the output of {ffn.projections[-1]}")
    except UnsupportedArchitecture:
        raise
    except Exception as error:  # third-party code raises anything
        raise UnsupportedArchitecture(f"{described} is not a gated FFN of one input ({_first_line(error)})") from error
    finally:
        hook.remove()
        setattr(ffn.module, ffn.activation_attribute, activation)


def _alike(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    difference = (found.float() - expected.float()).abs().max()
    return bool(difference <= TOLERANCE[found.dtype] * expected.float().abs().max())


@contextmanager
def _calls(ffns: list[GatedFFN]) -> Iterator[dict[str, int]]:
    calls = {ffn.name: 0 for ffn in ffns}

    def count(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            calls[name] += 1

        return hook

    hooks = [ffn.module.register_forward_pre_hook(count(ffn.name)) for ffn in ffns]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


# ------------------------------------------------------------- modules other than gated FFNs


def _matrices(module: nn.Module, recurse: bool = True) -> bool:
    """Return whether the module has weight matrices other than embedding tables."""
    modules = [m for m in (module.modules() if recurse else [module]) if not isinstance(m, nn.Embedding)]
    return any(parameter.dim() >= 2 for m in modules for parameter in m.parameters(recurse=False))


def _others(model: Any, ffns: list[GatedFFN]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the outermost modules with weight matrices that neither are nor contain gated FFNs, except embeddings.

    The walk descends into lists and into the layers of a list: a layer without a gated FFN may have experts instead.

    Raises:
        UnsupportedArchitecture: a module that contains others has weight matrices of its own.
    """
    head = model.get_output_embeddings()
    modules = {ffn.module for ffn in ffns}  # not names: layers may share one

    def walk(prefix: str, module: nn.Module, layers: bool) -> Iterator[tuple[str, nn.Module]]:
        if prefix and _matrices(module, recurse=False):
            raise UnsupportedArchitecture(
                f"{prefix} ({type(module).__name__}) has weights in addition to its gated FFN"
            )
        for child_name, child in module.named_children():
            name = f"{prefix}.{child_name}" if prefix else child_name
            if child in modules or child is head or not _matrices(child):
                continue
            is_list = isinstance(child, (nn.ModuleList, nn.ModuleDict))
            if is_list or layers or any(ffn.name.startswith(f"{name}.") for ffn in ffns):
                yield from walk(name, child, is_list)
            else:
                yield name, child

    yield from walk("", model, False)


@contextmanager
def _judging(model: Any, ffns: list[GatedFFN]) -> Iterator[set[str]]:
    """Check each other module when it runs; yield the set of names of those that have not run yet."""
    others = dict(_others(model, ffns))
    unjudged = set(others)

    def judge(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
            if name in unjudged:
                unjudged.discard(name)  # first, since the check runs the module again
                if not _mixes_tokens(module, arguments, options, output):
                    raise UnsupportedArchitecture(
                        f"{name} ({type(module).__name__}) computes each token by itself, as an FFN does, and is "
                        "not a gated FFN: its activations would be neither replaced nor counted"
                    )

        return hook

    hooks = [module.register_forward_hook(judge(name), with_kwargs=True) for name, module in others.items()]
    try:
        yield unjudged
    finally:
        for hook in hooks:
            hook.remove()


def _mixes_tokens(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> bool:
    """Return whether the last token's output depends on the other tokens' inputs."""
    values = [*arguments, *options.values()]
    index = next((i for i, value in enumerate(values) if _has_tokens(value)), None)
    before = _first_with_tokens(output)
    if index is None or before is None:
        return False
    values[index] = _with_other_tokens(values[index])
    count = len(arguments)
    after = _first_with_tokens(module(*values[:count], **dict(zip(options, values[count:], strict=True))))
    return after is not None and not _alike(after[..., -1, :], before[..., -1, :])


def _has_tokens(value: Any) -> bool:
    return (
        isinstance(value, Tensor) and value.is_floating_point() and 2 <= value.dim() <= 3 and value.shape[-2] == TOKENS
    )


def _first_with_tokens(output: Any) -> Tensor | None:
    return next((value for value in (output if isinstance(output, tuple) else (output,)) if _has_tokens(value)), None)


def _with_other_tokens(x: Tensor) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x.device, x.dtype)
    changed = noise * x.float().square().mean().sqrt().to(x.dtype)
    changed[..., -1, :] = x[..., -1, :]
    return changed
