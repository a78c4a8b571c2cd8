"""Train one stage from start to result: exact resumption, no half-written results.

A stage continues the optimizer, learning-rate schedule and data order of the previous one, so a run split into stages
equals the same run in one piece. While it runs, everything lives in ``{output}/resume``. A finished stage is linked
into ``{output}``, ``provenance.json`` last.

Any number of processes does the same work: they share each step's batch. Rank 0 owns the folder; if it fails, all fail.
"""

from __future__ import annotations

import math
import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel

from prosparse.experiment.model import Architecture, PretrainedInit
from prosparse.method.activations import substitute
from prosparse.models.build import empty, from_scratch
from prosparse.models.load import load, pretrained
from prosparse.system.allocator import keep_freed_memory
from prosparse.system.errors import OUT_OF_TIME, UserError
from prosparse.system.files import discard
from prosparse.system.identity import Identity
from prosparse.system.locking import Refused, asked_to_stop, claim, locked
from prosparse.training import band, checkpoints, distributed, result
from prosparse.training.callbacks import StopCallback
from prosparse.training.job import StageJob
from prosparse.training.trainer import stage_trainer


class OutOfTime(UserError):
    """The time budget is used up. Progress is saved, and the same call resumes it."""

    exit_status = OUT_OF_TIME


class Stopped(UserError):
    """SIGTERM came. Progress is saved, and the same call resumes it."""

    exit_status = 128 + signal.SIGTERM  # as a shell reports it


def train_stage(job: StageJob) -> None:
    """Train one stage, or resume it where an earlier call stopped.

    Raises:
        Refused: another process trains here, or the directory was made from another config, other tokens or another
            checkpoint.
        ConfigError: the batch cannot be divided among this many processes.
        OutOfTime: the time is used up; progress is saved, and the same call resumes it.
        Stopped: SIGTERM came to a process; likewise.
        Diverged: the loss is not finite; the last checkpoint is kept.
        OutOfBand: sparsity has left the job's ``expected_sparsity``; likewise.

    Every process of the job raises the same error.
    """
    started = time.time()
    specification = job.specification
    distributed.join()
    with ExitStack() as held:

        def open_folder() -> tuple[bool, Path | None]:
            """Whether the stage is finished, and the checkpoint to resume from."""
            made_from.update(result.made_from(job))
            if result.is_there(job, made_from):
                discard(job.resume)
                _discard_state_before(job)
                return True, None
            job.resume.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(job.resume))
            claim(job.resume, made_from)
            checkpoint = checkpoints.newest(job.resume)
            if checkpoint is None and specification.total_steps == 0:
                checkpoint = result.save_untrained(job, _starting_model(job, job.previous))
            if checkpoint is not None:
                check_band(checkpoints.step(checkpoint))
                if checkpoints.step(checkpoint) == job.last_step:
                    finish()
                    return True, None
            if checkpoint is None and len(specification.stages) > 1:
                _check_state(job.previous)
                return False, job.previous
            return False, checkpoint

        def starting_model() -> PreTrainedModel:
            model = _starting_model(job, continue_from or job.previous)
            _check_disk(job.output, model)
            return model

        def check_band(step: int) -> None:
            if said := band.left(job, step):
                raise band.OutOfBand(said)

        def finish() -> None:
            check_band(job.last_step)
            result.write(job, made_from["inputs"], started)
            _discard_state_before(job)

        made_from: Identity = {}
        finished, continue_from = distributed.from_first(open_folder)
        if finished:
            return
        accumulation_steps = specification.training.accumulation_steps(distributed.count())
        with distributed.together():
            model = starting_model() if distributed.is_first() or not job.sharded else None
        if model is None or job.sharded:
            model = _shape_of_first(model, job)
        keep_freed_memory()
        deadline = math.inf if job.max_seconds is None else started + job.max_seconds
        asked = held.enter_context(asked_to_stop())
        stop = StopCallback(job, deadline, asked)
        with distributed.together():
            trainer = stage_trainer(job, model, accumulation_steps, stop)
        trainer.train(resume_from_checkpoint=str(continue_from) if continue_from else None)
        if trainer.state.global_step < job.last_step:
            if said := distributed.from_first(lambda: stop.out_of_band):
                raise band.OutOfBand(said)
            reason = Stopped if distributed.any_of(asked.is_set()) else OutOfTime
            raise reason(
                f"saved at step {trainer.state.global_step} of {job.last_step}: run the same command again to continue"
            )
        distributed.from_first(finish)


def _starting_model(job: StageJob, weights: Path | None) -> PreTrainedModel:
    specification = job.specification
    match specification.start:
        case _ if weights is not None:
            model = load(weights)
        case Architecture() as architecture:
            size = len(AutoTokenizer.from_pretrained(job.tokenizer))
            model = from_scratch(architecture, size, specification.context_length, specification.seed)
        case PretrainedInit() as init:
            # a stage without steps saves its weights in the dtype they came in
            dtype: Any = torch.float32 if specification.total_steps else "auto"
            model = pretrained(init, specification.activation, dtype)
        case None:
            raise Refused("this stage starts from a checkpoint, and none was given")
    substitute(model, specification.activation)
    return model


def _shape_of_first(model: PreTrainedModel | None, job: StageJob) -> PreTrainedModel:
    """The first process's model as is; in other processes an empty copy, which sharding fills."""
    config = distributed.from_first(lambda: None if model is None else model.config)
    if model is None:
        assert config is not None  # the first process has the model
        model = empty(config)
        substitute(model, job.specification.activation)
    return model


def _check_state(previous: Path | None) -> None:
    """Refuse a missing optimizer state, without which the Trainer would silently continue."""
    if previous is not None and not (previous / checkpoints.OPTIMIZER).exists():
        raise Refused(
            f"{previous} has no optimizer state to continue from, because later stages are already finished "
            "(optimizer_states: last): delete the folder to train it again"
        )


def _discard_state_before(job: StageJob) -> None:
    if job.previous is not None and job.continuations and all(path.exists() for path in job.continuations):
        (job.previous / checkpoints.OPTIMIZER).unlink(missing_ok=True)


def _check_disk(output: Path, model: PreTrainedModel) -> None:
    # while one checkpoint replaces another, both exist: float32 weights and two AdamW moments each
    needed = 2 * 12 * sum(parameter.numel() for parameter in model.parameters())
    free = shutil.disk_usage(output).free
    if free < needed:
        raise Refused(f"{output}: {free / 1e9:.2f} GB free, checkpoints of this stage need {needed / 1e9:.2f} GB")
