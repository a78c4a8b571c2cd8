"""The overhead of regularization and measurement (``measurements/overhead.json``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prosparse.paper.markdown import markdown_table


def overhead(path: Path) -> list[str]:
    """Show the overhead of the L1 gradient in training, and of counting zeros in measurements."""
    if not path.exists():
        return ["Missing: not measured. It is measured only in experiments with a regularized run."]
    measured = json.loads(path.read_text(encoding="utf-8"))
    names = {
        ("training_step", "plain"): "Training step without regularization",
        ("training_step", "regularized"): "Training step with the L1 gradient",
        ("training_step", "regularized_and_measured"): "The same, also measuring sparsity (every `log_every` steps)",
        ("sparsity_measurement", "plain"): "Forward pass and loss",
        ("sparsity_measurement", "counting"): "The same, counting zeros",
    }
    slower = {
        ("training_step", "regularized"): "slowdown_regularized",
        ("training_step", "regularized_and_measured"): "slowdown_measured_step",
        ("sparsity_measurement", "counting"): "slowdown",
    }
    rows = []
    for (work, arm), name in names.items():
        rate = measured[work][arm]
        quartiles = f"{rate['lower_quartile']:,.0f} to {rate['upper_quartile']:,.0f}"
        cost = "–"
        if (work, arm) in slower:
            change = measured[work][slower[work, arm]]
            cost = f"{change['percent']:+.1f} ({change['lower_quartile']:+.1f} to {change['upper_quartile']:+.1f})"
        rows.append([name, f"{rate['tokens_per_second']:,.0f}", quartiles, cost, str(rate["repeats"])])
    header = ["Work", "Tokens/s (median)", "Quartiles", "Slowdown in % (quartiles)", "Repeats"]
    training = measured["training_step"]
    whole = training["slowdown_of_run_percent"]
    layers = measured["layers"]
    shortened = layers["measured"] < layers["of"]
    cut = f" Measured with the first {layers['measured']} of {layers['of']} layers." if shortened else ""
    return [
        *markdown_table(header, rows, numbers=4),
        "",
        f"Over a whole run, the L1 gradient and the ledger cost {whole:.1f}%.{cut}",
        "",
        *_training_rate(training),
    ]


def _training_rate(measured: dict[str, Any]) -> list[str]:
    """Show the share of the processor's speed that a training step reaches, and the gain of each optimization."""
    flop, arms = measured["flop_per_token"], {"plain": "Training step", "linear_layers": "Its linear layers only"}
    rows = [
        [name, f"{measured[arm]['tokens_per_second']:,.0f}", f"{flop * measured[arm]['tokens_per_second'] / 1e9:,.0f}"]
        for arm, name in arms.items()
    ]
    share = measured["share_of_matmul_rate"]
    levers = [
        [name, f"{rate['tokens_per_second']:,.0f}", f"{rate['lower_quartile']:,.0f} to {rate['upper_quartile']:,.0f}"]
        for name, rate in measured["levers"].items()
    ]
    return [
        f"Training step: {measured['tokens_per_step']:,} tokens, {measured['precision']}, {measured['threads']} "
        f"thread{'s' if measured['threads'] > 1 else ''}, {flop / 1e6:,.0f} MFLOP per token in linear "
        "layers (6 per weight; attention's own products are not counted).",
        "",
        *markdown_table(["Work", "Tokens/s (median)", "GFLOP/s"], rows, numbers=2),
        "",
        f"A training step reaches {share['median']:.0%} of the speed of its matrix products (quartiles "
        f"{share['lower_quartile']:.0%} to {share['upper_quartile']:.0%}). Optimizations, each on top of those above "
        "it:",
        "",
        *markdown_table(["Training step with", "Tokens/s (median)", "Quartiles"], levers, numbers=2),
    ]
