"""What happens around each step: setting lambda, writing the ledger, checking the deadline, keeping checkpoints."""

from __future__ import annotations

import csv
import math
import threading
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from prosparse.data.mixture import Mixture
from prosparse.experiment.specifications import StageSpecification
from prosparse.method.regularization import SparsityRegularization
from prosparse.method.schedule import factor
from prosparse.system.errors import UserError
from prosparse.training import checkpoints, distributed

# epoch: passes over the most-read corpus, counting earlier runs
LEDGER = (
    "step",
    "tokens",
    "lambda",
    "lm_loss",
    "l1",
    "l_reg_ratio",
    "sparsity",
    "learning_rate",
    "tokens_per_second",
    "epoch",
)


class Diverged(UserError):
    """The loss is not finite."""


class StageCallback(TrainerCallback):
    """Sets lambda before each step, writes the ledger, stops at the stage's end, at the deadline or on request."""

    def __init__(
        self,
        specification: StageSpecification,
        dataset: Mixture,
        regularization: SparsityRegularization,
        ledger: Path,
        deadline: float,
        asked: threading.Event,
        label: str,
    ) -> None:
        self.specification = specification
        self.dataset = dataset
        self.regularization = regularization
        self.ledger = ledger
        self.prefix = f"{label}: " if label else ""
        self.deadline = deadline
        self.asked = asked
        self.last_step = specification.stages[-1].until
        self.l1 = self.sparsity = math.nan

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.clock, self.clock_step = time.perf_counter(), state.global_step
        self.step_ended, self.longest = time.time(), 0.0
        if not state.is_world_process_zero:
            return
        # rows after the checkpoint we resume from are written again
        checkpoints.write_ledger(self.ledger, LEDGER, checkpoints.read_ledger(self.ledger, state.global_step))

    def epochs(self, step: int) -> dict[str, float]:
        """Passes over each corpus by the end of a step."""
        return self.dataset.epochs(step * self.specification.training.batch_size)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        step = state.global_step + 1
        self.regularization.step, self.regularization.factor = step, factor(self.specification.stages, step)
        self.regularization.measuring = step == 1 or step == self.last_step or step % args.logging_steps == 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.regularization.measuring:
            l1, sparsity = self.regularization.measured()
            self.l1, self.sparsity = distributed.mean([sum(l1), sum(sparsity) / len(sparsity)])
        now = time.time()
        self.longest = max(self.longest, now - self.step_ended)  # a step plus the checkpoint before it
        self.step_ended = now
        if state.global_step == self.last_step:
            control.should_log = control.should_save = control.should_training_stop = True
        elif distributed.any_of(self.asked.is_set() or now + self.longest > self.deadline):
            control.should_save = control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            checkpoints.keep(self.ledger.parent / f"checkpoint-{state.global_step}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise Diverged(
                f"loss is {logs['loss']} at step {state.global_step}: lower training.learning_rate or the peak; "
                "the last checkpoint is kept"
            )
        if not state.is_world_process_zero:
            return
        tokens_per_step = self.specification.training.batch_size * self.specification.context_length
        now = time.perf_counter()
        rate = (state.global_step - self.clock_step) * tokens_per_step / (now - self.clock)
        self.clock, self.clock_step = now, state.global_step
        weight = factor(self.specification.stages, state.global_step)
        row = {
            "step": state.global_step,
            "tokens": state.global_step * tokens_per_step,
            "lambda": weight,
            "lm_loss": logs["loss"],
            "l1": self.l1,
            "l_reg_ratio": weight * self.l1 / logs["loss"],
            "sparsity": self.sparsity,
            "learning_rate": logs["learning_rate"],
            "tokens_per_second": round(rate, 1),
            "epoch": math.ceil(max(self.epochs(state.global_step).values())),
        }
        with open(self.ledger, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, LEDGER).writerow(row)
        remaining = (self.last_step - state.global_step) * tokens_per_step / rate
        print(
            f"{self.prefix}step {state.global_step}/{self.last_step} | loss {logs['loss']:.4f} | lambda {weight:.4g} | "
            f"sparsity {100 * self.sparsity:.2f} % | {rate:,.0f} tokens/s | ETA {remaining:.0f} s",
            flush=True,
        )
