"""The controller on simulated plants, where sparsity follows ln lambda along a line with lags and noise."""

import dataclasses
import itertools
import json
import math
import random

import numpy as np
import pytest
from helpers.repository import ROOT

from prosparse.method import controller
from prosparse.method.controller import GAIN, Controller, State, logit

MOMENTUM = 10  # steps by which Adam's first moment lags behind
START = logit(0.7)


def cosine(steps):
    return [0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]


def constant(steps):
    return [1.0] * steps


@dataclasses.dataclass
class Plant:
    """logit(sparsity) = start + the lagged softplus(slope (ln lambda - threshold)).

    The lags are spread like those that we found: under a constant lambda, sparsity never quite stops rising.

    Attributes:
        pace: multiplies the lags.
        noise: standard deviation of a batch's sparsity at 90%, in points.
    """

    slope: float
    pace: float
    threshold: float = 0.0
    noise: float = 0.0
    shares: tuple[float, ...] = (0.35, 0.2, 0.2, 0.25)
    lags: tuple[float, ...] = (8, 40, 200, 1000)

    def __post_init__(self):
        self.moment, self.risen = None, [0.0] * len(self.lags)
        self.random = random.Random(0)

    @property
    def sparsity(self):
        risen = sum(share * value for share, value in zip(self.shares, self.risen, strict=True))
        return 1 / (1 + math.exp(-(START + risen)))

    def measured(self):
        share = self.sparsity
        return share + self.random.gauss(0, self.noise / 100) * share * (1 - share) / 0.09

    def step(self, factor, rate):
        distance = 3 * self.slope * (math.log(factor or 1e-9) - self.threshold)
        aim = (math.log1p(math.exp(distance)) if distance < 30 else distance) / 3
        self.moment = aim if self.moment is None else self.moment + (aim - self.moment) / MOMENTUM
        for index, lag in enumerate(self.lags):
            self.risen[index] += rate * (self.moment - self.risen[index]) / (lag * self.pace)


def steered(plant, target, rates, l1=0.1):
    """Sparsity after each step and the lambda that it ran with; an L1 of 0.1 nats makes lambda start at 1."""
    steering, state, factor = Controller(target, sum(rates)), None, 0.0
    sparsity, factors = [], []
    for rate in rates:
        measured = plant.measured()
        plant.step(factor, rate)
        sparsity.append(plant.sparsity)
        factors.append(factor)
        state = steering.begin(factor, measured, l1) if state is None else steering.advance(state, measured, rate)
        factor = state.factor
    return sparsity, factors


PLANTS = list(itertools.product((0.5, 0.8, 1.2), (0.5, 1.0, 1.5), (-0.5, 1.0)))  # slope, pace, threshold


@pytest.mark.parametrize("rates", [cosine, constant])
@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
@pytest.mark.parametrize(("steps", "tolerance"), [(480, 0.5), (1500, 0.3), (3000, 0.3)])
def test_ends_at_the_target_and_does_not_oscillate(steps, tolerance, target, rates):
    for plant in itertools.starmap(Plant, PLANTS):
        plant.noise = 0.7
        sparsity, factors = steered(plant, target, rates(steps))
        last = sparsity[-steps // 10 :]
        assert 100 * abs(sparsity[-1] - target) < tolerance, plant
        assert 100 * (max(last) - min(last)) < 1, plant
        assert 100 * (max(sparsity) - target) < 3, plant
        assert max(factors) < 8 * factors[-1], plant


def ledgers():
    """Runs at a constant lambda from the first step, and the overnight experiment's, which are longer."""
    published = ROOT / "results/published"
    for pattern in ("schedules/checkpoints/constant-*-x[26]*", "overnight/checkpoints/*-immediate*"):
        for path in sorted(published.glob(f"{pattern}/seed0/stage0/ledger.csv")):
            if "decay" not in str(path) and "sft" not in str(path):
                yield path


@pytest.mark.parametrize("path", ledgers(), ids=lambda path: path.parts[-4])
def test_reference_is_the_way_of_measured_runs_at_constant_lambda(path):
    ledger = np.genfromtxt(path, delimiter=",", names=True)
    steps, rates = ledger["step"], ledger["learning_rate"]
    time = np.cumsum(np.interp(np.arange(1, steps[-1] + 1), steps, rates))[steps.astype(int) - 1] / rates.max()
    logits = np.array([logit(sparsity) for sparsity in ledger["sparsity"]])
    covered = (logits - logits[0]) / (logits[time > 0.99 * time[-1]].mean() - logits[0])
    reference = [Controller(0.9, time[-1])._covered(each) for each in time]
    later = time > 0.2 * time[-1]
    assert covered[later] == pytest.approx(np.array(reference)[later], abs=0.12)


def test_what_multiplies_lambda_by_a_constant_in_every_step_oscillates():
    """ReMoE's rule on a plant that the controller holds: a difference in kind, not in constants."""

    def swing(factors_to_sparsity):
        last = factors_to_sparsity[-100:]
        return 100 * (max(last) - min(last))

    rates, plant, factor, signs = constant(1000), Plant(1.0, 1.0), 1.0, []
    for rate in rates:
        plant.step(factor, rate)
        factor *= 1.2 if plant.sparsity < 0.9 else 1 / 1.2
        signs.append(plant.sparsity)
    assert swing(signs) > 5
    assert swing(steered(Plant(1.0, 1.0), 0.9, rates)[0]) < 0.5


def closed_loop(slope, lag, integral_time):
    """Poles of plant, momentum, smoothing and PI, per step: s (1+Ls) (1+10s) (1+5s) T + K k (1 + T s)."""
    lags = np.polymul(np.polymul([lag, 1], [MOMENTUM, 1]), [controller.SMOOTHING, 1])
    loop = GAIN * slope * np.array([integral_time, 1])
    return np.roots(np.polyadd(np.polymul(lags, [integral_time, 0]), loop))


def test_closed_loop_is_stable_and_damped_in_theory():
    """All poles have a damping ratio above 0.25: a swing falls to a fifth within its period."""
    for slope, lag in itertools.product((0.3, 0.7, 1.0, 1.5), (30, 50, 100, 200)):
        poles = closed_loop(slope, lag, max(lag / 2, controller.SHORTEST_INTEGRAL_TIME))
        assert poles.real.max() < 0, (slope, lag)
        assert (-poles.real / np.abs(poles)).min() > 0.25, (slope, lag)


@pytest.mark.parametrize("lag", [10, 30, 100])
def test_limit_of_stability_by_routh(lag):
    """Without the integral, the loop of three lags is unstable for K k > 4.5 + 0.3 L + 15 / L, as the module says."""
    lags = np.polymul(np.polymul([lag, 1], [MOMENTUM, 1]), [controller.SMOOTHING, 1])
    limit = 4.5 + 0.3 * lag + 15 / lag
    for share, stable in ((0.99, True), (1.01, False)):
        poles = np.roots(np.polyadd(lags, [share * limit]))
        assert (poles.real.max() < 0) == stable


def test_error_decays_as_the_closed_form_says():
    """Long after the rise, the slowest pole rules: with T >> L, the error falls by e in T (1 + K k) / (K k) steps."""
    slope, duration = 0.5, 100_000
    steering, integral_time = Controller(0.9, duration), controller.INTEGRAL_TIME * duration
    held = State(0.0, 0.0, START, logit(0.9), time=duration, steps=10)
    position, errors = logit(0.9), []
    wrong = -0.2 / slope  # the plant's line lies so much off
    for _ in range(30_000):
        position += (logit(0.9) + slope * (held.log_factor - controller.FEEDFORWARD * (logit(0.9) - START) + wrong)
                     - position) / 20  # fmt: skip
        held = steering.advance(held, 1 / (1 + math.exp(-position)), 1.0)
        errors.append(abs(logit(0.9) - position))
    expected = integral_time * (1 + GAIN * slope) / (GAIN * slope)
    found = 10_000 / math.log(errors[15_000] / errors[25_000])
    assert found == pytest.approx(expected, rel=0.02)


def test_lambda_starts_where_the_term_is_a_tenth_of_a_nat_or_at_the_previous_lambda():
    steering = Controller(0.9, 100)
    assert steering.begin(0.0, 0.7, 0.5).factor == pytest.approx(0.2)
    assert steering.begin(0.8, 0.7, 0.5).factor == pytest.approx(0.8)
    assert steering.begin(0.1, 0.7, 0.5).factor == pytest.approx(0.2)
    assert math.isfinite(steering.begin(0.0, 1.0, 0.0).factor)


def test_lambda_is_bounded_where_the_plant_does_not_respond():
    """Neither a plant that stays dense nor one that is sparser than the target makes lambda run away."""
    for stays, bound in ((0.5, controller.MOST), (0.99, controller.LEAST)):
        steering = Controller(0.9, 20_000)
        state = steering.begin(0.0, stays, 0.1)
        for _ in range(20_000):
            before, state = state, steering.advance(state, stays, 1.0)
            if state.steps > controller.SMOOTHING:
                assert abs(state.log_factor - before.log_factor) <= controller.LARGEST_CHANGE + 1e-12
        assert state.factor == pytest.approx(bound)
        # and it is back within a few steps of the plant's answer, for what it summed up is bounded, too
        other = 0.99 if stays == 0.5 else 0.5
        for _ in range(150):
            state = steering.advance(state, other, 1.0)
        assert (state.factor < bound / 10) if stays == 0.5 else (state.factor > 5 * bound)


def test_lambda_takes_its_predicted_value_in_the_first_steps():
    """As a constant lambda does; what the feedback adds by then is small."""
    steering = Controller(0.9, 1000)
    state = steering.begin(0.0, 0.5, 0.1)
    for _ in range(controller.SMOOTHING - 1):
        state = steering.advance(state, 0.5, 1.0)
    assert state.log_factor == pytest.approx(controller.FEEDFORWARD * logit(0.9), abs=0.1)


def test_nothing_is_summed_up_while_lambda_changes_as_fast_as_it_may():
    """A sudden loss of sparsity asks for more than ``LARGEST_CHANGE``: lambda rises, and the sum stands still."""
    steering = Controller(0.9, 1000)
    settled = State(0.0, 0.0, START, logit(0.9), integral=0.3, time=900, steps=900)
    first = steering.advance(settled, 0.01, 1.0)
    second = steering.advance(first, 0.01, 1.0)
    assert (first.integral, second.integral) == (0.3, 0.3)
    assert second.log_factor == pytest.approx(2 * controller.LARGEST_CHANGE)


def test_a_late_answer_does_not_raise_lambda_without_limit():
    """Where sparsity does not move for 100 steps, the feedback adds what an error of 0.4 adds."""
    steering = Controller(0.9, 1000)
    state = steering.begin(0.0, 0.5, 0.1)
    for _ in range(100):
        state = steering.advance(state, 0.5, 1.0)
    feedback = state.log_factor - controller.FEEDFORWARD * logit(0.9)
    assert feedback < GAIN * controller.LARGEST_ERROR * (1 + 100 / 50) + 1e-9


def test_without_a_learning_rate_lambda_stands_still():
    """At the end of a cosine schedule, an error that nothing can correct does not wind lambda up."""
    steering = Controller(0.9, 1000)
    state = State(0.0, 1.0, START, logit(0.85), integral=0.3, time=1000, steps=1000)
    for _ in range(50):
        state = steering.advance(state, 0.85, 0.0)  # lambda takes the place that the error assigns
    settled = state.factor
    for _ in range(1000):
        state = steering.advance(state, 0.85, 0.0)
    assert state.factor == pytest.approx(settled, rel=1e-9)


def test_state_survives_json_bit_for_bit():
    steering, noise = Controller(0.9, 77.7), random.Random(1)
    state = other = steering.begin(0.0, 0.712345678901, 0.7)
    for _ in range(50):
        sparsity = noise.uniform(0.6, 0.9)
        state = steering.advance(state, sparsity, 0.7)
        other = steering.advance(State(**json.loads(json.dumps(dataclasses.asdict(other)))), sparsity, 0.7)
    assert state == other
