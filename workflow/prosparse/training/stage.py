"""Trains one stage from start to result: exact resumption, one owner, no half-written results.

A stage continues the optimizer, learning-rate schedule and data order of the previous one, so a run split into stages
equals the same run in one piece. While it runs, everything lives in ``{output}/resume``. A finished stage is linked
into ``{output}``, ``provenance.json`` last.

Any number of processes does the same work: they share each step's batch. Rank 0 owns the folder; if it fails, all fail.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel

from prosparse.experiment.model import Architecture, PretrainedInit
from prosparse.experiment.specifications import StageSpecification
from prosparse.method.activations import substitute
from prosparse.models.build import empty, from_scratch
from prosparse.models.load import load, pretrained
from prosparse.system import devices, identity, provenance
from prosparse.system.allocator import keep_freed_memory
from prosparse.system.errors import UserError
from prosparse.system.files import discard, write_json, write_through
from prosparse.system.locking import Refused, agree, asked_to_stop, claim, locked
from prosparse.training import checkpoints, distributed
from prosparse.training.callback import LEDGER
from prosparse.training.trainer import ARITHMETIC, stage_mixture, stage_trainer


class OutOfTime(UserError):
    """The time budget is used up. Progress is saved, and the same call resumes it."""

    exit_status = 75  # sysexits' "temporary failure": a scheduler may retry


def train_stage(
    specification: StageSpecification,
    tokens: Path,
    tokenizer: Path,
    previous: Path | None,
    output: Path,
    max_seconds: float | None = None,
    label: str = "",
    teacher: Path | None = None,
) -> None:
    """Train one stage, or resume it where an earlier call stopped.

    Args:
        specification: the stage and everything before it that shapes its weights.
        tokens: directory of tokenized corpora, one folder each.
        tokenizer: saved with the weights, so that the checkpoint is self-contained.
        previous: the checkpoint directory this stage starts from; None for stage 0 from scratch.
        output: the stage's checkpoint directory.
        max_seconds: stop and save before this much time has passed, judging by the longest step so far.
        label: prefix of each progress line, for when several stages print to one terminal.
        teacher: the checkpoint directory to distil from, if the specification has a share for it.

    Raises:
        Refused: another process trains here, or the directory was made from another config, other tokens or another
            checkpoint.
        ConfigError: the batch cannot be divided among this many processes.
        OutOfTime: the time is used up, or SIGTERM came; progress is saved, and the same call resumes it.
        Diverged: the loss is not finite; the last checkpoint is kept.

    Every process of the job raises the same error.
    """
    started = time.time()
    resume = output / "resume"
    training = specification.training
    shard = training.fsdp and distributed.count() > 1
    distributed.join()
    with ExitStack() as held:

        def open_folder() -> tuple[bool, Path | None]:
            """Whether the stage is finished, and the checkpoint to resume from."""
            made_from.update(_inputs(specification, tokens, tokenizer, previous, teacher))
            if _is_finished(output, specification, made_from):
                discard(resume)
                return True, None
            resume.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(resume))
            compared = _compared(specification.model_dump(mode="json"))
            claim(resume, {"specification": compared, "inputs": made_from})
            checkpoint = checkpoints.newest(resume)
            if checkpoint is None and specification.total_steps == 0:
                checkpoint = _save_untrained(_starting_model(specification, tokenizer, previous), resume)
            if checkpoint is not None and checkpoints.step(checkpoint) == specification.stages[-1].until:
                finish()
                return True, None
            return False, previous if checkpoint is None and len(specification.stages) > 1 else checkpoint

        def starting_model() -> PreTrainedModel:
            model = _starting_model(specification, tokenizer, continue_from or previous)
            _check_disk(output, model)
            return model

        def finish() -> None:
            checkpoint = resume / f"checkpoint-{specification.stages[-1].until}"
            checkpoints.publish(checkpoint, output)
            checkpoints.copy_all(tokenizer, output)
            steps = specification.stages[-1].until
            epochs = stage_mixture(specification, tokens).epochs(steps * training.batch_size) if steps else {}
            _finish(specification, checkpoint, output, epochs, made_from, started)

        made_from: identity.Identity = {}
        finished, continue_from = distributed.from_first(open_folder)
        if finished:
            return
        accumulation_steps = training.accumulation_steps(distributed.count())
        with distributed.together():
            model = starting_model() if distributed.is_first() or not shard else None
        if model is None or shard:
            model = _shape_of_first(model, specification)
        keep_freed_memory()
        asked = held.enter_context(asked_to_stop())
        deadline = math.inf if max_seconds is None else started + max_seconds
        with distributed.together():
            trainer = stage_trainer(
                specification, model, tokens, resume, accumulation_steps, shard, deadline, asked, label, teacher
            )
        trainer.train(resume_from_checkpoint=str(continue_from) if continue_from else None)
        if trainer.state.global_step < specification.stages[-1].until:
            raise OutOfTime(
                f"saved at step {trainer.state.global_step} of {specification.stages[-1].until}: "
                "run the same command again to continue"
            )
        distributed.from_first(finish)


def _starting_model(specification: StageSpecification, tokenizer: Path, weights: Path | None) -> PreTrainedModel:
    match specification.start:
        case _ if weights is not None:
            model = load(weights)
        case Architecture() as architecture:
            size = len(AutoTokenizer.from_pretrained(tokenizer))
            model = from_scratch(architecture, size, specification.context_length, specification.seed)
        case PretrainedInit() as init:
            # a stage without steps saves its weights in the dtype they came in
            dtype: Any = torch.float32 if specification.total_steps else "auto"
            model = pretrained(init, specification.activation, dtype)
        case None:
            raise Refused("this stage starts from another checkpoint: none was given")
    substitute(model, specification.activation)
    return model


def _shape_of_first(model: PreTrainedModel | None, specification: StageSpecification) -> PreTrainedModel:
    """The first process's model as is; in other processes an empty copy, which sharding fills."""
    config = distributed.from_first(lambda: None if model is None else model.config)
    if model is None:
        assert config is not None  # the first process has the model
        model = empty(config)
        substitute(model, specification.activation)
    return model


def _check_disk(output: Path, model: PreTrainedModel) -> None:
    # while one checkpoint replaces another, both exist: float32 weights and two AdamW moments each
    needed = 2 * 12 * sum(parameter.numel() for parameter in model.parameters())
    free = shutil.disk_usage(output).free
    if free < needed:
        raise Refused(f"{output}: {free / 1e9:.2f} GB free, checkpoints of this stage need {needed / 1e9:.2f} GB")


# ------------------------------------------------------------------------------------ the result


def _inputs(
    specification: StageSpecification, tokens: Path, tokenizer: Path, previous: Path | None, teacher: Path | None
) -> identity.Identity:
    """What the stage's weights depend on besides the specification."""
    found: identity.Identity = {"tokenizer": identity.of_tokenizer(tokenizer)}
    if specification.total_steps:
        found["tokens"] = {corpus: identity.of_tokens(tokens / corpus) for corpus in sorted(specification.mixture)}
    if previous is not None:
        found["previous"] = identity.of_checkpoint(previous)
    elif isinstance(start := specification.start, PretrainedInit):
        found["start"] = identity.of_checkpoint(start.pretrained, start.revision, start.gguf_file)
    if teacher is not None and specification.distillation_share:
        found["teacher"] = identity.of_checkpoint(teacher)
    return found


def _compared(specification: dict[str, Any]) -> dict[str, Any]:
    """The specification without the name of its start; the start's content is among the inputs."""
    start = specification["start"]
    if isinstance(start, dict):
        start = {key: value for key, value in start.items() if key != "pretrained"}
    return {**specification, "start": start}


def _is_finished(output: Path, specification: StageSpecification, made_from: identity.Identity) -> bool:
    """Whether ``output`` holds this stage.

    Raises:
        Refused: it holds another.
    """
    if not (output / "provenance.json").exists():
        return False
    record = json.loads((output / "provenance.json").read_text(encoding="utf-8"))
    agree(
        {"specification": _compared(record["specification"]), "inputs": record.get("inputs")},
        {"specification": _compared(specification.model_dump(mode="json")), "inputs": made_from},
        output,
    )
    print(f"{output}: trained already, nothing to do", flush=True)
    return True


def _save_untrained(model: PreTrainedModel, resume: Path) -> Path:
    """Save the unchanged start as a stage, for others to start from and compare with."""
    checkpoint = resume / "checkpoint-0"
    model.save_pretrained(checkpoint)
    checkpoints.write_ledger(resume / "ledger.csv", LEDGER, [])
    checkpoints.keep(checkpoint)
    return checkpoint


def _finish(
    specification: StageSpecification,
    checkpoint: Path,
    output: Path,
    epochs: dict[str, float],
    made_from: identity.Identity,
    started: float,
) -> None:
    """Publish the last checkpoint as the stage's result, ``provenance.json`` last: it marks a finished stage."""
    resume = checkpoint.parent
    rows = checkpoints.read_ledger(resume / "ledger.csv", checkpoints.step(checkpoint))
    checkpoints.write_ledger(output / "ledger.csv", LEDGER, rows)
    write_through(output)
    last = rows[-1] if rows else {"step": "0", "tokens": "0"}
    final: dict[str, Any] = {"lambda": 0.0, "lm_loss": None, "sparsity": None}
    if rows:
        final = {**{key: float(last[key]) for key in final}, "epochs": epochs}
    write_json(
        output / "provenance.json",
        {
            "stage": len(specification.stages) - 1,
            "seed": specification.seed,
            "specification": specification.model_dump(mode="json"),
            "arithmetic": ARITHMETIC[specification.training.precision],
            "inputs": made_from,
            "l1_reduction": "mean over tokens and intermediate neurons, sum over layers",
            "steps": int(last["step"]),
            "tokens": int(last["tokens"]),
            "parameters": checkpoints.parameters(output),
            "final": final,
            "processes": distributed.count(),
            "provenance": provenance.record(
                specification.model_dump(mode="json"), started, devices.name(devices.fastest())
            ),
        },
    )
    discard(resume)
