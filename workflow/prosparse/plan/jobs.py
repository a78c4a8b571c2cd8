"""The jobs of an experiment and what each of them costs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from prosparse.experiment import lineage
from prosparse.experiment.experiment import Experiment
from prosparse.plan.costs import (
    CHECKPOINT_BYTES,
    WEIGHT_BYTES,
    AnsweringMemory,
    Memory,
    answering_memory,
    checkpoint_directory,
    decoder,
    forward_flops,
    start_bytes,
    training_memory,
)

TOKEN_BYTES = 4  # int32


CHARACTERS_A_TOKEN = 4  # roughly, in English and in code; a character is about one byte


@dataclass(frozen=True)
class Job:
    """What one output costs. None means unknown; ``output`` is relative to ``results/{experiment}``."""

    target: str  # the plan's row that it belongs to
    name: str
    output: str
    tokens: int | None = 0  # that pass through a model
    flops: int | None = 0
    recomputed: int | None = 0
    disk: int | None = 0  # bytes that it leaves
    stored: int | None = 0  # tokens among those bytes
    partial: bool = False  # tokens and FLOPs exclude something unknown
    memory: Memory | None = None
    answering: AnsweringMemory | None = None  # of a model that answers benchmarks
    timed: bool = False  # it measures time, so FLOPs do not apply
    parameters: int | None = None  # of the model that it trains
    run: str = ""
    stage: int | None = None
    corpus: str = ""  # that it tokenizes
    done: bool = False


def stages_behind(experiment: Experiment, checkpoints: Iterable[tuple[str, int | None]]) -> list[tuple[str, int]]:
    """Return every (owner, stage) that the checkpoints need, once each, teachers included, in training order."""
    found: dict[tuple[str, int], None] = {}

    def add(run: str, stage: int | None) -> None:
        for key in list(lineage.needed(experiment, run, stage))[::-1]:
            if key not in found:
                if (distillation := experiment.runs[key[0]].distillation) is not None:
                    add(distillation.teacher, None)
                found[key] = None

    for run, stage in checkpoints:
        add(run, stage)
    return list(found)


def stage_job(experiment: Experiment, run: str, stage: int, seed: int, directory: Path) -> Job:
    """Return the job that trains one stage, under its owner's name."""
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


def sparsity_job(experiment: Experiment, run: str, seed: int, output: str, directory: Path) -> Job:
    data = experiment.data
    rows = data.heldout_sequences * len(data.corpora) * len(lineage.measured_activations(experiment, run))
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
    """Return an upper bound: every request fills the context."""
    tokens = requests * experiment.data.context_length
    flops = forward_flops(experiment, pair[0], tokens, directory)
    name = f"{pair[0]}@{pair[1]}, seed {seed}"
    answering = answering_memory(experiment, pair[0], directory)
    return Job(target, name, output, tokens, flops, run=pair[0], partial=partial, answering=answering)


def predictors_job(experiment: Experiment, pair: tuple[str, str], seed: int, output: str, directory: Path) -> Job:
    """Return an upper bound: all epochs run. A trained kind has ``rank (d + d_ff)`` weights per layer, 6 FLOPs each."""
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
    """Count one pass without and one with each kind of predictor; exclude the passes of the threshold sweep."""
    assert experiment.predictors is not None
    data = experiment.data
    passes = 1 + len(experiment.predictors.kinds)
    rows = passes * data.heldout_sequences * len(data.corpora)
    tokens = rows * data.context_length
    flops = forward_flops(experiment, pair[0], tokens, directory)
    return Job("prediction", f"{pair[0]}@{pair[1]}, seed {seed}", output, tokens, flops, run=pair[0])


def token_jobs(experiment: Experiment, trained: Iterable[tuple[str, int]], directory: Path) -> list[Job]:
    """Return one job per corpus and tokenizer of the stages, for the documents and their tokens.

    A corpus is read up to its ``character_limit``; without one, its size is unknown until it is read.
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
                # an upper bound: candidates and the documents kept of them, both compressed
                documents = 2 * CHARACTERS_A_TOKEN * stored if tokenizer == tokenizers[0] else 0
                disk = TOKEN_BYTES * stored + documents
            label = name if len(tokenizers) == 1 else f"{name} ({tokenizer})"
            found.append(Job("data", label, output, disk=disk, stored=stored, corpus=name))
    return found


def marked(jobs: Iterable[Job], directory: Path) -> list[Job]:
    """Mark the jobs whose output exists as done."""
    return [replace(job, done=(directory / job.output).exists()) for job in jobs]


@dataclass(frozen=True)
class Total:
    """Sums over the known values of jobs; ``unknown`` names the sums that miss a value."""

    jobs: int
    done: int
    tokens: int
    flops: int
    recomputed: int
    disk: int
    stored: int
    memory: float | None  # the largest
    unknown: frozenset[str]
    timed: bool  # all jobs are timings

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
