"""``prosparse export``: GGUF files for llama.cpp and PowerInfer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prosparse.commands.inputs import check_output_file
from prosparse.experiment.activation import Activation
from prosparse.inference.export import export_llama_cpp, export_powerinfer
from prosparse.inference.predictors import load as load_predictors
from prosparse.models.load import load
from prosparse.models.third_party import tokenizer as open_tokenizer
from prosparse.operators.quantized import weight_dtype
from prosparse.system.errors import ConfigError


@dataclass(frozen=True)
class Export:
    """What to export, and for which engine."""

    checkpoint: str
    engine: str  # llama.cpp or powerinfer
    output: Path
    activation: Activation | None = None  # None: the checkpoint's own
    predictors: Path | None = None  # for PowerInfer
    decision_threshold: float = 0.5
    precision: str | None = None  # of matrices; None: the checkpoint's for llama.cpp, float16 for PowerInfer


def export_checkpoint(wanted: Export) -> None:
    """Write a GGUF file for an engine, and report what share of the weights its dtype rounds.

    Raises:
        UserError: the engine would compute this model incorrectly.
    """
    check_output_file(wanted.output)
    for_llama_cpp = wanted.engine == "llama.cpp"
    if not for_llama_cpp and wanted.precision not in (None, "float16", "q4_0"):
        raise ConfigError(f"--precision {wanted.precision}: PowerInfer's sparse operators take float16 and q4_0 only")
    if not for_llama_cpp and wanted.predictors is None:
        raise ConfigError("PowerInfer needs --predictors: `prosparse predictors` trains them")
    model = load(wanted.checkpoint, wanted.activation, dtype="auto")
    tokenizer = open_tokenizer(wanted.checkpoint)
    if for_llama_cpp:
        dtype = weight_dtype(wanted.precision) if wanted.precision else model.dtype
        rounded = export_llama_cpp(model, tokenizer, wanted.output, dtype)
    else:
        assert wanted.predictors is not None
        predictors = load_predictors(wanted.predictors)
        dtype = weight_dtype(wanted.precision or "float16")
        rounded = export_powerinfer(model, predictors, wanted.decision_threshold, tokenizer, wanted.output, dtype)
    lossless = "every value as it was saved" if rounded == 0 else f"{100 * rounded:.3g}% of the values rounded"
    print(f"{wanted.output}: {wanted.checkpoint} for {wanted.engine}, {lossless}")
