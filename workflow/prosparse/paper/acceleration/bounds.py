"""Upper bounds on the paper's speedups, from the bytes that a token reads and the numbers that the paper prints."""

from __future__ import annotations

from functools import cache

from prosparse.published.settings import Setting, settings
from prosparse.published.shapes import HALF_BYTES, PREDICTOR_RANK, DecoderShape, published_shapes


@cache
def shapes() -> dict[str, DecoderShape]:
    """The shapes of Table 2's models, by scale."""
    return {scale: published_shapes()[scale] for scale in dict.fromkeys(setting.scale for setting in settings())}


def speed(setting: Setting) -> float | None:
    """Tokens/s as printed; None where the paper prints none."""
    text = setting.printed["inference_speed_tokens_per_s"]
    return float(text) if text else None


def dense_of(scale: str) -> Setting:
    return next(setting for setting in settings() if setting.scale == scale and setting.is_dense)


def speedup(setting: Setting) -> float | None:
    """Over the dense row of its scale, from the speeds; the paper prints some over another row."""
    ours, base = speed(setting), speed(dense_of(setting.scale))
    return None if ours is None or base is None else ours / base


def predicted_active(setting: Setting) -> float:
    return 1 - float(setting.printed["predicted_sparsity"]) / 100


def active_and_predicted(setting: Setting) -> float:
    """Share of elements that are active and predicted so; no more than are predicted active."""
    recalled = setting.density * float(setting.printed["activation_recall"]) / 100
    return min(recalled, predicted_active(setting))


def weights_read(setting: Setting) -> float:
    """Per token: all weights, or with PowerInfer's predictors the rows predicted active of all three projections."""
    shape = shapes()[setting.scale]
    return shape.dense_read if setting.is_dense else shape.predicted_read(PREDICTOR_RANK, predicted_active(setting))


def gigabytes(weights: float) -> float:
    return HALF_BYTES * weights / 1e9


def implied_bandwidth(setting: Setting) -> float | None:
    """GB/s if a single memory delivered all that a token reads."""
    rate = speed(setting)
    return None if rate is None else gigabytes(weights_read(setting)) * rate


def share_from_elsewhere(setting: Setting) -> float:
    """The least share of a token's bytes that the dense row's memory cannot have delivered in the token's time."""
    rate, bandwidth = speed(setting), implied_bandwidth(dense_of(setting.scale))
    assert rate is not None
    assert bandwidth is not None
    return 1 - bandwidth / rate / gigabytes(weights_read(setting))


def bound(setting: Setting) -> float:
    """The largest speedup of predicted decoding over dense, in one memory."""
    return shapes()[setting.scale].dense_read / weights_read(setting)


def exact_bound(setting: Setting) -> float:
    """The largest speedup of exact decoding over dense, in one memory."""
    shape = shapes()[setting.scale]
    return shape.dense_read / shape.exact_read(setting.density)


def largest(scale: str) -> Setting:
    """The row whose speedup over dense is the largest that the paper prints at a scale."""
    printed = [setting for setting in settings() if setting.scale == scale and setting.printed.get("speedup_to_dense")]
    return max(printed, key=lambda setting: float(setting.printed["speedup_to_dense"]))
