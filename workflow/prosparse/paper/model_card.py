"""The Hugging Face model card of a pair (checkpoint, activation), from measurements alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from prosparse import runs
from prosparse.config import Activation, Experiment, HubSource, PretrainedInit, is_local
from prosparse.paper import acceleration
from prosparse.paper.origins import origin, stands_in
from prosparse.paper.published import BENCHMARKS, LABELS
from prosparse.paper.results import MissingResult, Needs, Results, Value
from prosparse.paper.table import MISSING, markdown_table

#: Part of a base model's name, letters and digits alone -> its licence, as the hub writes it.
LICENSES = {
    "prosparsellama2": "llama2",
    "relullama": "llama2",
    "llama27b": "llama2",
    "llama213b": "llama2",
    "minicpms1b": "apache-2.0",
    "prosparseminicpm1b": "apache-2.0",
    "smollm2": "apache-2.0",
}

FORMULAS = {
    "silu": "SiLU, x · sigmoid(x)",
    "relu": "ReLU, max(x, 0)",
    "shiftrelu": "shifted ReLU, max(x − {0:g}, 0)",
    "fatrelu": "FATReLU, x where x ≥ {0:g}, else 0",
}

#: What transformers lacks, as its source.
MODULES = {
    "shiftrelu": ("ShiftedReLU", "torch.relu(x - {0!r})"),
    "fatrelu": ("FATReLU", "torch.where(x >= {0!r}, x, 0)"),
}


def inputs(experiment: Experiment, pair: str) -> Needs:
    """What is measured before the card is written; predictions and decoding where the experiment has them anyway."""
    run, activation = experiment.pair(pair)
    named, needs = f"{run}@{activation}", Needs.of_pairs(experiment, [pair])
    needs |= Needs(stages=set(runs.lineage(experiment, run)))
    if named in acceleration.predicted_pairs(experiment).values():
        needs |= Needs(prediction={(run, str(activation))})
    if experiment.decoding is not None and named in acceleration.pairs(experiment).values():
        needs |= Needs(decoding=True)
    return needs


def render(results: Results, run: str, activation: Activation, settings: dict[str, Any]) -> str:
    """The README.md of a folder whose config.json holds ``settings``."""
    experiment = results.experiment
    sections: dict[str, Callable[[], Iterator[str]]] = {
        "Training": lambda: _training(results, run),
        "Sparsity and held-out loss": lambda: _sparsity(results, run, activation),
        "Benchmarks": lambda: _benchmarks(results, run, activation),
        "Predicted decoding": lambda: _prediction(results, run, activation),
        "How to load it": lambda: _loading(activation, settings),
    }
    lines = ["---", metadata(experiment, run, activation).to_yaml(), "---", "", f"# {run}, {activation}", ""]
    lines += _introduction(experiment, run, activation, settings)
    for title, section in sections.items():
        lines += ["", f"## {title}", ""]
        try:
            lines += section()
        except MissingResult as error:
            lines.append(f"_{MISSING}: {str(error).replace(f'{results.directory}/', '')}_")
    return "\n".join(lines) + "\n"


def metadata(experiment: Experiment, run: str, activation: Activation) -> ModelCardData:
    _, name = origin(experiment, run)
    _, start = runs.start(experiment, run)
    hubs = {
        corpus.source.hub: None
        for lineage, _ in runs.lineage(experiment, run)
        for corpus in (experiment.data.corpora[c] for c in experiment.data.mixtures[experiment.runs[lineage].mixture])
        if isinstance(corpus.source, HubSource) and experiment.runs[lineage].stages[-1].until > 0
    }
    base = start.pretrained if isinstance(start, PretrainedInit) and not is_local(start.pretrained) else None
    return ModelCardData(
        language=["en", "zh"] if "minicpm" in name else ["en"],
        license=_license(name) or "unknown",
        library_name="prosparse" if activation.name in MODULES else "transformers",
        pipeline_tag="text-generation",
        base_model=base,
        base_model_relation="finetune" if base else None,
        datasets=list(hubs) or None,
        tags=["activation-sparsity", "prosparse", activation.name, "arxiv:2402.13516"],
    )


def _license(name: str) -> str | None:
    return next((licence for part, licence in LICENSES.items() if part in name), None)


def _introduction(experiment: Experiment, run: str, activation: Activation, settings: dict[str, Any]) -> Iterator[str]:
    rows = [row for row, pair in experiment.rows.items() if experiment.pair(pair) == (run, activation)]
    words, name = origin(experiment, run)
    yield (
        "A language model whose FFNs compute with few of their neurons: a neuron whose gate is zero needs neither its "
        "row of the up projection nor its column of the down projection. Made by an independent reproduction of "
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
    licence = _license(name)
    yield (
        f"- **Licence**: {licence}, of the model it starts from"
        if licence
        else ("- **Licence**: unspecified. That of its start is not known here: state one before you upload it")
    )
    if rows:
        named = ", ".join(f"`{row}`" for row in rows)
        yield f"- **Stands for** {named} in the paper's tables: {stands_in(experiment, rows[0], run)}"
    else:
        yield f"- **Stands for** no row of the paper's tables: {stands_in(experiment, None, run)}"
    yield f"- **Seed**: {experiment.seeds[0]}; every number below is of these very weights"


def _training(results: Results, run: str) -> Iterator[str]:
    experiment, rows = results.experiment, []
    mixtures: dict[str, None] = {}
    for name, index in runs.lineage(experiment, run):
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
                f"{stage.peak:g}" + (" (sine)" if stage.shape == "sine" else ""),
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
        "summed over layers. Without steps, a stage is its start as it is."
    )
    for mixture in mixtures:
        parts = []
        for corpus, weight in experiment.data.mixtures[mixture].items():
            held = experiment.data.corpora[corpus]
            label = LABELS[held.stands_for]
            parts.append(f"{corpus} {weight:g} ({'stand-in for ' if held.stand_in else ''}{label})")
        yield ""
        yield f"Mixture `{mixture}`, by weight: {', '.join(parts)}."


def _sparsity(results: Results, run: str, activation: Activation) -> Iterator[str]:
    found = results.sparsity(run, activation)
    yield (
        f"**{_first(found.sparsity):.2f} %** of the intermediate neurons are exactly zero, averaged over tokens and "
        f"layers; held-out loss {_first(found.loss):.4f} nats a token, {_first(found.bits_per_byte):.4f} bits a byte."
    )
    yield ""
    rows = [
        [corpus.corpus, f"{_first(corpus.sparsity):.2f}", f"{_first(corpus.loss):.4f}", f"{corpus.tokens:,.0f}"]
        for corpus in found.corpora
    ]
    yield from markdown_table(["Held-out text", "Sparsity (%)", "Loss (nats/token)", "Tokens"], rows, numbers=3)
    yield ""
    yield f"By layer, first to last (%): {' '.join(f'{_first(layer):.1f}' for layer in found.layers)}."
    yield f"From {_source(results, results.sparsity_file(run, results.experiment.seeds[0]))}."


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
    average = found.average()
    if average.value is not None:
        missing = f"; without {', '.join(LABELS[name] for name in average.missing)}" if average.missing else ""
        yield f"Average of the columns that the paper averages: {_first(average.value):.2f}{missing}."
    if found.scores:
        yield (
            "Scores ± standard error over rows, by lm-eval with `<s>` before every context and candidates compared by "
            "the mean log-likelihood a token; from "
            f"{_source(results, results.benchmarks_file(run, activation, results.experiment.seeds[0]))}."
        )


def _prediction(results: Results, run: str, activation: Activation) -> Iterator[str]:
    experiment, pair = results.experiment, f"{run}@{activation}"
    if pair in acceleration.predicted_pairs(experiment).values():
        found = acceleration.prediction(results, pair)
        kind = acceleration.kinds(experiment)[0]
        predicted = found.kinds[kind]
        loss = "" if predicted.loss is None else f", held-out loss {_first(predicted.loss):.4f} nats a token with it"
        yield (
            f"A predictor ({acceleration.KINDS[kind]}), not in this folder, finds {_first(predicted.recall):.2f} % of "
            f"the active neurons and calls {_first(predicted.predicted_sparsity):.2f} % of all inactive{loss}; from "
            f"{_source(results, results.prediction_file(run, activation, experiment.seeds[0]))}."
        )
    else:
        yield f"_{MISSING}: this experiment has no predictors of this model._"
    yield ""
    timed = acceleration.trained(results) if pair in acceleration.pairs(experiment).values() else None
    model = next((model for model in timed.models if model.pair == pair), None) if timed is not None else None
    if timed is None or model is None:
        yield f"_{MISSING}: this experiment does not time the decoding of this model._"
        return
    rows = [
        [acceleration.MODES[name], MISSING if arm.missing else f"{arm.tokens_per_second.median:.2f}"]
        for name, arm in model.modes.items()
    ]
    yield from markdown_table(["Decoded", "Tokens/s, median"], rows, numbers=1)
    yield ""
    yield f"{timed.conditions}; from {_source(results, results.decoding_file())}."


def _loading(activation: Activation, settings: dict[str, Any]) -> Iterator[str]:
    yield (
        "Begin every context with the beginning-of-sequence token: without it such models score abnormally. lm-eval "
        "adds it with `add_bos_token=True` alone."
    )
    yield from ["", "**transformers**", ""]
    if activation.name in MODULES:
        name, body = MODULES[activation.name]
        yield (
            f"It has no `{activation.name}` and so refuses to load this folder, rather than compute another model. "
            "Tell it what that is, before you load; no code of others is run:"
        )
        yield from [
            "",
            "```python",
            "import torch",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "from transformers.activations import ACT2FN",
            "",
            "",
            f"class {name}(torch.nn.Module):",
            "    def forward(self, x):",
            f"        return {body.format(activation.parameter)}",
            "",
            "",
            f'ACT2FN["{activation.name}"] = {name}',
        ]
    else:
        yield from ["```python", "from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    yield from [
        'folder = "."  # this one, or its name on a hub',
        "model = AutoModelForCausalLM.from_pretrained(folder)",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "```",
        "",
        "**vLLM** (not tried)",
        "",
    ]
    overrides = vllm_overrides(settings, activation)
    if overrides is None:
        yield (
            f"Has no `{activation.name}` for this architecture." if activation.name != "silu" else "Loads it as it is."
        )
    else:
        yield (
            f"Its own `{settings['model_type']}` computes SiLU alone and refuses others. Its MiniCPM has FATReLU, of "
            "which ReLU is the case 0, and this model is a MiniCPM of other scalings. (There, a gate that equals the "
            "threshold is zero.)"
        )
        yield from ["", "```bash", f"vllm serve FOLDER --hf-overrides '{json.dumps(overrides)}'", "```"]
    yield from ["", "**llama.cpp, PowerInfer**", ""]
    if activation.name == "silu":
        yield "`prosparse export FOLDER --engine llama.cpp --output model.gguf`"
    else:
        relu = "" if activation.name == "relu" else " --activation relu"
        other = "" if activation.name == "relu" else f", which is not `{activation}` but the same weights"
        yield (
            "llama.cpp computes SiLU alone for these architectures, which would be another model: it is not exported. "
            f"PowerInfer computes ReLU alone{other}, and needs predictors:"
        )
        yield from [
            "",
            "```bash",
            f"prosparse predictors FOLDER --text 'corpus/*.txt'{relu} --output predictors",
            f"prosparse export FOLDER --engine powerinfer{relu} --predictors predictors/nonzero --output model.gguf",
            "```",
        ]
    yield from ["", "**This project**: exact decoding that reads active neurons alone", ""]
    yield from ["```bash", "prosparse generate FOLDER --prompt 'Once upon a time'", "```"]


def vllm_overrides(settings: dict[str, Any], activation: Activation) -> dict[str, Any] | None:
    """What makes vLLM compute this model by its MiniCPM class, the only one of its that has FATReLU; None if it can't.

    LLaMA is MiniCPM with scalings of one, and ReLU is FATReLU with the threshold 0.
    """
    if activation.name not in ("relu", "fatrelu") or settings["model_type"] not in ("llama", "granite"):
        return None
    hidden_size, depth = settings["hidden_size"], math.sqrt(settings["num_hidden_layers"])
    return {
        "architectures": ["MiniCPMForCausalLM"],
        "hidden_act": "fatrelu",
        "hidden_act_param": activation.parameter or 0.0,
        "scale_emb": settings.get("embedding_multiplier", 1),
        "scale_depth": settings.get("residual_multiplier", 1) * depth,
        "dim_model_base": hidden_size / settings.get("logits_scaling", 1),
    }


def _first(value: Value) -> float:
    """Of the first seed, whose weights the folder has."""
    return value.seeds[0]


def _source(results: Results, path: Path) -> str:
    return f"`{path.relative_to(results.directory)}`"
