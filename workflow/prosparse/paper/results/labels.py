"""Names of our models for readers: ``small, ProSparse (progressive), FATReLU 0.05``"""

from __future__ import annotations

import re
from pathlib import Path

from prosparse.experiment.activation import Activation
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import start
from prosparse.experiment.model import PretrainedInit, RunInit
from prosparse.experiment.training_free import PERPLEXITY_COST, Method

ACTIVATIONS = {
    "silu": "SiLU", "relu": "ReLU", "relu2": "squared ReLU", "drelu": "dReLU", "shiftrelu": "shifted ReLU",
    "fatrelu": "FATReLU",
}  # fmt: skip

#: Lines of the frontier that thresholds on the original draw.
UNTRAINED: dict[Method, str] = {
    "cats": "CATS (no training)",
    "teal": "TEAL (no training)",
    "cett": "CETT (no training)",
}

#: The end of a GGUF file's name, which says how its weights are stored: ``SmolLM2-135M-Instruct.Q4_1``.
QUANTIZATION = re.compile(r"[.-](I?Q\d\w*|BF16|F16|F32)$", re.IGNORECASE)


UNREGULARIZED = {"silu": "dense, continued", "relu": "Vanilla ReLU", "shiftrelu": "Shifted ReLU"}


def label(experiment: Experiment, pair: str) -> str:
    """Return the model, the method of a pair, and its activation where that is not the run's own."""
    run, activation = experiment.pair(pair)
    name = run_label(experiment, run)
    return name if activation == experiment.runs[run].activation else f"{name}, {activation_label(activation)}"


def run_label(experiment: Experiment, run: str) -> str:
    """Return the model and method of a run; runs that would share a name also tell their steps, or their own name."""
    name = _name(experiment, run)
    same = [other for other in experiment.runs if _name(experiment, other) == name]
    if len(same) == 1:
        return name
    steps = [experiment.runs[other].stages[-1].until for other in same]
    own = experiment.runs[run].stages[-1].until
    return f"{name}, {own:,} steps" if steps.count(own) == 1 else f"{name} ({run})"


def activation_label(activation: Activation) -> str:
    name = ACTIVATIONS[activation.name]
    return name if activation.parameter is None else f"{name} {activation.parameter:g}"


def untrained_label(method: Method, target: float | None) -> str:
    """Return ``CATS, 50%`` or, without a target sparsity, ``CATS, perplexity +1%``."""
    return f"{method.upper()}, {f'perplexity +{PERPLEXITY_COST:.0%}' if target is None else f'{target:.0%}'}"


def _name(experiment: Experiment, run: str) -> str:
    method = _method(experiment, run)
    return f"{model_label(experiment, run)}, {method}" if method else model_label(experiment, run)


def model_label(experiment: Experiment, run: str) -> str:
    """Return the architecture, or the last part of the pretrained model's name."""
    _, init = start(experiment, run)
    if isinstance(init, PretrainedInit):
        return QUANTIZATION.sub("", Path(init.gguf_file).stem) if init.gguf_file else Path(init.pretrained).name
    return init.architecture


def _method(experiment: Experiment, run: str) -> str:
    chosen = experiment.runs[run]
    if chosen.label is not None:
        return chosen.label
    if not isinstance(chosen.init, RunInit):
        return "original" if chosen.activation.name == "silu" else ""
    last = chosen.stages[-1]
    if any(stage.shape == "sine" for stage in chosen.stages):
        method = "ProSparse (progressive)"
    elif last.target_sparsity is not None:
        method = f"λ steered to {100 * last.target_sparsity:g}%"
    elif any(stage.shape == "linear" for stage in chosen.stages):
        method = f"linear λ up to {last.peak:g}"
    elif last.regularized:
        method = f"constant λ = {last.peak:g}"
    else:
        method = UNREGULARIZED.get(chosen.activation.name, f"{activation_label(chosen.activation)} in training")
    if last.regularized and chosen.activation.name != "relu":
        method = f"{activation_label(chosen.activation)}, {method}"
    if chosen.distillation is not None:
        method += ", distilled"
    before = chosen.init.run
    if not isinstance(experiment.runs[before].init, RunInit):
        return method
    stage = "" if chosen.init.stage is None else f", stage {chosen.init.stage}"
    return f"{method}, after {_method(experiment, before)}{stage}"
