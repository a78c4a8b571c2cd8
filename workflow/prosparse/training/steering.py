"""Lambda in a stage with a target: the controller's state, saved with the Trainer's"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers.trainer_callback import TrainerState

from prosparse.experiment.training import Stage
from prosparse.method.controller import Controller, State
from prosparse.method.schedule import factor, stage_at

#: Its key among the Trainer's saved callback states; no class name, since those the Trainer would restore itself.
KEY = "prosparse.steering"


@dataclass(frozen=True)
class Steering:
    """The progress of a stage with a target.

    Attributes:
        stage: its index.
        duration: the stage's steps, each weighted by its share of the peak learning rate.
        controller: the controller's state.
        last_sum, last_steps: sum of the sparsity over steps in the last tenth of the stage, and their number.
    """

    stage: int
    duration: float
    controller: State
    last_sum: float = 0.0
    last_steps: int = 0

    @classmethod
    def saved_in(cls, state: TrainerState | dict[str, Any]) -> Steering | None:
        """Return what a Trainer's state holds, or its file; None if no stage with a target has begun."""
        callbacks: Any = state["stateful_callbacks"] if isinstance(state, dict) else state.stateful_callbacks
        held = callbacks.get(KEY)
        return None if held is None else cls(**{**held, "controller": State(**held["controller"])})

    def save_in(self, state: TrainerState) -> None:
        state.stateful_callbacks[KEY] = asdict(self)  # type: ignore[call-overload, index]

    @property
    def reached(self) -> float | None:
        """Mean sparsity of the steps in the stage's last tenth, 0 to 1; None before them."""
        return self.last_sum / self.last_steps if self.last_steps else None


def lambda_before(stages: Sequence[Stage], step: int, steering: Steering | None) -> float:
    """Return the lambda for a step of a stage with a target: the controller's, or at first the previous stage's."""
    if steering is not None:
        return steering.controller.factor
    _, start = stage_at(stages, step)
    return factor(stages, start) if start else 0.0


def after_step(
    stages: Sequence[Stage], step: int, steering: Steering | None, measured: tuple[float, float], scheduler: Any
) -> Steering:
    """Return the state after a step of a stage with a target.

    Args:
        steering: the state before it; None if no stage with a target has begun.
        measured: the step's L1 and sparsity, as ``distributed.measured`` returns them.
        scheduler: of the learning rate. If it is not a ``LambdaLR``, all steps have equal weight.
    """
    index, start = stage_at(stages, step)
    end, target = stages[index].until, stages[index].target_sparsity
    assert target is not None
    l1, sparsity = measured
    if steering is None or steering.stage != index:
        duration = sum(_rate(scheduler, each) for each in range(start + 1, end + 1))
        first = Controller(target, duration).begin(lambda_before(stages, step, steering), sparsity, l1)
        found = Steering(index, duration, first)
    else:
        controller = Controller(target, steering.duration)
        found = replace(steering, controller=controller.advance(steering.controller, sparsity, _rate(scheduler, step)))
    if step > end - max(1, (end - start) // 10):
        found = replace(found, last_sum=found.last_sum + sparsity, last_steps=found.last_steps + 1)
    return found


def _rate(scheduler: Any, step: int) -> float:
    """Return the learning rate of a step (1 is the first) as a share of its peak."""
    lambdas = getattr(scheduler, "lr_lambdas", None)
    return float(lambdas[0](step - 1)) if lambdas else 1.0
