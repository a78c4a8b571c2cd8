"""Figures 1 to 4 and those behind Table 2: PNG, SVG and the plotted data as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prosparse.config import ConfigError, Experiment, Stage
from prosparse.files import write_json
from prosparse.method.schedule import factor
from prosparse.paper import acceleration, published
from prosparse.paper.acceleration_figure import figure_decoding, figure_predictors
from prosparse.paper.chart import (
    COLOURS,
    DASHES,
    GREY,
    HEIGHT,
    WIDTH,
    Drawn,
    chart_title,
    empty_figure,
    import_altair,
    log_ticks,
    series_colour,
)
from prosparse.paper.fit import curve, fit
from prosparse.paper.operator_figure import figure_operators
from prosparse.paper.origins import stands_in
from prosparse.paper.results import Needs, Results
from prosparse.runs import tokens


def _ours(results: Results, runs: list[str]) -> str:
    """What the runs of a figure are trained from."""
    words = list(dict.fromkeys(stands_in(results.experiment, None, run) for run in runs))
    return _sources(results, words)


def _sources(results: Results, words: list[str]) -> str:
    """One sentence on what ours is, the word stand-in once."""
    prefix = "stand-in: "
    stand_ins = [word.removeprefix(prefix) for word in words if word.startswith(prefix)]
    originals = [word for word in words if not word.startswith(prefix)]
    if stand_ins:
        originals.append(f"stand-in{'s' if len(stand_ins) > 1 else ''}: {'; '.join(stand_ins)}")
    return f"Ours: {'; '.join(originals)}; {_seeds(results)}."


def _seeds(results: Results) -> str:
    number = len(results.experiment.seeds)
    return f"{number} seed{'s' if number > 1 else ''}"


# ------------------------------------------------------------------------------------ figure 1


def _sampled(stages: list[Stage], label: str, unit: float) -> list[dict[str, Any]]:
    """lambda over progress; both sides of every jump, so that a constant stage is drawn flat."""
    rows: list[dict[str, Any]] = []
    start = 0
    for stage in stages:
        if stage.until == start:  # not trained: no lambda
            continue
        # just after the previous stage's last step, then evenly to this stage's last
        steps = [start + 1e-6, *(start + (stage.until - start) * k / 40 for k in range(1, 41))]
        rows += [{"series": label, "progress": step * unit, "lambda": factor(stages, step)} for step in steps]
        start = stage.until
    return rows


def published_stages(scale: str) -> list[Stage]:
    """The stages of Tables 6 and 7 (decay and SFT left out: separate runs of the 1B model)."""
    table = "table7_stages_minicpm" if scale == "1B" else "table6_stages_llama2"
    rows = [row for row in published.rows(table) if row["model"] == scale and row["stage"].isdigit()]
    return [
        Stage(
            until=int(row["accumulated_steps"]),
            shape="sine" if int(row["stage"]) >= 2 else "constant",
            peak=float(row["lambda"]),
        )
        for row in rows
    ]


def figure1(results: Results) -> Drawn:
    alt = import_altair()
    experiment = results.experiment
    panels, data = [], []
    for name, runs in (("ours", experiment.figures.schedule), ("published", ["7B", "13B", "1B"])):
        rows: list[dict[str, Any]] = []
        for run in runs:
            if name == "ours":
                rows += _sampled(experiment.runs[run].stages, run, 1.0)
            else:
                rows += _sampled(published_stages(run), run, 1e-3)
        if not rows:
            continue
        data += [{"panel": name, **row} for row in rows]
        title = "Ours" if name == "ours" else "Published (Tables 6 and 7)"
        unit = "Accumulated steps" if name == "ours" else "Accumulated steps (thousands)"
        panels.append(
            alt.Chart(alt.Data(values=rows))
            .mark_line(strokeWidth=2.5)
            .encode(
                x=alt.X("progress:Q", title=unit),
                y=alt.Y("lambda:Q", title="λ(t)", axis=alt.Axis(format="~g")),
                **series_colour(list(runs)),
            )
            .properties(width=380, height=HEIGHT, title=alt.TitleParams(title, fontSize=14))
        )
    schedule = experiment.figures.schedule
    ours = _ours(results, schedule) if schedule else "Ours: missing, the experiment names no run for this figure."
    chart = (
        alt.hconcat(*panels, spacing=40)
        .resolve_scale(color="independent", strokeDash="independent")
        .properties(
            title=chart_title(
                results,
                "Figure 1. Regularization factor λ(t) over training",
                ours,
                "λ is normalised differently in the two panels: ours multiplies the mean of |x1| over tokens and d_ff, "
                "summed over layers; the paper does not state its own.",
                wrap=165 if schedule else 80,
            )
        )
    )
    return chart, {"data": data}


# ------------------------------------------------------------------------------------ figure 2


def figure2(results: Results) -> Drawn:
    text = "Figure 2. Sparsity against training progress"
    experiment, runs = results.experiment, results.experiment.figures.sparsity_curves
    if not runs:
        return empty_figure(results, text, "the experiment names no run for this figure")
    alt = import_altair()
    rows: list[dict[str, Any]] = []
    several = len(experiment.seeds) > 1
    for run in runs:
        for entry in results.ledger(run):
            spread = entry.sparsity.spread or 0.0
            rows.append(
                {
                    "series": run,
                    "stage": entry.stage,
                    "step": entry.step,
                    "tokens": entry.tokens,
                    "lambda": entry.factor,
                    "sparsity": entry.sparsity.mean,
                    "low": entry.sparsity.mean - spread,
                    "high": entry.sparsity.mean + spread,
                }
            )
    if not rows:
        return empty_figure(results, text, "the runs that the experiment names for it are not trained")
    unit, name = (1e-9, "billions") if max(row["tokens"] for row in rows) >= 1e9 else (1e-6, "millions")
    for row in rows:
        row["progress"] = row["tokens"] * unit
    end = max(row["progress"] for row in rows)
    progress = alt.X(
        "progress:Q",
        scale=alt.Scale(domain=[0, end], nice=False),
        axis=alt.Axis(tickCount=8),
        title=f"Training tokens since the activation swap ({name})",
    )
    top = max(row["high"] for row in rows)
    low = min(row["low"] for row in rows)
    scale = alt.Scale(domain=[max(0, 10 * (low // 10)), min(100, 10 * (top // 10 + 1))], clamp=True)
    layers = []
    # the progressive run: the first with a rising stage; its stages mark the plot
    marked = next((run for run in runs if any(stage.shape == "sine" for stage in experiment.runs[run].stages)), None)
    data: dict[str, Any] = {"data": rows, "marked": marked}
    subtitle = ""
    if marked is not None:
        stages = experiment.runs[marked].stages
        ends = [tokens(experiment, marked, index) * unit for index in range(len(stages))]
        bands = [{"from": ends[i - 1] if i else 0.0, "to": ends[i]} for i, stage in enumerate(stages) if stage.peak > 0]
        middles = [{"at": ((ends[i - 1] if i else 0.0) + ends[i]) / 2, "stage": str(i)} for i in range(len(stages))]
        layers.append(
            alt.Chart(alt.Data(values=bands))
            .mark_rect(color="#E69F00", opacity=0.10)
            .encode(x=alt.X("from:Q"), x2="to:Q")
        )
        layers.append(
            alt.Chart(alt.Data(values=[{"end": end} for end in ends[:-1]]))
            .mark_rule(color=GREY, strokeDash=[3, 3], strokeWidth=1)
            .encode(x="end:Q")
        )
        layers.append(
            alt.Chart(alt.Data(values=middles))
            .mark_text(color=GREY, fontSize=11, dy=-7, baseline="bottom")
            .encode(x="at:Q", y=alt.value(0), text="stage:N")
        )
        subtitle = f"Shaded: λ > 0 in {marked}; dashed: ends of its stages, numbered on top."
        data["stage_ends"], data["regularized"] = ends, bands
    base = alt.Chart(alt.Data(values=rows))
    sparsity = alt.Y("sparsity:Q", title="Activation sparsity (%)", scale=scale)
    if several:
        layers.append(
            base.mark_area(opacity=0.2).encode(
                x=progress, y=alt.Y("low:Q", scale=scale), y2="high:Q", color=series_colour(list(runs))["color"]
            )
        )
    layers.append(base.mark_line(strokeWidth=2.2).encode(x=progress, y=sparsity, **series_colour(list(runs))))
    chart = alt.layer(*layers).properties(
        width=640,
        height=340,
        title=chart_title(
            results,
            text,
            _ours(results, runs),
            "Training batches; share of exact zeros in x1, mean over layers. "
            + ("Band: ± one standard deviation over seeds. " if several else "")
            + subtitle,
        ),
    )
    return chart, data


# ------------------------------------------------------------------------------------ figure 3


def final_points(results: Results) -> list[dict[str, Any]]:
    """(lambda_S, sparsity in percent) of each ``figures.final_factor`` run, under its own activation."""
    points = []
    for name in results.experiment.figures.final_factor:
        run = results.experiment.runs[name]
        measured = results.sparsity(name, run.activation).sparsity
        points.append(
            {
                "run": name,
                "lambda": run.stages[-1].peak,
                "sparsity": measured.mean,
                "spread": measured.spread,
                "series": "Ours, measured",
            }
        )
    return points


def figure3(results: Results) -> Drawn:
    text = "Figure 3. Final sparsity against the last stage's λ"
    runs = results.experiment.figures.final_factor
    if not runs:
        return empty_figure(results, text, "the experiment names no run for this figure")
    alt = import_altair()
    points = [point for point in final_points(results) if point["lambda"] > 0]
    left_out = [run for run in runs if run not in {point["run"] for point in points}]
    data: dict[str, Any] = {"data": points, "left_out": left_out}
    printed = "100 − exp(−1.76 λ^0.30 + 3.49)"
    ours_label, paper_label = "Ours: measured (points) and fit", "Paper's fit (its λ is normalised differently)"
    factors = [point["lambda"] for point in points]
    low, high = min([*factors, 1e-2]) / 1.3, max([*factors, 5e-1]) * 1.3
    grid = [low * (high / low) ** (k / 120) for k in range(121)]
    lines = [{"series": paper_label, "lambda": x, "sparsity": curve(x, *published.FIGURE3_FIT)} for x in grid]
    band: list[dict[str, float]] = []
    data["published_fit"] = dict(zip("abc", published.FIGURE3_FIT, strict=True))
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
                f"residual standard deviation {deviation:.2f} points; band: 95 % interval of the curve."
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
            .mark_area(color=COLOURS[0], opacity=0.15)
            .encode(x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q")
        )
    layers.append(
        alt.Chart(alt.Data(values=lines))
        .mark_line(strokeWidth=2.2)
        .encode(x=x, y=alt.Y("sparsity:Q", title="Activation sparsity (%)", scale=scale), **series_colour(domain))
    )
    base = alt.Chart(alt.Data(values=points))
    if len(results.experiment.seeds) > 1:
        bars = [
            {"lambda": p["lambda"], "low": p["sparsity"] - p["spread"], "high": p["sparsity"] + p["spread"]}
            for p in points
        ]
        layers.append(
            alt.Chart(alt.Data(values=bars))
            .mark_rule(color=COLOURS[0], strokeWidth=1.5)
            .encode(x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q")
        )
    layers.append(
        base.mark_point(size=80, filled=True, color=COLOURS[0], opacity=1).encode(
            x=x, y=alt.Y("sparsity:Q", scale=scale)
        )
    )
    chart = alt.layer(*layers).properties(
        width=WIDTH,
        height=320,
        title=chart_title(
            results,
            text,
            _ours(results, runs),
            sentence,
            f"Paper's fit: {printed}.",
            f"Left out, λ = 0: {', '.join(left_out)}." if left_out else "",
        ),
    )
    return chart, data


# ------------------------------------------------------------------------------------ figure 4


def figure4(results: Results) -> Drawn:
    text = "Figure 4. Layer-wise sparsity"
    experiment = results.experiment
    alt = import_altair()
    rows, panels, runs, absent, words = [], [], [], [], []
    without, shifted = "without threshold shifting", "with threshold shifting"
    for scale, (_, plain, final) in published.SCALES.items():
        drawn: list[dict[str, Any]] = []
        for label, key in ((without, plain), (shifted, final)):
            pair = experiment.rows.get(key)
            if pair is None:
                absent.append(key)
                continue
            run, activation = experiment.pair(pair)
            runs.append(run)
            words.append(stands_in(experiment, key, run))
            for layer, value in enumerate(results.sparsity(run, activation).layers):
                drawn.append(
                    {
                        "scale": scale,
                        "pair": f"{run}@{activation}",
                        "series": label,
                        "layer": layer + 1,
                        "sparsity": value.mean,
                        "low": value.mean - (value.spread or 0.0),
                        "high": value.mean + (value.spread or 0.0),
                    }
                )
        rows += drawn
        if drawn:
            panels.append((scale, drawn))
    if not panels:
        return empty_figure(results, text, "no run stands for a ProSparse row")
    floor = max(0, 10 * (min(row["low"] for row in rows) // 10))
    legend = alt.Legend(orient="bottom", title=None, symbolSize=90, symbolOpacity=1, labelLimit=400)
    charts = []
    for index, (scale, drawn) in enumerate(panels):
        layers = max(row["layer"] for row in drawn)
        base = alt.Chart(alt.Data(values=drawn))
        x = alt.X(
            "layer:Q",
            title="Layer (1 is the lowest)",
            scale=alt.Scale(domain=[1, max(layers, 2)], padding=12, nice=False),
            axis=alt.Axis(values=list(range(1, layers + 1, max(1, layers // 8))), format="d"),
        )
        y_scale = alt.Scale(domain=[floor, 100], clamp=True)
        y = alt.Y("sparsity:Q", title="Activation sparsity (%)" if index == 0 else None, scale=y_scale)
        series = [without, shifted]
        colour = alt.Color("series:N", scale=alt.Scale(domain=series, range=COLOURS), legend=legend, sort=None)
        shape = alt.Shape(
            "series:N", scale=alt.Scale(domain=series, range=["circle", "square"]), legend=legend, sort=None
        )
        parts = [
            *(
                alt.Chart(alt.Data(values=[row for row in drawn if row["series"] == label]))
                .mark_line(strokeWidth=2.2, strokeDash=dashes)
                .encode(x=x, y=y, color=colour)
                for label, dashes in zip(series, DASHES, strict=False)
            ),
            base.mark_point(filled=True, size=55, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
        ]
        if len(experiment.seeds) > 1:
            parts.insert(0, base.mark_rule().encode(x=x, y=alt.Y("low:Q", scale=y_scale), y2="high:Q", color=colour))
        pairs = list(dict.fromkeys(row["pair"] for row in drawn))
        charts.append(
            alt.layer(*parts).properties(
                width=300 if len(panels) > 1 else WIDTH,
                height=HEIGHT,
                title=alt.TitleParams(
                    f"ProSparse-{scale}",
                    subtitle=pairs,
                    fontSize=14,
                    subtitleFontSize=11,
                ),
            )
        )
    chart = alt.hconcat(*charts, spacing=24).properties(
        title=chart_title(
            results,
            text,
            _sources(results, list(dict.fromkeys(words))),
            "Held-out tokens of the mixed corpora.",
            f"Missing, no run stands for it: {', '.join(absent)}." if absent else "",
            wrap=60 * len(panels) + 30,
        )
    )
    return chart, {"data": rows, "missing": absent}


# ----------------------------------------------------------------------------------- the entry

FIGURES: dict[str, Callable[[Results], Drawn]] = {
    "figure1": figure1,
    "figure2": figure2,
    "figure3": figure3,
    "figure4": figure4,
    "figure_predictors": figure_predictors,
    "figure_decoding": figure_decoding,
    "figure_operators": figure_operators,
}


def inputs(name: str, experiment: Experiment) -> Needs:
    """What must be measured before ``name`` can be drawn."""
    _check(name)
    if name == "figure2":
        return Needs.of_chains(experiment, experiment.figures.sparsity_curves)
    if name == "figure3":
        return Needs(sparsity=set(experiment.figures.final_factor))
    if name == "figure4":
        keys = [key for _, plain, final in published.SCALES.values() for key in (plain, final)]
        return Needs(sparsity={experiment.pair(experiment.rows[key])[0] for key in keys if key in experiment.rows})
    if name == "figure_predictors":
        return acceleration.prediction_needs(experiment)
    if name == "figure_decoding":
        return acceleration.decoding_needs(experiment)
    if name == "figure_operators":
        return Needs(operators=experiment.operators is not None)
    return Needs()


def write(name: str, experiment: Experiment, directory: str | Path) -> list[Path]:
    """Writes ``directory/figures/{name}.png`` (scale 2), ``.svg`` and ``.json`` (the plotted data).

    Raises:
        ConfigError: no such figure.
        MissingResult: a measurement it needs does not exist; names the file.
    """
    _check(name)
    chart, data = FIGURES[name](Results(directory, experiment))
    chart = (
        chart.configure(
            font="Arial, Helvetica, Liberation Sans, DejaVu Sans, sans-serif", background="white", padding=14
        )
        .configure_axis(
            labelFontSize=13, titleFontSize=14, titleFontWeight="normal", gridColor="#E6E6E6", titlePadding=8
        )
        .configure_legend(labelFontSize=13, titleFontSize=13)
        .configure_title(
            fontSize=16, subtitleFontSize=12, subtitleColor="#444444", subtitleLineHeight=16, subtitlePadding=6
        )
        .configure_view(stroke="#BBBBBB")
    )
    folder = Path(directory) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, options in (("png", {"scale_factor": 2}), ("svg", {})):
        path, partial = folder / f"{name}.{suffix}", folder / f"{name}.partial.{suffix}"
        chart.save(str(partial), **options)
        os.replace(partial, path)
        written.append(path)
    write_json(folder / f"{name}.json", {"figure": name, "experiment": experiment.experiment, **_finite(data)})
    return [*written, folder / f"{name}.json"]


def _finite(data: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: None instead."""
    return json.loads(json.dumps(data), parse_constant=lambda _: None)


def _check(name: str) -> None:
    if name not in FIGURES:
        raise ConfigError(f"figure {name!r}: no such figure; there are {', '.join(FIGURES)}")
