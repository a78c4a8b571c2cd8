"""``prosparse bench``: how fast a checkpoint decodes here, next to other engines."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prosparse.commands.opening import open_model, open_tokenizer, precisions
from prosparse.experiment.activation import Activation
from prosparse.experiment.decoding import Decoding, Engines, PowerInfer
from prosparse.experiment.timings import DecodingSpecification
from prosparse.inference.gguf_model import is_gguf
from prosparse.inference.predictors import load as load_predictors
from prosparse.inference.text import encode
from prosparse.measure import bandwidth, llamacpp
from prosparse.measure.decoding import Model, export_for_engines, measure_engines, measure_modes
from prosparse.models.load import own_activation
from prosparse.plan.text import aligned, gigabytes
from prosparse.system.errors import ConfigError, EngineMissing, UserError
from prosparse.system.provenance import processor

NAMES = {"torch": "transformers"}
HEADER = ["", "tokens/s", "quartiles", "speedup", "first token", "bound", "reached", "as dense"]


@dataclass(frozen=True)
class Bench:
    """What to time, and on which prompts."""

    checkpoint: str
    prompts: list[str]
    activation: Activation | None  # None: the checkpoint's own
    predictors: Path | None
    decision_threshold: float
    powerinfer: Path | None  # its program
    new_tokens: int
    precisions: list[str]  # of weights: dtypes, q8_0 or q4_0; none: bfloat16, or a GGUF file's own


def print_bench(wanted: Bench) -> None:
    """Print a table of tokens per second, with what memory bandwidth would allow and whether the tokens are equal.

    Raises:
        UserError: the model cannot be decoded by the operators, or a prompt is too short.
    """
    if wanted.powerinfer is not None and is_gguf(wanted.checkpoint):
        raise ConfigError("--powerinfer needs a checkpoint to write its file from, not a GGUF file")
    if wanted.powerinfer is not None and wanted.predictors is None:
        raise ConfigError(
            "--powerinfer needs --predictors: PowerInfer skips the neurons that they predict to be inactive"
        )
    tokenizer = open_tokenizer(wanted.checkpoint)
    prompts = [encode(tokenizer, prompt) for prompt in wanted.prompts]
    for prompt, ids in zip(wanted.prompts, prompts, strict=True):
        if len(ids) < 2:
            raise ConfigError(f"the prompt {prompt!r} has {len(ids)} tokens: at least two are needed")
    bandwidth.probe()  # before any model is read: it needs the native operators
    for precision in precisions(wanted.checkpoint, wanted.precisions):
        print("\n".join(["", *_table(wanted, precision, prompts)]), flush=True)


def _table(wanted: Bench, precision: str, prompts: list[list[int]]) -> list[str]:
    """Lines about one precision."""
    _reset_peak_memory()
    missing = dict[str, str]()
    model, rounding = open_model(wanted.checkpoint, wanted.activation, precision)
    specification = _specification(wanted, missing)
    predictors = load_predictors(wanted.predictors) if wanted.predictors is not None else None
    activation = str(own_activation(model.config))
    with tempfile.TemporaryDirectory(prefix="prosparse-bench-") as directory:
        if is_gguf(wanted.checkpoint):
            link = Path(directory) / "llama.gguf"  # which is deleted once it has been timed
            link.symlink_to(Path(wanted.checkpoint).resolve())
            files: dict[str, Path | UserError] = {"llama.cpp": link}
        else:
            files = export_for_engines(model, predictors or [], specification, precision, Path(directory))
        given = Model(f"{wanted.checkpoint}, {precision}", model, predictors, rounding)
        found = measure_modes(given, prompts, specification, files)
        peak = _peak_memory()
        del given, model, predictors
        gc.collect()
        measure_engines(found, files, prompts, specification)
    timed = found["engines"]
    others = {name: {"missing": missing[name]} if name in missing else timed[name] for name in _wanted_engines(wanted)}
    sizes = f"{gigabytes(found['weight_bytes'])} GB of weights, at most {gigabytes(peak)} GB in memory"
    return [f"{wanted.checkpoint} with {activation}, {precision}: {sizes}", *_lines(wanted, activation, found, others)]


def _reset_peak_memory() -> None:
    """Forget the peak so far, which an earlier precision may have set; macOS cannot."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_bytes(b"5")


def _peak_memory() -> int:
    """Return the most memory that this process has held, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _wanted_engines(wanted: Bench) -> list[str]:
    return ["llama.cpp"] if wanted.powerinfer is None else ["llama.cpp", "powerinfer"]


def _specification(wanted: Bench, missing: dict[str, str]) -> DecodingSpecification:
    """Of the engines that are installed; adds the reason to ``missing`` for each of the others."""
    try:
        llamacpp.interpreter()
    except EngineMissing as error:
        missing["llama.cpp"] = str(error)
    powerinfer = PowerInfer(source=str(wanted.powerinfer)) if wanted.powerinfer is not None else None
    return DecodingSpecification(
        settings=Decoding(
            prompts=len(wanted.prompts),
            new_tokens=wanted.new_tokens,
            engines=Engines(llama_cpp="llama.cpp" not in missing, powerinfer=powerinfer),
        ),
        decision_threshold=wanted.decision_threshold,
        powerinfer=wanted.powerinfer,
        models=[],
    )


def _lines(wanted: Bench, activation: str, found: dict[str, Any], others: dict[str, dict[str, Any]]) -> list[str]:
    modes, bandwidth = found["modes"], found["bandwidth"]["median"]
    rows = [_row(name, mode, found["same_tokens_as_dense"], modes["dense"]) for name, mode in modes.items()]
    rows += [_row(name, each, {}, modes["dense"]) for name, each in others.items() if "missing" not in each]
    lines = [
        f"{processor()}; {torch.get_num_threads()} threads, reading {bandwidth:.1f} GB/s",
        f"{len(wanted.prompts)} prompts, {wanted.new_tokens} new tokens each",
        "",
        *aligned(HEADER, rows),
        "",
    ]
    if "exact" in modes:
        lines.append(_skipped(found["sparsity"], found["gate_sparsity"]))
    else:
        lines.append(f"{activation} has no zeros, so nothing can be skipped. `prosparse train` makes a model sparse.")
    if "llama.cpp" in others and "missing" not in others["llama.cpp"] and activation != "silu":
        lines.append(f"llama.cpp reads the same weights, but computes silu instead of {activation}.")
    lines += [f"{name} is not timed: {each['missing']}" for name, each in others.items() if "missing" in each]
    return lines


def _skipped(sparsity: float, gate_sparsity: float) -> str:
    if sparsity == gate_sparsity:
        return f"{100 * sparsity:.1f}% of the neurons are inactive and skipped in exact mode."
    return (
        f"{100 * sparsity:.1f}% of the neurons are inactive: exact mode skips their rows of W₂, and the rows of W₁ of "
        f"the {100 * gate_sparsity:.1f}% whose gate is zero."
    )


def _row(name: str, timed: dict[str, Any], same: dict[str, float], dense: dict[str, Any]) -> list[str]:
    rate = timed["tokens_per_second"]
    speedup = rate["median"] / dense["tokens_per_second"]["median"]
    bound = timed.get("bound_milliseconds")
    return [
        NAMES.get(name, name),
        f"{rate['median']:.2f}",
        f"{rate['lower_quartile']:.2f} to {rate['upper_quartile']:.2f}",
        f"{speedup:.2f}x",
        f"{timed['first_token_milliseconds']['median']:.0f} ms",
        f"{1000 / bound['median']:.2f}" if bound else "",
        f"{100 * timed['share_of_bound']['median']:.0f}%" if bound else "",
        f"{100 * same[name]:.0f}%" if name in same else "",
    ]
