"""Figure 3: final sparsity over the last stage's lambda, with its fit."""

from __future__ import annotations

from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.paper.figures.chart import (
    COLORS,
    WIDTH,
    Drawn,
    chart_title,
    empty_figure,
    import_altair,
    log_ticks,
    ours_of,
    series_color,
)
from prosparse.paper.results.final_factor import final_points
from prosparse.paper.results.fit import curve, fit
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.tables import FIGURE3_FIT


def needs(experiment: Experiment) -> Needs:
    return Needs(sparsity=set(experiment.figures.final_factor))


def build(results: Results) -> Drawn:
    text = "Figure 3. Final sparsity over the last stage's λ"
    runs = results.experiment.figures.final_factor
    if not runs:
        return empty_figure(results, text, "the experiment names no run for this figure")
    alt = import_altair()
    points = [point for point in final_points(results) if point["lambda"] > 0]
    left_out = [run for run in runs if run not in {point["run"] for point in points}]
    data: dict[str, Any] = {"data": points, "left_out": left_out}
    printed = "100 − exp(−1.76 λ^0.30 + 3.49)"
    ours_label, paper_label = "Ours: measured (points) and fit", "Paper's fit (its λ is normalized differently)"
    factors = [point["lambda"] for point in points]
    low, high = min([*factors, 1e-2]) / 1.3, max([*factors, 5e-1]) * 1.3
    grid = [low * (high / low) ** (k / 120) for k in range(121)]
    lines = [{"series": paper_label, "lambda": x, "sparsity": curve(x, *FIGURE3_FIT)} for x in grid]
    band: list[dict[str, float]] = []
    data["published_fit"] = dict(zip("abc", FIGURE3_FIT, strict=True))
    try:
        fitted = fit(factors, [point["sparsity"] for point in points])
    except ValueError as error:
        sentence = f"No fit of ours: {error}."
    else:
        inside = [x for x in grid if min(factors) / 1.05 <= x <= max(factors) * 1.05]
        lines += [{"series": ours_label, "lambda": x, "sparsity": fitted.sparsity(x)} for x in inside]
        for x in inside:
            interval = fitted.interval(x)
            if interval is not None:
                band.append({"lambda": x, "low": max(interval[0], 0.0), "high": interval[1]})
        deviation = fitted.residual_deviation
        sentence = (
            f"Our fit: 100 − exp({fitted.a:.3g} λ^{fitted.b:.3g} + {fitted.c:.3g})".replace("-", "−").replace(
                "+ −", "− "
            )
            + f", R² = {fitted.r_squared:.3f}, {len(points)} points, "
            + (
                f"residual standard deviation {deviation:.2f} points; band: 95% interval of the curve."
                if deviation is not None
                else "as many as parameters, so no interval."
            )
        )
        if not fitted.identified:
            sentence += " The points do not determine the exponent."
        data["fit"] = {
            "identified": fitted.identified,
            "a": fitted.a,
            "b": fitted.b,
            "c": fitted.c,
            "r_squared": fitted.r_squared,
            "degrees_of_freedom": fitted.degrees_of_freedom,
            "residual_deviation": deviation,
            "residuals": {p["run"]: p["sparsity"] - fitted.sparsity(p["lambda"]) for p in points},
        }
    data["curves"], data["interval"] = lines, band
    everything = [p["sparsity"] for p in points] + [line["sparsity"] for line in lines]
    floor = max(0, 10 * (min(everything) // 10))
    x = alt.X(
        "lambda:Q",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        title="λ of the last stage (log scale)",
        axis=alt.Axis(values=log_ticks(low, high), format="~g", labelOverlap=True),
    )
    scale = alt.Scale(domain=[floor, 100], clamp=True)
    domain = [ours_label, paper_label]
    layers = []
    if band:
        layers.append(
            alt.Chart(alt.Data(values=band))
            .mark_area(color=COLORS[0], opacity=0.15)
            .encode(x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q")
        )
    layers.append(
        alt.Chart(alt.Data(values=lines))
        .mark_line(strokeWidth=2.2)
        .encode(x=x, y=alt.Y("sparsity:Q", title="Activation sparsity (%)", scale=scale), **series_color(domain))
    )
    base = alt.Chart(alt.Data(values=points))
    if len(results.experiment.seeds) > 1:
        bars = [
            {"lambda": p["lambda"], "low": p["sparsity"] - p["spread"], "high": p["sparsity"] + p["spread"]}
            for p in points
        ]
        layers.append(
            alt.Chart(alt.Data(values=bars))
            .mark_rule(color=COLORS[0], strokeWidth=1.5)
            .encode(x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q")
        )
    layers.append(
        base.mark_point(size=80, filled=True, color=COLORS[0], opacity=1).encode(
            x=x, y=alt.Y("sparsity:Q", scale=scale)
        )
    )
    chart = alt.layer(*layers).properties(
        width=WIDTH,
        height=320,
        title=chart_title(
            results,
            text,
            ours_of(results, runs),
            sentence,
            f"Paper's fit: {printed}.",
            f"Left out (λ = 0): {', '.join(left_out)}." if left_out else "",
        ),
    )
    return chart, data
