"""The jobs of an experiment and what each of them costs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from prosparse.experiment import lineage, table2_rows
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.experiment.training_free import CALIBRATION_TOKENS, METHODS, SEARCH_STEPS
from prosparse.plan.costs import (
    CHECKPOINT_BYTES,
    WEIGHT_BYTES,
    AnsweringMemory,
    Memory,
    answering_memory,
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


@dataclass(frozen=True)
class Requests:
    """Texts that the benchmarks pass through a model, per pair."""

    number: int
    partial: bool  # excludes a benchmark with an unknown number of rows


def stage_job(layout: Layout, run: str, stage: int, seed: int) -> Job:
    """Return the job that trains one stage, under its owner's name."""
    experiment = layout.experiment
    chosen, context = experiment.runs[run], experiment.data.context_length
    training = chosen.training
    steps = chosen.stages[stage].until - (chosen.stages[stage - 1].until if stage else 0)
    tokens = steps * training.batch_size * context
    shape = decoder(layout, run)
    flops = recomputed = disk = parameters = memory = None
    if tokens == 0:
        flops = recomputed = 0
    if shape is not None and shape.parameters is not None:
        parameters = shape.parameters
        disk = (_kept_bytes(experiment, run, stage) if tokens else start_bytes(chosen.init)) * parameters
        flops = tokens * (shape.training_flops(context) or 0)
        recomputed = tokens * shape.recomputed_flops(context) if training.activation_checkpointing else 0
        memory = training_memory(experiment, training, shape) if tokens else None
    if tokens and chosen.distillation is not None and flops is not None:
        teacher = decoder(layout, chosen.distillation.teacher)
        forward = None if teacher is None else teacher.forward_flops(context)
        flops = None if forward is None else flops + tokens * forward
    return Job(
        target=run, name=f"{run} stage {stage}, seed {seed}",
        output=layout.relative(layout.provenance(run, stage, seed)),
        tokens=tokens, flops=flops, recomputed=recomputed, disk=disk, memory=memory, parameters=parameters, run=run,
        stage=stage,
    )  # fmt: skip


def _kept_bytes(experiment: Experiment, run: str, stage: int) -> int:
    """Return the bytes per weight that a trained stage leaves when all is done."""
    state_goes = experiment.optimizer_states == "last" and lineage.continuations(experiment, run, stage)
    return WEIGHT_BYTES if state_goes else CHECKPOINT_BYTES


def sparsity_job(layout: Layout, run: str, seed: int) -> Job:
    experiment, data = layout.experiment, layout.experiment.data
    tuning = lineage.measured_split(experiment, run) == "tuning"
    sequences = data.tuning_sequences if tuning else data.heldout_sequences
    rows = sequences * len(data.corpora) * len(lineage.measured_activations(experiment, run))
    tokens = rows * data.context_length
    flops = forward_flops(layout, run, tokens)
    output = layout.relative(layout.sparsity(run, seed))
    return Job("sparsity", f"{run}, seed {seed}", output, tokens, flops, run=run)


def stage_sparsity_job(layout: Layout, run: str, seed: int) -> Job:
    experiment, data = layout.experiment, layout.experiment.data
    rows = data.heldout_sequences * len(data.corpora) * len(lineage.chain(experiment, run))
    tokens = rows * data.context_length
    output = layout.relative(layout.stage_sparsity(run, seed))
    return Job("stage sparsity", f"{run}, seed {seed}", output, tokens, forward_flops(layout, run, tokens), run=run)


def training_free_job(layout: Layout, pair: tuple[str, str], seed: int) -> Job:
    """Count every method's settings and passes over calibration text, without the search for CETT's thresholds."""
    experiment, data, run = layout.experiment, layout.experiment.data, pair[0]
    settings = len(METHODS) * (1 + len(lineage.training_free_targets(experiment)[pair]))
    calibration = max(CALIBRATION_TOKENS, data.context_length)
    tokens = settings * data.heldout_sequences * len(data.corpora) * data.context_length
    tokens += (2 + len(METHODS) * SEARCH_STEPS) * calibration
    output = layout.relative(layout.training_free(*pair, seed))
    name = f"{run}@{pair[1]}, seed {seed}"
    return Job("sparsity without training", name, output, tokens, forward_flops(layout, run, tokens), run=run)


def benchmarks_job(layout: Layout, pair: tuple[str, str], seed: int, requests: Requests, predicted: bool) -> Job:
    """Return an upper bound: every request fills the context.

    Args:
        predicted: whether only the neurons that a predictor calls active are computed.
    """
    experiment, (run, activation) = layout.experiment, pair
    target, file = ("benchmarks", layout.benchmarks)
    if predicted:
        target, file = ("predicted benchmarks", layout.predicted_benchmarks)
    tokens = requests.number * experiment.data.context_length
    return Job(
        target=target, name=f"{run}@{activation}, seed {seed}", output=layout.relative(file(run, activation, seed)),
        tokens=tokens, flops=forward_flops(layout, run, tokens), run=run,
        partial=requests.partial, answering=answering_memory(layout, run),
    )  # fmt: skip


def predictors_job(layout: Layout, pair: tuple[str, str], seed: int) -> Job:
    """Return an upper bound: all epochs run. A trained kind has ``rank (d + d_ff)`` weights per layer, 6 FLOPs each."""
    experiment = layout.experiment
    settings = experiment.predictors
    assert settings is not None
    length = experiment.data.context_length
    tokens = settings.epochs * math.ceil(settings.tokens / length) * length
    flops = forward_flops(layout, pair[0], tokens)
    shape, disk = decoder(layout, pair[0]), None
    if shape is not None:
        weights = shape.predictors(settings.rank)
        trained = sum(kind != "svd" for kind in settings.kinds)
        flops = None if flops is None else flops + 6 * trained * weights * tokens
        disk = len(settings.kinds) * WEIGHT_BYTES * weights
    output = layout.relative(layout.predictors(*pair, seed))
    return Job("predictors", f"{pair[0]}@{pair[1]}, seed {seed}", output, tokens, flops, disk=disk, run=pair[0])


def prediction_job(layout: Layout, pair: tuple[str, str], seed: int) -> Job:
    """Count one pass without and one with each kind of predictor; exclude the passes of the threshold sweep."""
    experiment = layout.experiment
    assert experiment.predictors is not None
    data = experiment.data
    passes = 1 + len(experiment.predictors.kinds)
    rows = passes * data.heldout_sequences * len(data.corpora)
    tokens = rows * data.context_length
    flops = forward_flops(layout, pair[0], tokens)
    output = layout.relative(layout.prediction(*pair, seed))
    return Job("prediction", f"{pair[0]}@{pair[1]}, seed {seed}", output, tokens, flops, run=pair[0])


def precision_job(layout: Layout) -> Job:
    """Count one pass of each decoded model in each precision."""
    experiment, data = layout.experiment, layout.experiment.data
    assert experiment.decoding is not None
    pairs = dict.fromkeys(table2_rows.decoded(experiment).values())
    tokens = len(experiment.decoding.precisions) * data.heldout_sequences * len(data.corpora) * data.context_length
    passes = [forward_flops(layout, experiment.pair(pair)[0], tokens) for pair in pairs]
    known = [flops for flops in passes if flops is not None]
    flops = sum(known) if len(known) == len(passes) else None
    output = layout.relative(layout.precision())
    return Job("precision", f"{len(pairs)} models", output, len(pairs) * tokens, flops)


def token_jobs(layout: Layout, trained: Iterable[tuple[str, int]]) -> list[Job]:
    """Return one job per corpus and tokenizer of the stages, for the documents and their tokens.

    A corpus is read up to its ``character_limit``; without one, its size is unknown until it is read.
    """
    data, found = layout.experiment.data, []
    tokenizers = list(dict.fromkeys(layout.experiment.tokenizer(run) for run, _ in trained))
    for tokenizer in tokenizers:
        for name, corpus in data.corpora.items():
            stored = disk = None
            if (manifest := layout.manifest(tokenizer, name)).exists():
                stored = json.loads(manifest.read_text(encoding="utf-8"))["tokens"]
            elif corpus.character_limit is not None:
                stored = (
                    corpus.character_limit // CHARACTERS_A_TOKEN
                    + (data.heldout_sequences + data.tuning_sequences) * data.context_length
                )
            if stored is not None:
                # an upper bound: candidates and the documents kept of them, both compressed
                documents = 2 * CHARACTERS_A_TOKEN * stored if tokenizer == tokenizers[0] else 0
                disk = TOKEN_BYTES * stored + documents
            label = name if len(tokenizers) == 1 else f"{name} ({tokenizer})"
            found.append(Job("data", label, layout.relative(manifest), disk=disk, stored=stored, corpus=name))
    return found


def marked(jobs: Iterable[Job], layout: Layout) -> list[Job]:
    """Mark the jobs whose output exists as done."""
    return [replace(job, done=(layout.directory / job.output).exists()) for job in jobs]


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
