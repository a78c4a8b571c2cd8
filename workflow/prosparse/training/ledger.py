"""A stage's ledger: one CSV row per logged step, with lambda, loss and sparsity."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from prosparse.data.mixture import Mixture
from prosparse.system.files import write_text
from prosparse.training.job import StageJob

# epoch: passes over the most-read corpus, counting earlier runs
COLUMNS = (
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


class LedgerCallback(TrainerCallback):
    """Writes and prints a row for each logged step, in the first process; ``LambdaCallback`` comes before it."""

    def __init__(self, job: StageJob, dataset: Mixture) -> None:
        self.job, self.dataset = job, dataset

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.clock, self.clock_step = time.perf_counter(), state.global_step
        if state.is_world_process_zero:
            # rows after the checkpoint we resume from are written again
            write(self.job.ledger, read(self.job.ledger, state.global_step))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        specification, step, last_step = self.job.specification, state.global_step, self.job.last_step
        batch_size = specification.training.batch_size
        tokens_per_step = batch_size * specification.context_length
        now = time.perf_counter()
        rate = (step - self.clock_step) * tokens_per_step / (now - self.clock)
        self.clock, self.clock_step = now, step
        weight, l1, sparsity = logs["lambda"], logs["l1"], logs["sparsity"]
        row = {
            "step": step,
            "tokens": step * tokens_per_step,
            "lambda": weight,
            "lm_loss": logs["loss"],
            "l1": l1,
            "l_reg_ratio": weight * l1 / logs["loss"],
            "sparsity": sparsity,
            "learning_rate": logs["learning_rate"],
            "tokens_per_second": round(rate, 1),
            "epoch": math.ceil(max(self.dataset.epochs(step * batch_size).values())),
        }
        with open(self.job.ledger, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        remaining = (last_step - step) * tokens_per_step / rate
        print(
            f"step {step}/{last_step} | loss {logs['loss']:.4f} | lambda {weight:.4g} | "
            f"sparsity {100 * sparsity:.2f}% | {rate:,.0f} tokens/s | ETA {remaining:.0f} s",
            flush=True,
        )


def read(path: Path, until: int) -> list[dict[str, str]]:
    """Rows of steps up to ``until``, without a last row cut short when the process stopped."""
    if not path.exists():
        return []
    text = path.read_bytes().decode()
    whole = text[: text.rfind("\n") + 1]
    return [row for row in csv.DictReader(whole.splitlines()) if int(row["step"]) <= until]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    lines = [",".join(COLUMNS), *(",".join(row[column] for column in COLUMNS) for row in rows)]
    write_text(path, "\r\n".join(lines) + "\r\n")


def join(parts: list[Path], output: Path) -> None:
    """Join the ledgers of a run's stages into one."""
    texts = [part.read_bytes().decode() for part in parts]
    write_text(output, texts[0] + "".join(text.partition("\n")[2] for text in texts[1:]))
