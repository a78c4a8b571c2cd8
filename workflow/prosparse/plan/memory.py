"""Host memory that jobs need and this machine has, so that parallel jobs fit.

Estimates assume computation in host memory. With GPUs, a model only passes through it and needs less.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from prosparse.experiment.layout import Layout
from prosparse.experiment.training_free import CALIBRATION_TOKENS
from prosparse.plan import costs

#: A process that has imported torch, transformers and datasets, with everything it keeps besides the model.
PROCESS_BYTES = 750e6
#: Sequences that the sparsity and the prediction are measured on at once.
MEASURED_SEQUENCES = 16

#: Where Linux keeps the memory limit of a container or a Slurm job (cgroups v2 and v1).
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def machine_bytes() -> int | None:
    """Return the memory of this machine or container in bytes; None if the system does not say."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([present, *filter(None, map(_limit, LIMITS))])


def _limit(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no such cgroup, or "max"
        return None


def training_megabytes(layout: Layout, run: str) -> int:
    """Return the MB of a stage in one process: weights, gradients, AdamW, activations, logits, a teacher's weights."""
    experiment, shape = layout.experiment, costs.decoder(layout, run)
    chosen = experiment.runs[run]
    if shape is None or shape.parameters is None:
        return _megabytes(PROCESS_BYTES)
    if not chosen.stages[-1].until:  # not trained, only loaded and saved
        return _megabytes(PROCESS_BYTES + 2 * costs.start_bytes(chosen.init) * shape.parameters)
    needed = PROCESS_BYTES + costs.training_memory(experiment, chosen.training, shape).total
    if chosen.distillation is not None:
        needed += _weight_bytes(layout, chosen.distillation.teacher)
    return _megabytes(needed)


def benchmarks_megabytes(layout: Layout, run: str) -> int:
    """Return the MB of a batch of the longest prompts, with all logits and log-probabilities at once."""
    # a batch holds at least one prompt
    tokens = max(layout.experiment.benchmarks.batch_tokens, layout.experiment.data.context_length)
    return measuring_megabytes(layout, run, tokens, logits=2)


def measuring_megabytes(layout: Layout, run: str, tokens: int | None = None, logits: int = 1) -> int:
    """Return the MB of one forward pass of a run's checkpoint over ``tokens`` tokens (default: as for sparsity).

    Counts float32 weights and, per token, one layer's activations, the keys and values of all layers, and ``logits``
    vectors over the vocabulary.
    """
    experiment, shape = layout.experiment, costs.decoder(layout, run)
    if shape is None or shape.parameters is None or shape.vocabulary_size is None:
        return _megabytes(PROCESS_BYTES)
    tokens = tokens or MEASURED_SEQUENCES * experiment.data.context_length
    layer = costs.activation_bytes(shape, experiment.runs[run].training, experiment.data.context_length)
    cache = 2 * costs.WEIGHT_BYTES * shape.layers * shape.kv_heads * shape.head_dim
    head = logits * costs.WEIGHT_BYTES * shape.vocabulary_size
    return _megabytes(PROCESS_BYTES + costs.WEIGHT_BYTES * shape.parameters + tokens * (layer + cache + head))


def calibrating_megabytes(layout: Layout, run: str) -> int:
    """Return the MB of calibrating thresholds, in one forward pass, and of measuring the sparsity under them."""
    tokens = max(CALIBRATION_TOKENS, MEASURED_SEQUENCES * layout.experiment.data.context_length)
    return measuring_megabytes(layout, run, tokens)


def _weight_bytes(layout: Layout, run: str) -> float:
    shape = costs.decoder(layout, run)
    return costs.WEIGHT_BYTES * (shape.parameters or 0) if shape is not None else 0


def _megabytes(count: float) -> int:
    return math.ceil(count / 1e6)
