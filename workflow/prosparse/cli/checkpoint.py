"""The user's commands: the method on any checkpoint and text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from prosparse.cli.arguments import (
    Activations,
    Checkpoint,
    ContextLength,
    DecisionThreshold,
    Engine,
    Kind,
    NewActivation,
    OwnActivation,
    ReportTo,
    RoundedPrecision,
    Seed,
    Text,
    TrainingFreeMethod,
    WeightPrecision,
    choice,
    share,
)

Decodable = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help="Hugging Face id, a directory or a GGUF file (Q8_0, Q4_0, 16 bits).")
]
OWN_PRECISION = "Default: bfloat16, or that of the GGUF file."
PROMPTS = ["Once upon a time", "The capital of France is", "def fibonacci(n):"]
Predictors = Annotated[
    Path | None, typer.Option(metavar="DIRECTORY", help="Predictors, as `prosparse predictors` writes them.")
]


def substitute(
    checkpoint: Checkpoint,
    activation: NewActivation,
    output: Annotated[Path, typer.Option(metavar="DIRECTORY", help="The new checkpoint.")],
) -> None:
    """Replace the activation and keep the weights."""
    from prosparse.models import substitution

    substitution.substitute(checkpoint, activation, output)
    print(f"{output}: {checkpoint} with {activation}; next: prosparse train, prosparse sparsity")


def sparsify(
    checkpoint: Checkpoint,
    target_sparsity: Annotated[
        float, typer.Option(metavar="SHARE", parser=share, help="Share of zero activations to reach: 0.9 for 90%.")
    ],
    text: Text,
    output: Annotated[
        Path, typer.Option(metavar="DIRECTORY", help="Where to write the sparse checkpoint and its summary.")
    ],
    heldout_text: Annotated[
        list[str], typer.Option(metavar="FILE...", help="Text to measure on. Default: a twentieth of --text.")
    ] = [],  # noqa: B006
    control: Annotated[
        bool, typer.Option(help="Also train Vanilla ReLU on the same tokens, to isolate the cost of sparsity.")
    ] = True,
    tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Maximum number of training tokens. Default: one epoch.")
    ] = None,
    context_length: Annotated[int, typer.Option(min=16, metavar="TOKENS", help="Tokens per sequence.")] = 512,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=1e-12, max=1, metavar="RATE", help="Peak learning rate. Default: set by the model's size."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Sequences per step. Default: up to 128, for at least 400 steps."),
    ] = None,
    seed: Seed = 0,
    report_to: ReportTo = None,
) -> None:
    """Make a model as sparse as you want: train, measure and summarize, or resume."""
    from prosparse.commands.defaults import Settings
    from prosparse.commands.sparsify import Sparsification
    from prosparse.commands.sparsify import sparsify as run

    settings = Settings(target_sparsity, tokens, context_length, learning_rate, batch_size, seed)
    run(Sparsification(checkpoint, text, heldout_text, output, settings, control, report_to))


def train(
    checkpoint: Checkpoint,
    recipe: Annotated[Path, typer.Option(metavar="FILE", help="YAML: activation, context_length, stages, training.")],
    text: Text,
    output: Annotated[
        Path, typer.Option(metavar="DIRECTORY", help="The new checkpoint, complete once training is finished.")
    ],
    seed: Seed = 0,
    report_to: ReportTo = None,
) -> None:
    """Train through the stages of a recipe, or resume."""
    from prosparse.commands.train import train_checkpoint

    train_checkpoint(checkpoint, recipe, text, output, seed, report_to)


def sparsity(
    checkpoint: Checkpoint,
    text: Text,
    activation: Activations = [],  # noqa: B006  (typer's way of an option that may be repeated)
    context_length: ContextLength = 1024,
    sequences: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum number of sequences, spread over the text.")
    ] = 64,
    precision: Annotated[
        RoundedPrecision | None,
        choice(RoundedPrecision, "Round the weights as for decoding in 8 or 4 bits. Default: no rounding."),
    ] = None,
    training_free: Annotated[
        list[str],
        choice(TrainingFreeMethod, "Also measure under thresholds that need no training; repeat for several."),
    ] = [],  # noqa: B006
    calibration_text: Annotated[
        list[str],
        typer.Option(metavar="FILE...", help="Text for choosing the thresholds of --training-free; not --text."),
    ] = [],  # noqa: B006
    target_sparsity: Annotated[
        list[float],
        typer.Option(
            metavar="SHARE",
            parser=share,
            help="For --training-free: 0.5 for 50%; repeat for several. Default: the largest at 1% higher perplexity.",
        ),
    ] = [],  # noqa: B006
) -> None:
    """Measure activation sparsity and loss on a text."""
    from prosparse.commands.sparsity import Measurement, TrainingFree, print_sparsity

    if bool(training_free) != bool(calibration_text) or (target_sparsity and not training_free):
        raise typer.BadParameter("--training-free and --calibration-text need each other; --target-sparsity needs both")
    methods = cast("list[TrainingFreeMethod]", training_free)
    print_sparsity(
        Measurement(
            checkpoint=checkpoint,
            text=text,
            activations=activation,
            context_length=context_length,
            sequences=sequences,
            precision=precision,
            training_free=TrainingFree(methods, target_sparsity, calibration_text) if methods else None,
        )
    )


def evaluate(
    checkpoint: Checkpoint,
    task: Annotated[list[str], typer.Option(metavar="TASK", help="Benchmark: piqa, mmlu, ...; repeat for several.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="JSON file of the scores.")],
    activation: OwnActivation = None,
    rows: Annotated[
        Path | None, typer.Option(exists=True, metavar="DIRECTORY", help="Benchmark rows. Default: the hub.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Maximum number of rows per task.")] = None,
    execute_code: Annotated[
        bool, typer.Option("--execute-code", help="Run programs that the model writes, in a sandbox.")
    ] = False,
) -> None:
    """Evaluate on benchmarks with lm-eval, or resume."""
    from prosparse.experiment.measurement import Benchmarks
    from prosparse.measure.evaluation import Evaluation, run

    benchmarks = Benchmarks(
        rows="files" if rows else "hub", directory=str(rows) if rows else None, tasks=task, limit=limit,
        execute_code=execute_code,
    )  # fmt: skip
    run(Evaluation(checkpoint, benchmarks, output, rows, activation, complete=True))


def predictors(
    checkpoint: Checkpoint,
    text: Text,
    output: Annotated[Path, typer.Option(metavar="DIRECTORY", help="Where to write one subdirectory per kind.")],
    activation: OwnActivation = None,
    kind: Annotated[
        list[str], choice(Kind, "How active neurons are labeled, or svd, which needs no training; repeat for several.")
    ] = ["nonzero"],  # noqa: B006
    rank: Annotated[int, typer.Option(min=1, metavar="N", help="Width of a predictor's hidden layer.")] = 1024,
    tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Training tokens per layer.")] = 400_000,
    context_length: ContextLength = 1024,
) -> None:
    """Train predictors of the active neurons, or resume."""
    from prosparse.commands.predictors import train_checkpoint_predictors

    settings = {"kinds": kind, "rank": rank, "tokens": tokens}
    train_checkpoint_predictors(checkpoint, activation, text, settings, context_length, output)


def generate(
    checkpoint: Decodable,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="Text to continue.")],
    activation: OwnActivation = None,
    predictors: Predictors = None,
    decision_threshold: DecisionThreshold = 0.5,
    dense: Annotated[bool, typer.Option("--dense", help="Compute every neuron.")] = False,
    new_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Maximum number of new tokens.")] = 128,
    temperature: Annotated[
        float, typer.Option(min=0, metavar="T", help="Sampling temperature; 0 decodes greedily.")
    ] = 0.0,
    precision: Annotated[
        WeightPrecision | None, choice(WeightPrecision, f"Precision of the weights. {OWN_PRECISION}")
    ] = None,
) -> None:
    """Generate text, reading only the weights of active neurons."""
    from prosparse.commands.generate import Generation, generate_text

    generate_text(
        Generation(
            checkpoint=checkpoint,
            prompt=prompt,
            activation=activation,
            mode="dense" if dense else "predicted" if predictors else "exact",
            predictors=predictors,
            decision_threshold=decision_threshold,
            new_tokens=new_tokens,
            temperature=temperature,
            precision=precision,
        )
    )


def bench(
    checkpoint: Decodable,
    activation: OwnActivation = None,
    predictors: Predictors = None,
    decision_threshold: DecisionThreshold = 0.5,
    prompt: Annotated[list[str], typer.Option(metavar="TEXT", help="Text to continue; repeat for several.")] = PROMPTS,
    new_tokens: Annotated[int, typer.Option(min=16, metavar="N", help="New tokens per prompt, a multiple of 16.")] = 64,
    precision: Annotated[
        list[str], choice(WeightPrecision, f"Precision of the weights; repeat for several. {OWN_PRECISION}")
    ] = [],  # noqa: B006
    powerinfer: Annotated[
        Path | None, typer.Option(exists=True, metavar="PROGRAM", help="PowerInfer's program, to time it as well.")
    ] = None,
) -> None:
    """Time decoding in our modes and in other engines."""
    from prosparse.commands.bench import Bench, print_bench

    print_bench(
        Bench(
            checkpoint=checkpoint,
            prompts=prompt,
            activation=activation,
            predictors=predictors,
            decision_threshold=decision_threshold,
            powerinfer=powerinfer,
            new_tokens=new_tokens,
            precisions=precision,
        )
    )


def export(
    checkpoint: Checkpoint,
    engine: Annotated[Engine, choice(Engine)],
    output: Annotated[Path, typer.Option(metavar="FILE", help="GGUF file.")],
    activation: OwnActivation = None,
    predictors: Predictors = None,
    decision_threshold: DecisionThreshold = 0.5,
    precision: Annotated[
        WeightPrecision | None,
        choice(WeightPrecision, "Precision of the matrices. Default: as saved for llama.cpp, float16 for PowerInfer."),
    ] = None,
) -> None:
    """Write a GGUF file for llama.cpp or PowerInfer."""
    from prosparse.commands.export import Export, export_checkpoint

    export_checkpoint(Export(checkpoint, engine, output, activation, predictors, decision_threshold, precision))


COMMANDS = {
    each.__name__: each
    for each in (sparsify, substitute, train, sparsity, evaluate, predictors, generate, bench, export)
}
