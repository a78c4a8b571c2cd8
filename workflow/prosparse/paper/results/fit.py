"""Figure 3's fit: sparsity(%) = 100 - exp(a lambda^b + c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# the exponent's range; towards 0 the curve tends to a power law, in which a, b, c are indistinguishable
_EXPONENTS = (0.02, 4.0)


# two-sided 95 % quantiles of Student's t, by degrees of freedom
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


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
        """Return the curve's 95 % confidence interval at ``factor`` (delta method); None if it cannot be estimated."""
        if self.covariance is None:
            return None
        import numpy

        gradient = _jacobian(numpy.array([factor]), numpy.array([self.a, self.b, self.c]))[0]
        variance = float(gradient @ self.covariance @ gradient)
        quantile = _T95[self.degrees_of_freedom - 1] if self.degrees_of_freedom <= len(_T95) else 2.0
        half = quantile * max(variance, 0.0) ** 0.5
        middle = self.sparsity(factor)
        return middle - half, min(middle + half, 100.0)


def curve(factor: float, a: float, b: float, c: float) -> float:
    """Return 100 - exp(a factor^b + c), in percent."""
    import math

    return 100 - math.exp(a * factor**b + c)


def fit(factors: Sequence[float], sparsities: Sequence[float]) -> Fit:
    """Fit (a, b, c) to sparsities in percent at positive factors.

    Starts from a grid over b (a and c are then linear in log density) and refines all three by Levenberg-Marquardt.

    Raises:
        ValueError: on fewer than three distinct factors, a factor <= 0, or a sparsity outside [0, 100).
    """
    import numpy

    x, y = numpy.asarray(factors, float), numpy.asarray(sparsities, float)
    if len(set(factors)) < 3:
        raise ValueError(f"the fit has three parameters and needs three distinct lambda_S, not {len(set(factors))}")
    if (x <= 0).any():
        raise ValueError("the fit needs lambda_S > 0")
    if (y < 0).any() or (y >= 100).any():
        raise ValueError("the fit needs sparsities from 0 to below 100 %")

    def loss(parameters: Any) -> float:
        with numpy.errstate(over="ignore"):
            residuals = y - (100 - numpy.exp(parameters[0] * x ** parameters[1] + parameters[2]))
        return float(residuals @ residuals)

    starts = []
    weights = 100 - y  # d sparsity = -(100 - sparsity) d log density
    for b in numpy.geomspace(*_EXPONENTS, 120):
        design = numpy.stack([x**b, numpy.ones_like(x)], axis=1) * weights[:, None]
        (a, c), *_ = numpy.linalg.lstsq(design, numpy.log(100 - y) * weights, rcond=None)
        starts.append(numpy.array([a, b, c]))
    best = min(starts, key=loss)

    damping, error = 1e-3, loss(best)
    for _ in range(500):
        jacobian = _jacobian(x, best)
        residuals = y - (100 - numpy.exp(best[0] * x ** best[1] + best[2]))
        normal = jacobian.T @ jacobian
        step = numpy.linalg.lstsq(
            normal + damping * numpy.diag(numpy.diag(normal)), jacobian.T @ residuals, rcond=None
        )[0]
        candidate = best + step
        candidate[1] = min(max(candidate[1], _EXPONENTS[0]), _EXPONENTS[1])
        if loss(candidate) < error:
            converged = error - loss(candidate) <= 1e-14 * (error + 1e-14)
            best, error, damping = candidate, loss(candidate), max(damping / 3, 1e-12)
            if converged:
                break
        else:
            damping *= 4
            if damping > 1e12:
                break

    freedom = len(x) - 3
    total = float(((y - y.mean()) ** 2).sum())
    covariance = None
    if freedom > 0:
        jacobian = _jacobian(x, best)
        covariance = numpy.linalg.pinv(jacobian.T @ jacobian) * error / freedom
    return Fit(
        a=float(best[0]),
        b=float(best[1]),
        c=float(best[2]),
        degrees_of_freedom=freedom,
        residual_deviation=(error / freedom) ** 0.5 if freedom > 0 else None,
        r_squared=1 - error / total if total > 0 else float("nan"),
        covariance=covariance,
    )


def _jacobian(x: Any, parameters: Any) -> Any:
    """Return d sparsity / d (a, b, c), one row per factor."""
    import numpy

    a, b, c = parameters
    density = numpy.exp(a * x**b + c)
    return numpy.stack([-density * x**b, -density * a * x**b * numpy.log(x), -density], axis=1)
