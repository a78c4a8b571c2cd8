"""The Hugging Face model card of a pair (checkpoint, activation)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prosparse.experiment import lineage, table2_rows
from prosparse.experiment.activation import Activation
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.training import Stage
from prosparse.paper.markdown import markdown_table
from prosparse.paper.release.loading import loading
from prosparse.paper.release.metadata import license_of, metadata
from prosparse.paper.results import accelerated
from prosparse.paper.results.accelerated import KINDS
from prosparse.paper.results.chance import averaged, originals
from prosparse.paper.results.decoding import MODES, trained_decoding
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.origins import origin, stands_in
from prosparse.paper.results.prediction import read_prediction
from prosparse.paper.results.reader import MissingResult, Results
from prosparse.paper.results.value import Value
from prosparse.paper.tables.table import MISSING
from prosparse.published.tables import BENCHMARKS, LABELS

FORMULAS = {
    "silu": "SiLU, x · sigmoid(x)",
    "relu": "ReLU, max(x, 0)",
    "relu2": "squared ReLU, max(x, 0)²",
    "drelu": "ReLU, max(x, 0), and the same after the up projection (dReLU)",
    "shiftrelu": "shifted ReLU, max(x − {0:g}, 0)",
    "fatrelu": "FATReLU, x where x ≥ {0:g}, else 0",
}


def needs(experiment: Experiment, pair: str) -> Needs:
    """Return the measurements that the card needs; predictions and decoding only if the experiment includes them."""
    run, activation = experiment.pair(pair)
    named, needs = f"{run}@{activation}", Needs.of_pairs(experiment, [pair])
    needs |= Needs(stages=set(lineage.lineage(experiment, run))) | originals(experiment, [(None, run)])
    if named in table2_rows.predicted(experiment).values():
        needs |= Needs(prediction={(run, str(activation))})
    if experiment.decoding is not None and named in table2_rows.decoded(experiment).values():
        needs |= Needs(decoding=True)
    return needs


def render(results: Results, run: str, activation: Activation, settings: dict[str, Any]) -> str:
    """Render the README.md of a folder whose config.json holds ``settings``."""
    experiment = results.experiment
    sections: dict[str, Callable[[], Iterator[str]]] = {
        "Training": lambda: _training(results, run),
        "Sparsity and held-out loss": lambda: _sparsity(results, run, activation),
        "Benchmarks": lambda: _benchmarks(results, run, activation),
        "Predicted decoding": lambda: _prediction(results, run, activation),
        "How to load it": lambda: loading(activation, settings),
    }
    lines = ["---", metadata(experiment, run, activation).to_yaml(), "---", "", f"# {run}, {activation}", ""]
    lines += _introduction(experiment, run, activation, settings)
    for title, section in sections.items():
        lines += ["", f"## {title}", ""]
        try:
            lines += section()
        except MissingResult as error:
            lines.append(f"_{MISSING}: {str(error).replace(f'{results.layout.directory}/', '')}_")
    return "\n".join(lines) + "\n"


def _introduction(experiment: Experiment, run: str, activation: Activation, settings: dict[str, Any]) -> Iterator[str]:
    rows = [row for row, pair in experiment.rows.items() if experiment.pair(pair) == (run, activation)]
    words, name = origin(experiment, run)
    yield (
        "A language model with sparse FFN activations: a neuron whose gate is zero needs neither its row of the up "
        "projection nor its column of the down projection. Trained by an independent reproduction of "
        "[ProSparse](https://arxiv.org/abs/2402.13516) (Song et al., COLING 2025), not by its authors."
    )
    yield ""
    yield f"- **Starts from**: {words}"
    yield f"- **Activation of the gate**: {FORMULAS[activation.name].format(activation.parameter)} (`{activation}`)"
    yield (
        f"- **Shape**: `{settings['model_type']}`, {settings['num_hidden_layers']} layers, hidden size "
        f"{settings['hidden_size']:,}, intermediate size {settings['intermediate_size']:,}, vocabulary "
        f"{settings['vocab_size']:,}; weights in {settings.get('dtype', 'float32')}"
    )
    license = license_of(name)
    yield (
        f"- **License**: {license}, that of the model it starts from"
        if license
        else (
            "- **License**: unspecified, because that of its starting point is not known here. State one before you "
            "upload it"
        )
    )
    if rows:
        named = ", ".join(f"`{row}`" for row in rows)
        yield f"- **Stands for** {named} in the paper's tables: {stands_in(experiment, rows[0], run)}"
    else:
        yield f"- **Stands for** no row of the paper's tables: {stands_in(experiment, None, run)}"
    yield f"- **Seed**: {experiment.seeds[0]}; every number below was measured on these weights"


def _training(results: Results, run: str) -> Iterator[str]:
    experiment, rows = results.experiment, []
    mixtures: dict[str, None] = {}
    for name, index in lineage.lineage(experiment, run):
        chosen, made = experiment.runs[name], results.stage(name, index)[0]
        stage = chosen.stages[index]
        before = made["tokens"] if index == 0 else made["tokens"] - results.stage(name, index - 1)[0]["tokens"]
        if made["steps"]:
            mixtures[chosen.mixture] = None
        final = made["final"]
        rows.append(
            [
                name,
                str(index),
                str(chosen.activation),
                _factor(stage, final),
                f"{stage.until:,}",
                f"{before:,}",
                "" if final["lm_loss"] is None else f"{final['lm_loss']:.3f}",
            ]
        )
    header = ["Run", "Stage", "Activation", "λ", "Until step", "Tokens", "Training loss"]
    yield from markdown_table(header, rows, numbers=4)
    yield ""
    yield (
        "From each stage's `provenance.json`. λ multiplies the mean of |x1| over tokens and intermediate neurons, "
        "summed over layers. A stage without steps leaves its starting point unchanged."
    )
    for mixture in mixtures:
        parts = []
        for corpus, weight in experiment.data.mixtures[mixture].items():
            held = experiment.data.corpora[corpus]
            label = LABELS[held.stands_for]
            parts.append(f"{corpus} {weight:g} ({'stand-in for ' if held.stand_in else ''}{label})")
        yield ""
        yield f"Mixture `{mixture}`, by weight: {', '.join(parts)}."


def _factor(stage: Stage, final: dict[str, Any]) -> str:
    """Return λ at a stage's end, and how it came there."""
    if stage.steered:
        return f"{final['lambda']:.4g} ({stage.factor_text})"
    return f"{stage.peak:g}" + ("" if stage.shape == "constant" else f" ({stage.shape})")


def _sparsity(results: Results, run: str, activation: Activation) -> Iterator[str]:
    found = results.sparsity(run, activation)
    yield (
        f"**{_first(found.sparsity):.2f}%** of the intermediate neurons are exactly zero, averaged over tokens and "
        f"layers; held-out loss {_first(found.loss):.4f} nats per token, {_first(found.bits_per_byte):.4f} bits per "
        "byte."
    )
    yield ""
    rows = [
        [corpus.corpus, f"{_first(corpus.sparsity):.2f}", f"{_first(corpus.loss):.4f}", f"{corpus.tokens:,.0f}"]
        for corpus in found.corpora
    ]
    yield from markdown_table(["Held-out text", "Sparsity (%)", "Loss (nats/token)", "Tokens"], rows, numbers=3)
    yield ""
    yield f"By layer, first to last (%): {' '.join(f'{_first(layer):.1f}' for layer in found.layers)}."
    yield f"From {_source(results, results.layout.sparsity(run, results.experiment.seeds[0]))}."


def _benchmarks(results: Results, run: str, activation: Activation) -> Iterator[str]:
    found = results.benchmarks(run, activation)
    rows = []
    for name in BENCHMARKS:
        if name not in found.scores:
            rows.append([LABELS[name], MISSING, "", "", found.missing[name]])
            continue
        score, details = found.scores[name], found.details[name]
        error = f" ± {score.errors[0]:.2f}" if score.errors else ""
        chance = f"{_first(found.chances[name]):.1f}" if name in found.chances else ""
        stand_in = f"stand-in: {details['stand_in']}" if details.get("stand_in") else ""
        rows.append([LABELS[name], f"{_first(score):.2f}{error}", f"{details['n']:,}", chance, stand_in])
    yield from markdown_table(["Benchmark", "Score (%)", "Rows", "Chance (%)", ""], rows)
    yield ""
    chosen = averaged(results, None, run)
    average = found.average(chosen.columns)
    if average.value is not None:
        left_out = dict.fromkeys(average.missing, "missing")
        left_out |= dict.fromkeys(chosen.at_chance, "the original is not above chance")
        without = "; ".join(f"{LABELS[name]} ({reason})" for name, reason in left_out.items())
        without = f"; without {without}" if without else ""
        yield f"Average of the columns that the paper averages: {_first(average.value):.2f}{without}."
    if found.scores:
        yield (
            "Scores ± standard error over rows, from lm-eval with `<s>` before every context and candidates ranked "
            "by their mean log-likelihood per token; from "
            f"{_source(results, results.layout.benchmarks(run, activation, results.experiment.seeds[0]))}."
        )


def _prediction(results: Results, run: str, activation: Activation) -> Iterator[str]:
    experiment, pair = results.experiment, f"{run}@{activation}"
    if pair in table2_rows.predicted(experiment).values():
        found = read_prediction(results, pair)
        kind = accelerated.kinds(experiment)[0]
        predicted = found.kinds[kind]
        loss = "" if predicted.loss is None else f", held-out loss {_first(predicted.loss):.4f} nats per token with it"
        yield (
            f"A predictor ({KINDS[kind]}), not in this folder, finds {_first(predicted.recall):.2f}% of the active "
            f"neurons and predicts {_first(predicted.predicted_sparsity):.2f}% of all neurons inactive{loss}; from "
            f"{_source(results, results.layout.prediction(run, activation, experiment.seeds[0]))}."
        )
    else:
        yield f"_{MISSING}: this experiment has no predictors of this model._"
    yield ""
    timed = trained_decoding(results) if pair in table2_rows.decoded(experiment).values() else None
    model = next((model for model in timed.models if model.pair == pair), None) if timed is not None else None
    if timed is None or model is None:
        yield f"_{MISSING}: this experiment does not time the decoding of this model._"
        return
    rows = [
        [MODES[name], MISSING if arm.missing else f"{arm.tokens_per_second.median:.2f}"]
        for name, arm in model.modes.items()
    ]
    yield from markdown_table(["Mode", "Tokens/s (median)"], rows, numbers=1)
    yield ""
    yield f"{timed.conditions}; from {_source(results, results.layout.decoding())}."


def _first(value: Value) -> float:
    """Return the value of the first seed, whose weights the folder holds."""
    return value.seeds[0]


def _source(results: Results, path: Path) -> str:
    return f"`{results.layout.relative(path)}`"
