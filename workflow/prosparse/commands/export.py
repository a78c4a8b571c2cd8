"""``prosparse export``: GGUF files for llama.cpp and PowerInfer."""

from __future__ import annotations

from pathlib import Path

import torch

from prosparse.commands.inputs import check_output_file
from prosparse.experiment.activation import Activation
from prosparse.inference.export import export_llama_cpp, export_powerinfer
from prosparse.inference.predictors import load as load_predictors
from prosparse.models.load import load
from prosparse.models.third_party import tokenizer as open_tokenizer
from prosparse.system.errors import ConfigError


def export_checkpoint(
    checkpoint: str,
    activation: Activation | None,
    engine: str,
    predictors: Path | None,
    decision_threshold: float,
    dtype: str | None,
    output: Path,
) -> None:
    """Write a GGUF file for an engine, and report what share of the weights its dtype rounds.

    Args:
        dtype: of the matrices for llama.cpp; None keeps the checkpoint's. PowerInfer always uses float16.

    Raises:
        UserError: the engine would compute this model incorrectly.
    """
    check_output_file(output)
    if engine != "llama.cpp" and dtype not in (None, "float16"):
        raise ConfigError(f"--dtype {dtype}: PowerInfer's sparse operators take float16 only")
    if engine != "llama.cpp" and predictors is None:
        raise ConfigError("PowerInfer needs --predictors: `prosparse predictors` trains them")
    model = load(checkpoint, activation, dtype="auto")
    tokenizer = open_tokenizer(checkpoint)
    if engine == "llama.cpp":
        rounded = export_llama_cpp(model, tokenizer, output, getattr(torch, dtype) if dtype else model.dtype)
    else:
        assert predictors is not None
        rounded = export_powerinfer(model, load_predictors(predictors), decision_threshold, tokenizer, output)
    lossless = "every value as it was saved" if rounded == 0 else f"{100 * rounded:.2g} % of the values rounded"
    print(f"{output}: {checkpoint} for {engine}, {lossless}")
