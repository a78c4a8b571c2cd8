"""The learning rate of a run's steps, against the optimizer's scheduler."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import get_scheduler

from prosparse.experiment.training import Training
from prosparse.training.trainer import _SCHEDULES, _decay


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
@pytest.mark.parametrize("warmup", [0, 7])
def test_rates_are_the_optimizers(schedule, warmup):
    training = Training(
        learning_rate=0.5, schedule=schedule, decay_share=0.3 if schedule == "wsd" else None, warmup_steps=warmup,
        batch_size=1, micro_batch_size=1,
    )  # fmt: skip
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    scheduler = get_scheduler(
        _SCHEDULES.get(schedule, schedule), optimizer, num_warmup_steps=warmup, num_training_steps=40,
        scheduler_specific_kwargs=_decay(training, 40),
    )  # fmt: skip
    shares = []
    for step in range(1, 41):
        shares.append(scheduler.get_last_lr()[0] / 0.5)
        assert training.rate(step, 40) == pytest.approx(shares[-1], abs=1e-12), step
        optimizer.step()
        scheduler.step()
    assert training.time(40, after=12) == pytest.approx(sum(shares[12:]))


def test_a_cosines_time_is_its_integral():
    """Of LLaMA2-7B's 16,500 steps, those after stage 0."""
    training = Training(learning_rate=3e-5, warmup_steps=0, batch_size=1, micro_batch_size=1)
    start = 5000 / 16500
    integral = 16500 * ((1 - start) / 2 - math.sin(math.pi * start) / (2 * math.pi))
    assert training.time(16500, after=5000) == pytest.approx(integral, rel=1e-3)
