"""Figure 3's fit: sparsity(%) = 100 - exp(a lambda^b + c)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prosparse.paper.statistics.estimate import Estimate

# the exponent's range; towards 0 the curve tends to a power law, in which a, b, c are indistinguishable
_EXPONENTS = (0.02, 4.0)


@dataclass(frozen=True)
class Fit:
    """Least squares in sparsity; ``covariance`` is of (a, b, c), None without a degree of freedom."""

    a: float
    b: float
    c: float
    degrees_of_freedom: int
    residual_deviation: float | None  # percentage points
    r_squared: float
    covariance: Any = None

    def sparsity(self, factor: float) -> float:
        return curve(factor, self.a, self.b, self.c)

    @property
    def identified(self) -> bool:
        """Whether the points determine the exponent: it lies inside its range, not at either end."""
        return 1.02 * _EXPONENTS[0] < self.b < _EXPONENTS[1] / 1.02

    def interval(self, factor: float) -> tuple[float, float] | None:
        """Return the curve's 95% confidence interval at ``factor`` (delta method); None if it cannot be estimated."""
        if self.covariance is None:
            return None
        import numpy

        gradient = _jacobian(numpy.array([factor]), self.a, self.b, self.c)[0]
        variance = float(gradient @ self.covariance @ gradient)
        at = Estimate(self.sparsity(factor), math.sqrt(max(variance, 0.0)), self.degrees_of_freedom)
        return at.lower, min(at.upper, 100.0)


def curve(factor: Any, a: float, b: float, c: float) -> Any:
    """Return 100 - exp(a factor^b + c), in percent."""
    import numpy

    return 100 - numpy.exp(a * factor**b + c)


def fit(factors: Sequence[float], sparsities: Sequence[float]) -> Fit:
    """Fit (a, b, c) to sparsities in percent at positive factors.

    Starts from the best of a grid over b, where a and c are linear in log density, and refines all three.

    Raises:
        ValueError: on fewer than three distinct factors, a factor <= 0, or a sparsity outside [0, 100).
    """
    import numpy
    from scipy.optimize import least_squares

    x, y = numpy.asarray(factors, float), numpy.asarray(sparsities, float)
    if len(set(factors)) < 3:
        raise ValueError(f"the fit has three parameters and needs three distinct lambda_S, not {len(set(factors))}")
    if (x <= 0).any():
        raise ValueError("the fit needs lambda_S > 0")
    if (y < 0).any() or (y >= 100).any():
        raise ValueError("the fit needs sparsities from 0 to below 100%")

    def loss(parameters: Any) -> float:
        with numpy.errstate(over="ignore"):
            return float(((curve(x, *parameters) - y) ** 2).sum())

    starts = []
    weights = 100 - y  # d sparsity = -(100 - sparsity) d log density
    for b in numpy.geomspace(*_EXPONENTS, 120):
        design = numpy.stack([x**b, numpy.ones_like(x)], axis=1) * weights[:, None]
        (a, c), *_ = numpy.linalg.lstsq(design, numpy.log(100 - y) * weights, rcond=None)
        starts.append(numpy.array([a, min(max(b, 1.0001 * _EXPONENTS[0]), _EXPONENTS[1] / 1.0001), c]))
    found = least_squares(
        lambda parameters: curve(x, *parameters) - y,
        min(starts, key=loss),
        jac=lambda parameters: _jacobian(x, *parameters),
        bounds=([-numpy.inf, _EXPONENTS[0], -numpy.inf], [numpy.inf, _EXPONENTS[1], numpy.inf]),
        x_scale="jac",
        ftol=1e-14,
        xtol=1e-14,
        gtol=1e-14,
        max_nfev=2000,
    )
    error, freedom = loss(found.x), len(x) - 3
    total = float(((y - y.mean()) ** 2).sum())
    covariance = None
    if freedom > 0:
        jacobian = _jacobian(x, *found.x)
        covariance = numpy.linalg.pinv(jacobian.T @ jacobian) * error / freedom
    a, b, c = (float(parameter) for parameter in found.x)
    return Fit(
        a,
        b,
        c,
        degrees_of_freedom=freedom,
        residual_deviation=(error / freedom) ** 0.5 if freedom > 0 else None,
        r_squared=1 - error / total if total > 0 else float("nan"),
        covariance=covariance,
    )


def left_out_errors(factors: Sequence[float], sparsities: Sequence[float]) -> tuple[float, float]:
    """Return how well a fit to the other factors predicts the sparsity at one, as root mean squares in points.

    All points of one factor are left out together.

    Returns:
        That of the three-parameter curve, and that of a rival with two: density as a power of lambda.
    """
    import numpy

    errors: list[tuple[float, float]] = []
    points = list(zip(factors, sparsities, strict=True))
    for left_out in sorted(set(factors)):
        kept = [(x, y) for x, y in points if x != left_out]
        three = fit(*zip(*kept, strict=True)).sparsity(left_out)
        logarithms = numpy.log([(x, 100 - y) for x, y in kept])
        slope, start = numpy.polyfit(logarithms[:, 0], logarithms[:, 1], 1)
        two = 100 - math.exp(start + slope * math.log(left_out))
        errors += [(three - y, two - y) for x, y in points if x == left_out]
    return tuple(math.sqrt(math.fsum(e * e for e in each) / len(errors)) for each in zip(*errors, strict=True))  # type: ignore[return-value]


def _jacobian(x: Any, a: float, b: float, c: float) -> Any:
    """Return d sparsity / d (a, b, c), one row per factor."""
    import numpy

    density = numpy.exp(a * x**b + c)
    return numpy.stack([-density * x**b, -density * a * x**b * numpy.log(x), -density], axis=1)
