"""Trackers that follow training, through transformers' own integrations"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from transformers import Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback, WandbCallback

from prosparse.system.errors import ConfigError

Tracker = Literal["tensorboard", "trackio", "wandb"]


def check(tracker: Tracker | None) -> None:
    """Raise ConfigError if the tracker's package is not installed."""
    if tracker is not None and find_spec(tracker) is None:
        raise ConfigError(f"--report-to {tracker}: the package is not installed: pip install {tracker}")


def options(tracker: Tracker | None, output: Path) -> dict[str, Any]:
    """Options of the TrainingArguments for a training stage in ``output``."""
    if tracker is None:
        return {"report_to": "none"}
    return {"report_to": tracker, "run_name": str(output), "project": "prosparse"}


def prepare(trainer: Trainer, output: Path) -> None:
    """Let TensorBoard's files outlive the stage's temporary folder, and let W&B end a run with the stage."""
    for callback in list(trainer.callback_handler.callbacks):
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(output / "tensorboard")
        if isinstance(callback, WandbCallback):
            trainer.add_callback(_EndOfRun())


class _EndOfRun(TrainerCallback):
    """Ends the W&B run, which a later training in this process would otherwise continue."""

    def on_train_end(self, *_: Any, **__: Any) -> None:
        import wandb

        wandb.finish()
