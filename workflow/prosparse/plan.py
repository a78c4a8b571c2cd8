"""What an experiment's jobs cost, by arithmetic from its config: tokens, FLOPs, memory, disk.

Nothing here is measured and nothing is fetched. What cannot be known before it is fetched (the shape of a
model that no config describes) is None, never guessed.

**FLOPs** are model FLOPs (``published/shapes.py``). Attention counts all T keys of each query, as PaLM does; a kernel
that skips the causal half computes less and reaches a higher MFU by this count. Activation checkpointing computes a
forward pass of the layers again: ``recomputed``, which MFU leaves out by definition.

**Memory** of a GPU that trains: float32 weights, gradients and two AdamW moments, 16 bytes a parameter, shared by all
GPUs where ``training.fsdp``; what the backward pass keeps (``activation_bytes``); the logits of the fused loss.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from prosparse import runs
from prosparse.config import (
    Architecture,
    Experiment,
    HubSource,
    Init,
    PretrainedInit,
    ScratchInit,
    Training,
    is_local,
)
from prosparse.measure.token_memory import TokenMemory
from prosparse.published.shapes import DecoderShape

WEIGHT_BYTES = 4  # float32
STATE_BYTES = 4 * WEIGHT_BYTES  # and gradient and two moments
CHECKPOINT_BYTES = 3 * WEIGHT_BYTES  # and two moments
TOKEN_BYTES = 4  # int32
RELEASED_BYTES = 2  # a weight of a released model
CHARACTERS_A_TOKEN = 4  # about, of English and of programs, and about a byte each


# -------------------------------------------------------------------------------------- shapes


def of_architecture(architecture: Architecture, vocabulary_size: int | None = None) -> DecoderShape:
    """The shape that a config describes; ``vocabulary_size`` is used where it says none."""
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
    """What a token of a micro batch leaves in one layer for the backward pass.

    The residual stream and the norms stay in float32. Kept are: of two norms their input and what they
    normalised; the inputs of the projections; queries, keys (repeated for every head), values and what attention
    gives; the gate before and after its activation, up, and their product. Eager attention also keeps each
    head's probabilities over the context, in float32 and as the product takes them.
    """
    size = 2 if training.precision == "bfloat16" else 4
    norms = 4 * 4 * shape.hidden_size
    inputs = 2 * size * shape.hidden_size
    attention = 4 * size * shape.attention_width
    ffn = 4 * size * shape.intermediate_size
    eager = (4 + size) * shape.heads * context if training.attention == "eager" else 0
    return norms + inputs + attention + ffn + eager


def decoder(experiment: Experiment, run: str, directory: Path) -> DecoderShape | None:
    """The shape of a run's model: from the config, else from a config.json on this machine, else None.

    Args:
        directory: ``results/{experiment}``.
    """
    run, init = runs.start(experiment, run)
    if init.architecture is not None:
        architecture = experiment.architectures[init.architecture]
        # a trained tokenizer's size is that of a model that begins with it, not of one that is fetched
        tokenizer = experiment.data.tokenizers[experiment.tokenizer(run)]
        own = tokenizer.vocabulary_size if isinstance(init, ScratchInit) else None
        return of_architecture(architecture, own)
    finished = checkpoint_directory(experiment, run, 0, experiment.seeds[0])
    folders = [directory / finished] if init.gguf_file else [Path(init.pretrained), directory / finished]
    return next(filter(None, (DecoderShape.read(folder / "config.json") for folder in folders)), None)


# ---------------------------------------------------------------------------------------- jobs


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU, or of one process without GPUs."""

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
        """Of a full batch."""
        return self.batch_tokens * self.token.kv_cache


@dataclass(frozen=True)
class Job:
    """What one output costs. None is unknown; ``output`` lies below ``results/{experiment}``."""

    target: str  # the line of the plan that it belongs to
    name: str
    output: str
    tokens: int | None = 0  # that pass through a model
    flops: int | None = 0
    recomputed: int | None = 0
    disk: int | None = 0  # bytes it leaves
    stored: int | None = 0  # tokens among them
    partial: bool = False  # tokens and FLOPs leave out something unknown
    memory: Memory | None = None
    answering: AnsweringMemory | None = None  # of a model that answers benchmarks
    timed: bool = False  # its time is what it measures, and no count of FLOPs
    parameters: int | None = None  # of the model that it trains
    run: str = ""
    stage: int | None = None
    corpus: str = ""  # that it makes tokens of
    done: bool = False


def checkpoint_directory(experiment: Experiment, run: str, stage: int | None, seed: int) -> str:
    return f"checkpoints/{runs.checkpoint(experiment, run, stage).format(seed=seed)}"


def stages_behind(experiment: Experiment, checkpoints: Iterable[tuple[str, int | None]]) -> list[tuple[str, int]]:
    """Every (owner, stage) that must be trained for (run, stage), each once, teachers included; in training order."""
    found: dict[tuple[str, int], None] = {}

    def add(run: str, stage: int | None) -> None:
        for key in list(runs.needed(experiment, run, stage))[::-1]:
            if key not in found:
                if (distillation := experiment.runs[key[0]].distillation) is not None:
                    add(distillation.teacher, None)
                found[key] = None

    for run, stage in checkpoints:
        add(run, stage)
    return list(found)


def stage_job(experiment: Experiment, run: str, stage: int, seed: int, directory: Path) -> Job:
    """Training of one stage under its owner's name."""
    chosen, context = experiment.runs[run], experiment.data.context_length
    training = chosen.training
    steps = chosen.stages[stage].until - (chosen.stages[stage - 1].until if stage else 0)
    tokens = steps * training.batch_size * context
    shape = decoder(experiment, run, directory)
    flops = recomputed = disk = parameters = memory = None
    if tokens == 0:
        flops = recomputed = 0
    if shape is not None and shape.parameters is not None:
        parameters = shape.parameters
        disk = (CHECKPOINT_BYTES if tokens else start_bytes(chosen.init)) * parameters
        flops = tokens * (shape.training_flops(context) or 0)
        recomputed = tokens * shape.recomputed_flops(context) if training.activation_checkpointing else 0
        memory = training_memory(experiment, training, shape) if tokens else None
    if tokens and chosen.distillation is not None and flops is not None:
        teacher = decoder(experiment, chosen.distillation.teacher, directory)
        forward = None if teacher is None else teacher.forward_flops(context)
        flops = None if forward is None else flops + tokens * forward
    return Job(
        target=run, name=f"{run} stage {stage}, seed {seed}",
        output=f"{checkpoint_directory(experiment, run, stage, seed)}/provenance.json",
        tokens=tokens, flops=flops, recomputed=recomputed, disk=disk, memory=memory, parameters=parameters, run=run,
        stage=stage,
    )  # fmt: skip


def start_bytes(init: Init) -> int:
    """Of a weight of a start that is not trained: it is opened and saved as it was released, a GGUF's as float32."""
    return RELEASED_BYTES if isinstance(init, PretrainedInit) and init.gguf_file is None else WEIGHT_BYTES


def training_memory(experiment: Experiment, training: Training, shape: DecoderShape) -> Memory:
    """Of one GPU; without ``hardware``, of one process that trains alone.

    Not counted: a distillation's teacher, the bfloat16 copies of weights in use, communication buffers, and
    what an allocator wastes.
    """
    assert shape.parameters is not None
    assert shape.vocabulary_size is not None
    context = experiment.data.context_length
    gpus = experiment.hardware.gpus if experiment.hardware is not None and training.fsdp else 1
    tokens = training.micro_batch_size * context
    layer = activation_bytes(shape, training, context)
    # with checkpointing each layer keeps its input, and one layer at a time is whole
    kept = shape.layers * 4 * shape.hidden_size + layer if training.activation_checkpointing else shape.layers * layer
    size = 2 if training.precision == "bfloat16" else 4
    return Memory(
        state=STATE_BYTES * shape.parameters / gpus,
        activations=tokens * kept,
        logits=tokens * size * shape.vocabulary_size,
    )


def forward_flops(experiment: Experiment, run: str, tokens: int, directory: Path) -> int | None:
    """Of a forward pass over so many tokens, in rows of the context's length."""
    shape = decoder(experiment, run, directory)
    each = None if shape is None else shape.forward_flops(experiment.data.context_length)
    return None if each is None else tokens * each


def sparsity_job(experiment: Experiment, run: str, seed: int, output: str, directory: Path) -> Job:
    data = experiment.data
    rows = data.heldout_sequences * len(data.corpora) * len(runs.measured_activations(experiment, run))
    tokens = rows * data.context_length
    flops = forward_flops(experiment, run, tokens, directory)
    return Job("sparsity", f"{run}, seed {seed}", output, tokens, flops, run=run)


def benchmarks_job(
    experiment: Experiment,
    target: str,
    pair: tuple[str, str],
    seed: int,
    output: str,
    requests: int,
    partial: bool,
    directory: Path,
) -> Job:
    """At most: every request fills the context."""
    tokens = requests * experiment.data.context_length
    flops = forward_flops(experiment, pair[0], tokens, directory)
    name = f"{pair[0]}@{pair[1]}, seed {seed}"
    answering = answering_memory(experiment, pair[0], directory)
    return Job(target, name, output, tokens, flops, run=pair[0], partial=partial, answering=answering)


def answering_memory(experiment: Experiment, run: str, directory: Path) -> AnsweringMemory | None:
    """As the evaluation will take it: fewer tokens per batch where the device's memory does not hold as many."""
    shape, hardware = decoder(experiment, run, directory), experiment.hardware
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


def predictors_job(experiment: Experiment, pair: tuple[str, str], seed: int, output: str, directory: Path) -> Job:
    """At most: every epoch runs. A kind of predictor multiplies ``rank (d + d_ff)`` weights a layer, 6 FLOPs each."""
    settings = experiment.predictors
    assert settings is not None
    length = experiment.data.context_length
    tokens = settings.epochs * math.ceil(settings.tokens / length) * length
    flops = forward_flops(experiment, pair[0], tokens, directory)
    shape, disk = decoder(experiment, pair[0], directory), None
    if shape is not None:
        weights = shape.predictors(settings.rank)
        trained = sum(kind != "svd" for kind in settings.kinds)
        flops = None if flops is None else flops + 6 * trained * weights * tokens
        disk = len(settings.kinds) * WEIGHT_BYTES * weights
    return Job("predictors", f"{pair[0]}@{pair[1]}, seed {seed}", output, tokens, flops, disk=disk, run=pair[0])


def prediction_job(experiment: Experiment, pair: tuple[str, str], seed: int, output: str, directory: Path) -> Job:
    """One pass without and one with each kind of predictor; those of its sweep of thresholds are left out."""
    assert experiment.predictors is not None
    data = experiment.data
    passes = 1 + len(experiment.predictors.kinds)
    rows = passes * data.heldout_sequences * len(data.corpora)
    tokens = rows * data.context_length
    flops = forward_flops(experiment, pair[0], tokens, directory)
    return Job("prediction", f"{pair[0]}@{pair[1]}, seed {seed}", output, tokens, flops, run=pair[0])


def token_jobs(experiment: Experiment, trained: Iterable[tuple[str, int]], directory: Path) -> list[Job]:
    """Each corpus under each tokenizer of the stages: its documents, and their tokens.

    A corpus is read up to its ``character_limit``; without one its size is unknown until it is read.
    """
    data, found = experiment.data, []
    tokenizers = list(dict.fromkeys(experiment.tokenizer(run) for run, _ in trained))
    for tokenizer in tokenizers:
        for name, corpus in data.corpora.items():
            output = f"data/tokens/{tokenizer}/{name}/manifest.json"
            stored = disk = None
            if (manifest := directory / output).exists():
                stored = json.loads(manifest.read_text(encoding="utf-8"))["tokens"]
            elif corpus.character_limit is not None:
                stored = corpus.character_limit // CHARACTERS_A_TOKEN + data.heldout_sequences * data.context_length
            if stored is not None:
                # candidates and what is left of them, at most: compressed
                documents = 2 * CHARACTERS_A_TOKEN * stored if tokenizer == tokenizers[0] else 0
                disk = TOKEN_BYTES * stored + documents
            label = name if len(tokenizers) == 1 else f"{name} ({tokenizer})"
            found.append(Job("data", label, output, disk=disk, stored=stored, corpus=name))
    return found


def marked(jobs: Iterable[Job], directory: Path) -> list[Job]:
    """The jobs, with what exists marked as done."""
    return [replace(job, done=(directory / job.output).exists()) for job in jobs]


# -------------------------------------------------------------------------------------- totals


@dataclass(frozen=True)
class Total:
    """Sums over jobs; a sum is of what is known, and ``unknown`` names the sums that miss something."""

    jobs: int
    done: int
    tokens: int
    flops: int
    recomputed: int
    disk: int
    stored: int
    memory: float | None  # the largest
    unknown: frozenset[str]
    timed: bool  # of timings alone

    @classmethod
    def of(cls, jobs: Iterable[Job]) -> Total:
        listed = list(jobs)
        keys = ("tokens", "flops", "recomputed", "disk", "stored")
        sums = {key: sum(getattr(job, key) or 0 for job in listed) for key in keys}
        unknown = {key for key in keys if any(getattr(job, key) is None for job in listed)}
        if any(job.partial for job in listed):
            unknown |= {"tokens", "flops"}
        memories = [job.memory.total for job in listed if job.memory is not None]
        return cls(
            jobs=len(listed), done=sum(job.done for job in listed), **sums, memory=max(memories, default=None),
            unknown=frozenset(unknown), timed=bool(listed) and all(job.timed for job in listed),
        )  # fmt: skip


def gpu_hours(experiment: Experiment, flops: float) -> float | None:
    """At the stated utilization; None without ``hardware``."""
    hardware = experiment.hardware
    return None if hardware is None else flops / (hardware.teraflops * 1e12 * hardware.utilization) / 3600


def utilization(flops: float, gpus: int, teraflops: float, days: float) -> float:
    """MFU that a training time implies."""
    return flops / (gpus * teraflops * 1e12 * days * 86400)


# ------------------------------------------------------------------------------------ downloads


@dataclass(frozen=True)
class Remote:
    """Something that is fetched. ``gated`` where its terms are accepted.

    ``size`` in bytes, and of a data set in the characters that are read of it, of about a byte each.
    """

    kind: str  # model, tokenizer, data set, package, benchmark
    name: str
    revision: str | None
    size: int | None
    gated: str | None
    needed: bool  # by a job that is not done
    key: str  # of the config


def remotes(experiment: Experiment, jobs: Iterable[Job], directory: Path) -> list[Remote]:
    """What the jobs fetch, and whether one that is not done needs it."""
    listed, data = list(jobs), experiment.data
    waiting = {job.corpus for job in listed if job.corpus and not job.done}
    found: dict[tuple[str, str], Remote] = {}

    def add(remote: Remote) -> None:
        same = found.get((remote.kind, remote.name))
        found[remote.kind, remote.name] = replace(remote, needed=remote.needed or bool(same and same.needed))

    for job in listed:
        init = experiment.runs[job.run].init if job.stage == 0 else None
        if isinstance(init, PretrainedInit) and not is_local(init.pretrained):
            shape = decoder(experiment, job.run, directory)
            size = None if shape is None or shape.parameters is None else RELEASED_BYTES * shape.parameters
            key = f"runs.{job.run}.init"
            add(Remote("model", init.pretrained, init.revision, size, init.gated, not job.done, key))
    for own, tokenizer in data.tokenizers.items():
        if (name := tokenizer.pretrained) is not None and not is_local(name):
            gates = [remote.gated for remote in found.values() if remote.name == name]
            key = f"data.tokenizers.{own}"
            add(Remote("tokenizer", name, tokenizer.revision, None, next(iter(gates), None), bool(waiting), key))
    for name, corpus in data.corpora.items():
        if isinstance(source := corpus.source, HubSource) and not is_local(source.hub):
            key = f"data.corpora.{name}.source"
            size = corpus.character_limit
            add(Remote("data set", source.hub, source.revision, size, source.gated, name in waiting, key))
    for name, package in data.packages.items():
        add(Remote("package", name, package.version, None, None, bool(waiting), f"data.packages.{name}"))
    return list(found.values())
