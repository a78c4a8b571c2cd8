"""Figure 2: activation sparsity over training."""

from __future__ import annotations

from typing import Any

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import tokens
from prosparse.paper.figures.chart import GRAY, Drawn, chart_title, empty_figure, import_altair, ours_of, series_color
from prosparse.paper.results.labels import run_label
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.tables import published_table


def needs(experiment: Experiment) -> Needs:
    return Needs.of_chains(experiment, experiment.figures.sparsity_curves)


def build(results: Results) -> Drawn:
    text = "Figure 2. Sparsity over training"
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
                    "run": run,
                    "series": run_label(experiment, run),
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
        return empty_figure(results, text, "the runs that the experiment names for this figure are not trained")
    unit, name = (1e-9, "billions") if max(row["tokens"] for row in rows) >= 1e9 else (1e-6, "millions")
    for row in rows:
        row["progress"] = row["tokens"] * unit
    end = max(row["progress"] for row in rows)
    progress = alt.X(
        "progress:Q",
        scale=alt.Scale(domain=[0, end], nice=False),
        axis=alt.Axis(tickCount=8),
        title=f"Training tokens since the activation substitution ({name})",
    )
    top = max(row["high"] for row in rows)
    low = min(row["low"] for row in rows)
    scale = alt.Scale(domain=[max(0, 10 * (low // 10)), min(100, 10 * (top // 10 + 1))], clamp=True)
    layers = []
    # the progressive run: the first with a rising stage; its stages mark the plot
    shapes = {run: {stage.shape for stage in experiment.runs[run].stages} for run in runs}
    marked = next((run for run in runs if shapes[run] != {"constant"}), None)
    data: dict[str, Any] = {"data": rows, "marked": marked}
    subtitle = ""
    if marked is not None:
        stages = experiment.runs[marked].stages
        ends = [tokens(experiment, marked, index) * unit for index in range(len(stages))]
        bands = [
            {"from": ends[i - 1] if i else 0.0, "to": ends[i]} for i, stage in enumerate(stages) if stage.regularized
        ]
        middles = [{"at": ((ends[i - 1] if i else 0.0) + ends[i]) / 2, "stage": str(i)} for i in range(len(stages))]
        layers.append(
            alt.Chart(alt.Data(values=bands))
            .mark_rect(color="#E69F00", opacity=0.10)
            .encode(x=alt.X("from:Q"), x2="to:Q")
        )
        layers.append(
            alt.Chart(alt.Data(values=[{"end": end} for end in ends[:-1]]))
            .mark_rule(color=GRAY, strokeDash=[3, 3], strokeWidth=1)
            .encode(x="end:Q")
        )
        layers.append(
            alt.Chart(alt.Data(values=middles))
            .mark_text(color=GRAY, fontSize=11, dy=-7, baseline="bottom")
            .encode(x="at:Q", y=alt.value(0), text="stage:N")
        )
        subtitle = (
            f"Shaded: λ > 0 in {run_label(experiment, marked)}. Dashed: the ends of its stages, which are numbered at "
            "the top."
        )
        data["stage_ends"], data["regularized"] = ends, bands
    series = list(dict.fromkeys(row["series"] for row in rows))
    base = alt.Chart(alt.Data(values=rows))
    sparsity = alt.Y("sparsity:Q", title="Activation sparsity (%)", scale=scale)
    if several:
        layers.append(
            base.mark_area(opacity=0.2).encode(
                x=progress, y=alt.Y("low:Q", scale=scale), y2="high:Q", color=series_color(series, columns=2)["color"]
            )
        )
    layers.append(base.mark_line(strokeWidth=2.2).encode(x=progress, y=sparsity, **series_color(series, columns=2)))
    chart = alt.layer(*layers).properties(
        width=640,
        height=340,
        title=chart_title(
            results,
            text,
            ours_of(results, runs),
            "On training batches: share of exact zeros in x1, averaged over layers. "
            + ("Band: ± one standard deviation over seeds. " if several else "")
            + subtitle,
            _papers(),
        ),
    )
    return chart, data


def _papers() -> str:
    """Return the final sparsity that the paper prints for the curves it draws."""
    printed = {
        row["setting"].removesuffix("*").removesuffix("-7B"): row["average_sparsity"]
        for table in ("table1_early_baselines", "table1_overall")
        for row in published_table(table)
        if row["setting"] in ("Vanilla ReLU-7B", "Shifted ReLU-7B", "Fixed L1-7B", "ProSparse-7B*")
    }
    return f"The paper's 7B curves end at: {', '.join(f'{name} {share}%' for name, share in printed.items())}."
