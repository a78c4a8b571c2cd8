"""Upper bounds on the paper's speedups, from the bytes read per token."""

from __future__ import annotations

from functools import cache

from prosparse.published.settings import Setting, settings
from prosparse.published.shapes import HALF_BYTES, PREDICTOR_RANK, DecoderShape, published_shapes


@cache
def shapes() -> dict[str, DecoderShape]:
    """Return the shapes of Table 2's models by scale."""
    return {scale: published_shapes()[scale] for scale in dict.fromkeys(setting.scale for setting in settings())}


def speed(setting: Setting) -> float | None:
    """Return the printed tokens/s; None where the paper prints none."""
    text = setting.printed["inference_speed_tokens_per_s"]
    return float(text) if text else None


def dense_of(scale: str) -> Setting:
    return next(setting for setting in settings() if setting.scale == scale and setting.is_dense)


def speedup(setting: Setting) -> float | None:
    """Return the speedup over the scale's dense row, from the speeds; the paper prints some over another row."""
    ours, base = speed(setting), speed(dense_of(setting.scale))
    return None if ours is None or base is None else ours / base


def predicted_active(setting: Setting) -> float:
    return 1 - float(setting.printed["predicted_sparsity"]) / 100


def active_and_predicted(setting: Setting) -> float:
    """Return the share of elements both active and predicted active; at most the share predicted active."""
    recalled = setting.density * float(setting.printed["activation_recall"]) / 100
    return min(recalled, predicted_active(setting))


def weights_read(setting: Setting) -> float:
    """Return the weights read per token: all, or all projections' rows that PowerInfer's predictors call active."""
    shape = shapes()[setting.scale]
    return shape.dense_read if setting.is_dense else shape.predicted_read(PREDICTOR_RANK, predicted_active(setting))


def gigabytes(weights: float) -> float:
    return HALF_BYTES * weights / 1e9


def implied_bandwidth(setting: Setting) -> float | None:
    """Return the GB/s that a single memory would need to deliver everything a token reads."""
    rate = speed(setting)
    return None if rate is None else gigabytes(weights_read(setting)) * rate


def share_from_elsewhere(setting: Setting) -> float:
    """Return the least share of a token's bytes that the dense row's memory cannot have delivered in its time."""
    rate, bandwidth = speed(setting), implied_bandwidth(dense_of(setting.scale))
    assert rate is not None
    assert bandwidth is not None
    return 1 - bandwidth / rate / gigabytes(weights_read(setting))


def bound(setting: Setting) -> float:
    """Return the largest possible speedup of predicted over dense decoding in one memory."""
    return shapes()[setting.scale].dense_read / weights_read(setting)


def exact_bound(setting: Setting) -> float:
    """Return the largest possible speedup of exact over dense decoding in one memory."""
    shape = shapes()[setting.scale]
    return shape.dense_read / shape.exact_read(setting.density)


def largest(scale: str) -> Setting:
    """Return the row with the paper's largest printed speedup over dense at a scale."""
    printed = [setting for setting in settings() if setting.scale == scale and setting.printed.get("speedup_to_dense")]
    return max(printed, key=lambda setting: float(setting.printed["speedup_to_dense"]))
