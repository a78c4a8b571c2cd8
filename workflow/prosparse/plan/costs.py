"""Estimate what an experiment's jobs cost from its config: tokens, FLOPs, memory, disk.

Nothing is measured or fetched. A value that is unknown before a download (the shape of a model that no config
describes) is None, never a guess.

**FLOPs** are model FLOPs (``published/shapes.py``). Attention counts all T keys of each query, as PaLM does; a kernel
that skips the causal half computes less and so reaches a higher MFU by this count. Activation checkpointing repeats
the layers' forward pass: ``recomputed``, which MFU excludes by definition.

**Memory** of a training GPU: float32 weights, gradients and two AdamW moments (16 bytes per parameter, sharded over all
GPUs under ``training.fsdp``), plus activations kept for the backward pass (``activation_bytes``) and the logits of the
fused loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prosparse.experiment import lineage
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.experiment.model import Architecture, Init, PretrainedInit, ScratchInit
from prosparse.experiment.training import Training
from prosparse.measure.token_memory import TokenMemory
from prosparse.published.shapes import DecoderShape

WEIGHT_BYTES = 4  # float32


STATE_BYTES = 4 * WEIGHT_BYTES  # weight, gradient and two moments


CHECKPOINT_BYTES = 3 * WEIGHT_BYTES  # weight and two moments


RELEASED_BYTES = 2  # per weight of a released model


def of_architecture(architecture: Architecture, vocabulary_size: int | None = None) -> DecoderShape:
    """Return the shape that a config describes; ``vocabulary_size`` applies if the config gives none."""
    return DecoderShape(
        architecture.hidden_size,
        architecture.intermediate_size,
        architecture.layers,
        architecture.heads,
        architecture.kv_heads,
        architecture.hidden_size // architecture.heads,
        architecture.vocabulary_size or vocabulary_size,
        architecture.tied_embeddings,
    )


def activation_bytes(shape: DecoderShape, training: Training, context: int) -> int:
    """Return the bytes that one layer keeps per token for the backward pass.

    The residual stream and the norms stay in float32. A layer keeps the input and the normalized output of two norms;
    the inputs of the projections; queries, keys (repeated for every head), values and the attention output; the gate
    before and after its activation, up, and their product. Eager attention also keeps each head's probabilities over
    the context, both in float32 and in the dtype of the matrix product.
    """
    size = 2 if training.precision == "bfloat16" else 4
    norms = 4 * 4 * shape.hidden_size
    inputs = 2 * size * shape.hidden_size
    attention = 4 * size * shape.attention_width
    ffn = 4 * size * shape.intermediate_size
    eager = (4 + size) * shape.heads * context if training.attention == "eager" else 0
    return norms + inputs + attention + ffn + eager


def decoder(layout: Layout, run: str) -> DecoderShape | None:
    """Return the shape of a run's model: from the config, else from a config.json on this machine, else None."""
    experiment = layout.experiment
    run, init = lineage.start(experiment, run)
    if init.architecture is not None:
        architecture = experiment.architectures[init.architecture]
        # the size of a trained tokenizer applies only to models initialized with it, not to downloaded ones
        tokenizer = experiment.data.tokenizers[experiment.tokenizer(run)]
        own = tokenizer.vocabulary_size if isinstance(init, ScratchInit) else None
        return of_architecture(architecture, own)
    finished = layout.checkpoint(run, 0, experiment.seeds[0])
    folders = [finished] if init.gguf_file else [Path(init.pretrained), finished]
    return next(filter(None, (DecoderShape.read(folder / "config.json") for folder in folders)), None)


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU, or in one process without GPUs."""

    state: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        return self.state + self.activations + self.logits


@dataclass(frozen=True)
class AnsweringMemory:
    """Bytes on the device that answers benchmarks, with ``batch_tokens`` tokens per batch."""

    weights: int
    batch_tokens: int
    token: TokenMemory

    @property
    def kv_cache(self) -> int:
        """Bytes of the KV cache of a full batch."""
        return self.batch_tokens * self.token.kv_cache


def start_bytes(init: Init) -> int:
    """Return the bytes per weight of an untrained start, which is saved as released; a GGUF file's as float32."""
    return RELEASED_BYTES if isinstance(init, PretrainedInit) and init.gguf_file is None else WEIGHT_BYTES


def training_memory(experiment: Experiment, training: Training, shape: DecoderShape) -> Memory:
    """Return the training memory of one GPU; without ``hardware``, of a single training process.

    Excludes a distillation's teacher, bfloat16 copies of the weights in use, communication buffers and allocator
    overhead.
    """
    assert shape.parameters is not None
    assert shape.vocabulary_size is not None
    context = experiment.data.context_length
    gpus = experiment.hardware.gpus if experiment.hardware is not None and training.fsdp else 1
    tokens = training.micro_batch_size * context
    layer = activation_bytes(shape, training, context)
    # with checkpointing, every layer keeps its input, and one layer at a time all of its activations
    kept = shape.layers * 4 * shape.hidden_size + layer if training.activation_checkpointing else shape.layers * layer
    size = 2 if training.precision == "bfloat16" else 4
    return Memory(
        state=STATE_BYTES * shape.parameters / gpus,
        activations=tokens * kept,
        logits=tokens * size * shape.vocabulary_size,
    )


def answering_memory(layout: Layout, run: str) -> AnsweringMemory | None:
    """Return the memory that evaluation will use, with fewer tokens per batch if the device cannot hold as many."""
    experiment, shape = layout.experiment, decoder(layout, run)
    hardware = experiment.hardware
    if shape is None or shape.parameters is None or shape.vocabulary_size is None:
        return None
    size = 2 if experiment.precision == "bfloat16" else 4
    token = TokenMemory.of(
        layers=shape.layers,
        kv_width=shape.kv_heads * shape.head_dim,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        vocabulary_size=shape.vocabulary_size,
        size=size,
    )
    weights, tokens = size * shape.parameters, experiment.benchmarks.batch_tokens
    if hardware is not None:
        tokens = min(tokens, token.tokens(hardware.memory_gigabytes * 1e9 - weights))
    return AnsweringMemory(weights, tokens, token)


def forward_flops(layout: Layout, run: str, tokens: int) -> int | None:
    """Return the FLOPs of a forward pass over ``tokens`` tokens in rows of the context length."""
    shape = decoder(layout, run)
    each = None if shape is None else shape.forward_flops(layout.experiment.data.context_length)
    return None if each is None else tokens * each


def gpu_hours(experiment: Experiment, flops: float) -> float | None:
    """Convert FLOPs to GPU-hours at the stated utilization; None without ``hardware``."""
    hardware = experiment.hardware
    return None if hardware is None else flops / (hardware.teraflops * 1e12 * hardware.utilization) / 3600


def utilization(flops: float, gpus: int, teraflops: float, days: float) -> float:
    """Return the MFU that a training time implies."""
    return flops / (gpus * teraflops * 1e12 * days * 86400)
