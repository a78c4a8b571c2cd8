"""Steer lambda by measured sparsity, so that a stage ends at its target (ours)

Sparsity s enters as logit(s) = ln(s / (1 - s)). Over ln lambda, its equilibrium is close to a line: in our runs,
doubling lambda adds 0.3 to 0.7, which is 3 to 6 points at 87% and 1 to 3 points at 95%. It follows lambda with a lag
of tens to hundreds of steps, which grows as the learning rate falls.

The best schedule we know of is a constant lambda from the first step. Under a constant lambda, the logit completes
about tau^(1/4) of its total change in the first fraction tau of the stage's time: in our runs of 480 to 2,400 steps, on
three bases, 0.71 to 0.80 of it at 24%, 0.81 to 0.87 at 40% and 0.94 to 0.96 at 80%. So the reference r covers tau^(1/4)
of the way from the sparsity at the start to the target, and lambda comes out nearly constant. A proportional-integral
controller tracks the reference::

    ln lambda = ln lambda_0 + 1.5 (logit(target) - r_0) + K e + K / T * sum of e,    e = r - smoothed logit(s)

Time weights each step by its learning rate, as a share of the peak. In this time, the lag is constant, and where the
learning rate is near zero, the sum stays constant. T is 5% of a stage's time, but at least 30 steps at the
peak rate. Sparsity responds to lambda with a delay, and an early excess of lambda costs loss. So lambda takes its
predicted value in the first steps, as a constant lambda does; e fades in over the first 60 steps at the peak rate, or
the first quarter of a short stage, and is at most 0.4; and the sum stands still while lambda is at a limit.

ReMoE (Wang et al., ICLR 2025) multiplies lambda by 1.2 or 1/1.2 in every step, depending on the sign of the error:
with any lag, sparsity then oscillates around the target forever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

#: K, in units of ln lambda per unit of the logit. Where sparsity follows with slope k and a lag of L steps, Adam's
#: momentum adds a lag of 10 and the smoothing one of 5. By Routh's criterion, such a loop is stable for
#: K k < 4.5 + 0.3 L + 15 / L. We found k < 1.5 and L > 20: K k is less than a third of it.
GAIN = 2.0
#: ln lambda per unit of the way to the target; below the 1.7 to 3.1 that we found, so that the feedback need not
#: correct an overshoot.
FEEDFORWARD = 1.5
#: Of tau, in the reference.
EXPONENT = 0.25
#: Share of a stage's time.
INTEGRAL_TIME = 0.05
#: At least so many steps at the peak learning rate.
SHORTEST_INTEGRAL_TIME = 30
#: Steps at the peak learning rate over which the feedback fades in; in a short stage, a quarter of its time.
FADE_IN = 60
#: In units of the logit, where sparsity is too low: if a model answers late, a larger one drives lambda far too high.
#: The errors in our published runs are smaller. With 0.2, late models end too dense in simulations: by up to 18 points
#: after 200 steps (13 with 0.4), and up to 8 after 480 (2).
LARGEST_ERROR = 0.4
#: Steps over which the measured sparsity is smoothed, and from which r_0 is taken.
SMOOTHING = 5
#: Largest change of ln lambda in a step, once r_0 is known. While lambda rose to its predicted value at this rate, the
#: errors summed up: on minicpm at 95%, it rose to 2.7 times the value it settled at, which cost 0.043 nats.
LARGEST_CHANGE = 0.1
#: From where lambda is predicted, as its L1 term in nats. In our runs, sparsity responds from 0.1 to 0.3 nats on, in
#: every model, and stays below 0.5 nats.
FIRST_TERM = 0.1
#: Bounds of lambda as multiples of where it started.
LEAST, MOST = 1e-2, 1e4


def logit(share: float) -> float:
    """Return ln(s / (1 - s)); finite for shares of 0 and 1, too."""
    share = min(max(share, 1e-4), 1 - 1e-4)
    return math.log(share / (1 - share))


@dataclass(frozen=True)
class State:
    """What the controller remembers; numbers only, so that JSON holds it exactly.

    Attributes:
        start, log_factor: ln lambda at the start and now.
        first, smoothed: smoothed logit of the sparsity at the start and now.
        integral: the sum's part of ln lambda.
        time: of the steps so far, each weighted by its learning rate.
        steps: their number.
    """

    start: float
    log_factor: float
    first: float
    smoothed: float
    integral: float = 0.0
    time: float = 0.0
    steps: int = 1

    @property
    def factor(self) -> float:
        """Lambda for the next step."""
        return math.exp(self.log_factor)


@dataclass(frozen=True)
class Controller:
    """Maps a state and a step's measured sparsity to the next state.

    Attributes:
        target: sparsity at the stage's end, between 0 and 1.
        duration: time of the whole stage: the sum over its steps of the learning rate's share of its peak.
    """

    target: float
    duration: float

    def begin(self, previous: float, sparsity: float, l1: float) -> State:
        """Return the state after the stage's first step, which ran with the ``previous`` lambda.

        Args:
            previous: lambda before the stage; 0 for none.
            sparsity: measured in the first step, 0 to 1.
            l1: sum over layers of mean |x1|, likewise.
        """
        start = math.log(max(previous, FIRST_TERM / max(l1, 1e-6)))
        measured = logit(sparsity)
        return State(start, start, measured, measured)

    def advance(self, state: State, sparsity: float, rate: float) -> State:
        """Return the state after a step that measured ``sparsity`` at ``rate``, its share of the peak learning rate."""
        steps, time = state.steps + 1, state.time + rate
        smoothed = state.smoothed + (logit(sparsity) - state.smoothed) / min(steps, SMOOTHING)
        first = smoothed if steps <= SMOOTHING else state.first
        way = logit(self.target) - first
        error = min((first + way * self._covered(time) - smoothed) * self._faded_in(time), LARGEST_ERROR)
        integral = state.integral + GAIN * error * rate / max(INTEGRAL_TIME * self.duration, SHORTEST_INTEGRAL_TIME)
        wanted = state.start + FEEDFORWARD * way + GAIN * error + integral
        bounded = min(max(wanted, state.start + math.log(LEAST)), state.start + math.log(MOST))
        change = min(max(bounded - state.log_factor, -LARGEST_CHANGE), LARGEST_CHANGE)
        log_factor = bounded if steps <= SMOOTHING else state.log_factor + change
        if (wanted - log_factor) * error > 0:  # at a limit: what is summed up there only delays the return
            integral = state.integral
        return replace(
            state,
            log_factor=log_factor,
            first=first,
            smoothed=smoothed,
            integral=integral,
            time=time,
            steps=steps,
        )

    def _covered(self, time: float) -> float:
        """Return the share of its way that the reference has covered."""
        return min(time / self.duration, 1.0) ** EXPONENT if self.duration else 1.0

    def _faded_in(self, time: float) -> float:
        """Return the share of the feedback that acts."""
        return min(time / min(FADE_IN, self.duration / 4), 1.0) if self.duration else 1.0
