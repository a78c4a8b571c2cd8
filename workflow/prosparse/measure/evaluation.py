"""Evaluate a checkpoint on benchmarks and write its scores; resumes when interrupted."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import prosparse
from prosparse.experiment.activation import Activation
from prosparse.experiment.measurement import Benchmarks
from prosparse.experiment.section import Precision
from prosparse.inference.predictors import load as load_predictors
from prosparse.inference.predictors import predicting
from prosparse.measure import benchmark_rows
from prosparse.measure.benchmarks import evaluate, unanswerable
from prosparse.measure.finished import FinishedTasks
from prosparse.measure.score_table import score_table
from prosparse.models.load import load_to_measure, own_activation
from prosparse.models.third_party import configuration, tokenizer
from prosparse.system import devices
from prosparse.system.errors import ConfigError
from prosparse.system.files import write_json
from prosparse.system.provenance import record


@dataclass(frozen=True)
class Evaluation:
    """What to evaluate and how; ``names`` go into the output."""

    checkpoint: Path | str
    benchmarks: Benchmarks
    output: Path
    rows: Path | None = None  # directory; None: download from the hub
    activation: Activation | None = None  # None: the checkpoint's own
    precision: Precision = "float32"
    predictors: Path | None = None  # compute only the neurons that these predict active
    decision_threshold: float = 0.5
    complete: bool = False  # fail if a benchmark cannot be answered
    names: Mapping[str, Any] = field(default_factory=dict)


def run(wanted: Evaluation) -> None:
    """Write the scores to ``wanted.output``.

    Runs cheap checks first. Finished benchmarks' scores are kept next to the output until it is written, so that a call
    after an interruption answers only the others.

    Raises:
        ConfigError: a missing checkpoint or tokenizer, unknown benchmarks, or benchmarks that cannot be answered.
    """
    configuration(wanted.checkpoint)
    encoder = tokenizer(wanted.checkpoint)
    if wanted.output.is_dir():
        raise ConfigError(f"{wanted.output} is a directory; the scores are one JSON file")
    if wanted.rows is not None:
        return _run(wanted, encoder, wanted.rows)
    with tempfile.TemporaryDirectory() as temporary:
        benchmark_rows.extract(wanted.benchmarks, {}, Path(temporary))
        return _run(wanted, encoder, Path(temporary))


def _run(wanted: Evaluation, encoder: PreTrainedTokenizerBase, rows: Path) -> None:
    started = time.time()
    missing = unanswerable(wanted.benchmarks, rows)
    if wanted.complete and missing:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise ConfigError(f"cannot be answered: {reasons}; leave it out to answer the others")
    predictors = [] if wanted.predictors is None else load_predictors(wanted.predictors)
    model = load_to_measure(wanted.checkpoint, wanted.activation, wanted.precision)
    finished = FinishedTasks(
        wanted.output.with_name(f".{wanted.output.stem}.finished"), _origin(wanted, model, encoder)
    )
    predicted = predicting(model, [each.to(model.device) for each in predictors], wanted.decision_threshold)
    with predicted if predictors else nullcontext():
        scores = evaluate(model, encoder, wanted.benchmarks, rows, finished)
    settings = {**wanted.benchmarks.model_dump(), "precision": wanted.precision}
    provenance = record(settings, started, devices.name(model.device))
    activation = str(own_activation(model.config))
    write_json(wanted.output, {**wanted.names, "activation": activation, **scores, "provenance": provenance})
    finished.clear()
    print(f"\n{score_table(scores['benchmarks'])}", flush=True)


def _origin(wanted: Evaluation, model: PreTrainedModel, encoder: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Everything that determines the scores, by content."""
    predicted = None
    if wanted.predictors is not None:
        files = sorted(wanted.predictors.glob("model_*.pt"))
        predicted = [_sha256(files, wanted.predictors), wanted.decision_threshold]
    package = Path(prosparse.__file__).parent
    code = sorted(path for suffix in ("py", "yaml", "cpp", "h") for path in package.rglob(f"*.{suffix}"))
    config = model.config.to_dict()
    config.pop("_name_or_path", None)
    return {
        "weights": _weights(model),
        "configuration": repr(sorted(config.items())),
        "tokenizer": [
            encoder.backend_tokenizer.to_str(),
            encoder.special_tokens_map,
            encoder.init_kwargs.get("add_bos_token"),
        ],
        "activation": str(own_activation(model.config)),
        "precision": wanted.precision,
        "predictors": predicted,
        "device": devices.name(model.device),
        "code": _sha256(code, package),
        "packages": {name: version(name) for name in ("torch", "transformers", "tokenizers", "lm_eval")},
    }


def _weights(model: PreTrainedModel) -> str:
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _sha256(files: list[Path], root: Path) -> str:
    found = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        found.update(f"{file.relative_to(root)} {len(content)}\n".encode() + content)
    return found.hexdigest()
