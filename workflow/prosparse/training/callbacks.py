"""Callbacks of the Trainer: lambda(t), divergence, complete checkpoints, when to stop."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from prosparse.experiment.training import Stage
from prosparse.method.regularization import SparsityRegularization
from prosparse.method.schedule import factor, steered_at
from prosparse.system.errors import ConfigError, UserError
from prosparse.training import band, checkpoints, distributed, steering
from prosparse.training.job import StageJob
from prosparse.training.steering import Steering


class LambdaCallback(TrainerCallback):
    """Sets lambda before each optimizer step, and adds ``lambda``, ``l1`` and ``sparsity`` to what a Trainer logs.

    L1 and sparsity are those of the logged step, averaged over its micro-batches and processes; lambda is the value
    that the step used. In a stage with a target, every step is measured, and sparsity steers lambda. The Trainer saves
    and restores what the callback remembers, also across stages.

    Make it with :func:`regularize`: trackers see only what callbacks before theirs have added.

    Args:
        stages: of lambda(t), up to the last step at least.
        regularization: attached to the model that the Trainer trains.
        micro_batches: returns their number in this step and process; an epoch's last step can have fewer.

    Attributes:
        steering: of the latest stage with a target; None before the first.
    """

    def __init__(
        self, stages: Sequence[Stage], regularization: SparsityRegularization, micro_batches: Callable[[], int]
    ) -> None:
        self.stages, self.regularization, self.micro_batches = stages, regularization, micro_batches
        self.steering: Steering | None = None
        self._measured: tuple[float, float] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.steering = Steering.saved_in(state)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step = state.global_step + 1
        steered = steered_at(self.stages, step)
        self.regularization.step = step
        self.regularization.accumulation_steps = self.micro_batches()
        self.regularization.factor = (
            steering.lambda_before(self.stages, step, self.steering) if steered else factor(self.stages, step)
        )
        self.regularization.measuring = steered or self._logged(args, state, step)

    def _logged(self, args: TrainingArguments, state: TrainerState, step: int) -> bool:
        """Whether the Trainer logs after this step; only it knows where epochs end."""
        ends = step in (1, self.stages[-1].until, state.max_steps)
        return ends or args.logging_strategy != "steps" or step % state.logging_steps == 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        step = state.global_step
        self._measured = distributed.measured(self.regularization) if self.regularization.measuring else None
        if steered_at(self.stages, step):
            assert self._measured is not None
            self.steering = steering.after_step(self.stages, step, self.steering, self._measured, given["lr_scheduler"])
            self.steering.save_in(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs or self._measured is None:
            return
        l1, sparsity = self._measured
        found = {"lambda": self.regularization.factor, "l1": l1, "sparsity": sparsity}
        logs.update(found)  # callbacks that follow are given the same dictionary
        state.log_history[-1].update(found)


def regularize(trainer: Trainer, stages: Sequence[Stage], seed: int = 0) -> LambdaCallback:
    """Make a Trainer train its model with the L1 penalty of ``stages``; works with any Trainer, before ``train()``.

    Its logs then include ``lambda``, ``l1`` and ``sparsity``, in ``log_history`` and for every ``report_to``.
    Afterwards, ``callback.regularization.detach()`` restores the model.

    The penalty is a mean over all positions of a batch, padding included: pack the text into full sequences.

    Args:
        trainer: its model has gated FFNs, under an activation with zeros: see ``method.activations.substitute``.
        stages: of lambda(t), up to the Trainer's last step at least.
        seed: of the stochastic rounding of gradients in 16 bits.

    Raises:
        UnsupportedArchitecture: the model has no gated FFN.
        ConfigError: the Trainer scales the loss (float16), or computes a batch on several GPUs in one process.
    """
    arguments = trainer.args
    if arguments.fp16:
        raise ConfigError("fp16 scales the loss, so the penalty's gradient would be lost: use bf16 or float32")
    if arguments.n_gpu > 1:
        raise ConfigError(f"one process computes on {arguments.n_gpu} GPUs: start one process per GPU with torchrun")
    assert trainer.model is not None
    regularization = SparsityRegularization(
        trainer.model, device=arguments.device, seed=seed, rank=distributed.rank(), world_size=distributed.count()
    )
    callback = LambdaCallback(stages, regularization, lambda: trainer.current_gradient_accumulation_steps)
    trainer.callback_handler.callbacks.insert(0, callback)  # before the trackers'
    return callback


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
