"""Callbacks of the Trainer: lambda(t), divergence, complete checkpoints, when to stop."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from prosparse.experiment.training import Stage
from prosparse.method.regularization import SparsityRegularization
from prosparse.method.schedule import factor, steered_at
from prosparse.system.errors import UserError
from prosparse.training import band, checkpoints, distributed, steering
from prosparse.training.job import StageJob
from prosparse.training.steering import Steering


class LambdaCallback(TrainerCallback):
    """Sets lambda before each optimizer step; works with any Trainer, without the rest of this package's training.

    In a stage with a target, it measures every step and steers lambda by the mean sparsity over the step's
    micro-batches and processes. The Trainer saves and restores what it remembers, also across stages.

    ::

        substitute(model, Activation.parse("relu"))
        regularization = SparsityRegularization(model, arguments.gradient_accumulation_steps)
        stages = [Stage(until=100), Stage(until=900, peak=0.3, shape="sine"), Stage(until=1000, peak=0.3)]
        callback = LambdaCallback(stages, regularization)
        Trainer(model, arguments, train_dataset=dataset, callbacks=[callback]).train()

    Args:
        stages: of lambda(t), up to the last step at least.
        regularization: attached to the model that the Trainer trains. With a target and several processes, call
            ``training.distributed.join()`` before making the ``TrainingArguments``.

    Attributes:
        steering: of the latest stage with a target; None before the first.
    """

    def __init__(self, stages: Sequence[Stage], regularization: SparsityRegularization) -> None:
        self.stages, self.regularization = stages, regularization
        self.steering: Steering | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.steering = Steering.saved_in(state)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step = state.global_step + 1
        self.regularization.step = step
        if steered_at(self.stages, step):
            self.regularization.factor = steering.lambda_before(self.stages, step, self.steering)
            self.regularization.measuring = True
        else:
            self.regularization.factor = factor(self.stages, step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        step = state.global_step
        if steered_at(self.stages, step):
            measured = distributed.measured(self.regularization)
            self.steering = steering.after_step(self.stages, step, self.steering, measured, given["lr_scheduler"])
            self.steering.save_in(state)


class Diverged(UserError):
    """The loss is not finite."""


class DivergenceCallback(TrainerCallback):
    """Ends training at the first logged loss that is not finite."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if logs and not math.isfinite(logs.get("loss", 0.0)):
            raise Diverged(
                f"loss is {logs['loss']} at step {state.global_step}: lower training.learning_rate or the stage's "
                "peak or target_sparsity; the last checkpoint is kept"
            )


class CheckpointCallback(TrainerCallback):
    """Keeps each saved checkpoint once it is on disk, and removes the one before it."""

    def __init__(self, resume: Path) -> None:
        self.resume = resume

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            checkpoints.keep(self.resume / f"checkpoint-{state.global_step}")


class StopCallback(TrainerCallback):
    """Saves and stops at the last step, or earlier.

    It stops if the next step might pass the deadline, if someone asked, or if sparsity has left its band. The processes
    of a job stop together, at the same step.

    Args:
        job: of the stage, which may end before the Trainer's ``max_steps``.
        deadline: in seconds since the epoch, infinite for none.
        asked: set by SIGTERM.

    Attributes:
        out_of_band: how sparsity has left its band; None if it has not, and except in the first process.
    """

    def __init__(self, job: StageJob, deadline: float, asked: threading.Event) -> None:
        self.job, self.deadline, self.asked = job, deadline, asked
        self.out_of_band: str | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.step_ended, self.longest = time.time(), 0.0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        now = time.time()
        self.longest = max(self.longest, now - self.step_ended)  # a step plus the checkpoint before it
        self.step_ended = now
        if state.global_step == self.job.last_step:
            control.should_log = control.should_save = control.should_training_stop = True
        elif distributed.any_of(
            self.asked.is_set() or now + self.longest > self.deadline or self.out_of_band is not None
        ):
            control.should_save = control.should_training_stop = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # after the ledger, which it reads; the next step stops
        if state.is_world_process_zero and self.out_of_band is None:
            self.out_of_band = band.left(self.job, state.global_step)
