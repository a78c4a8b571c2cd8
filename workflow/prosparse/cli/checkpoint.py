"""The user's commands: the method on any checkpoint and text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    RoundedPrecision,
    Text,
    WeightPrecision,
    choice,
)

Decodable = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help="Hugging Face id, a directory or a GGUF file (Q8_0, Q4_0, 16 bits).")
]
OWN_PRECISION = "Default: bfloat16; a GGUF file's own."
PROMPTS = ["Once upon a time", "The capital of France is", "def fibonacci(n):"]
Predictors = Annotated[Path | None, typer.Option(help="Directory of predictors, from `prosparse predictors`.")]


def substitute(
    checkpoint: Checkpoint, activation: NewActivation, output: Annotated[Path, typer.Option(help="Directory.")]
) -> None:
    """Replace the activation; the weights stay as they are."""
    from prosparse.models import substitution

    substitution.substitute(checkpoint, activation, output)
    print(f"{output}: {checkpoint} with {activation}; next: prosparse train, prosparse sparsity")


def train(
    checkpoint: Checkpoint,
    recipe: Annotated[Path, typer.Option(help="YAML: activation, context_length, stages, training.")],
    text: Text,
    output: Annotated[Path, typer.Option(help="Directory; a checkpoint once training is finished.")],
    seed: int = 0,
) -> None:
    """Train through a recipe's stages, or resume."""
    from prosparse.commands.train import train_checkpoint

    train_checkpoint(checkpoint, recipe, text, output, seed)


def sparsity(
    checkpoint: Checkpoint,
    text: Text,
    activation: Activations = [],  # noqa: B006  (typer's way of an option that may be repeated)
    context_length: ContextLength = 1024,
    sequences: Annotated[int, typer.Option(min=1, help="Maximum number of sequences, spread over the text.")] = 64,
    precision: Annotated[
        RoundedPrecision | None, choice(RoundedPrecision, "Round the weights as decoding does. Default: do not.")
    ] = None,
) -> None:
    """Measure activation sparsity and loss on text."""
    from prosparse.commands.sparsity import print_sparsity

    print_sparsity(checkpoint, activation, text, context_length, sequences, precision)


def evaluate(
    checkpoint: Checkpoint,
    task: Annotated[list[str], typer.Option(help="Benchmark: piqa, mmlu, ...; repeat for several.")],
    output: Annotated[Path, typer.Option(help="JSON file.")],
    activation: OwnActivation = None,
    rows: Annotated[
        Path | None, typer.Option(exists=True, help="Directory of benchmark rows. Default: the hub.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of rows per task.")] = None,
    execute_code: Annotated[
        bool, typer.Option("--execute-code", help="Run the model's programs in a sandbox.")
    ] = False,
) -> None:
    """Answer benchmarks with lm-eval, or resume."""
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
    output: Annotated[Path, typer.Option(help="Directory, with one subdirectory per kind.")],
    activation: OwnActivation = None,
    kind: Annotated[list[str], choice(Kind, "Label rule; repeat for several. svd needs no training.")] = ["nonzero"],  # noqa: B006
    rank: Annotated[int, typer.Option(min=1, help="Width of a predictor's hidden layer.")] = 1024,
    tokens: Annotated[int, typer.Option(min=1, help="Training tokens per layer.")] = 400_000,
    context_length: ContextLength = 1024,
) -> None:
    """Train predictors of the active neurons, or resume."""
    from prosparse.commands.predictors import train_checkpoint_predictors

    settings = {"kinds": kind, "rank": rank, "tokens": tokens}
    train_checkpoint_predictors(checkpoint, activation, text, settings, context_length, output)


def generate(
    checkpoint: Decodable,
    prompt: Annotated[str, typer.Option(help="Text to continue.")],
    activation: OwnActivation = None,
    predictors: Predictors = None,
    decision_threshold: DecisionThreshold = 0.5,
    dense: Annotated[bool, typer.Option("--dense", help="Read every weight.")] = False,
    new_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of new tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the most likely token.")] = 0.0,
    precision: Annotated[WeightPrecision | None, choice(WeightPrecision, f"Of the weights. {OWN_PRECISION}")] = None,
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
    prompt: Annotated[list[str], typer.Option(help="Text to continue; repeat for several.")] = PROMPTS,
    new_tokens: Annotated[int, typer.Option(min=16, help="New tokens per prompt, a multiple of 16.")] = 64,
    precision: Annotated[
        list[str], choice(WeightPrecision, f"Of the weights; repeat for several. {OWN_PRECISION}")
    ] = [],  # noqa: B006
    powerinfer: Annotated[
        Path | None, typer.Option(exists=True, help="PowerInfer's program, to time it as well.")
    ] = None,
) -> None:
    """Time transformers, our modes and other engines here."""
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
    output: Annotated[Path, typer.Option(help="GGUF file.")],
    activation: OwnActivation = None,
    predictors: Predictors = None,
    decision_threshold: DecisionThreshold = 0.5,
    precision: Annotated[
        WeightPrecision | None,
        choice(WeightPrecision, "Precision of matrices; default: as saved for llama.cpp, float16 for PowerInfer."),
    ] = None,
) -> None:
    """Write a GGUF file for llama.cpp or PowerInfer."""
    from prosparse.commands.export import Export, export_checkpoint

    export_checkpoint(Export(checkpoint, engine, output, activation, predictors, decision_threshold, precision))


COMMANDS = {
    each.__name__: each for each in (substitute, train, sparsity, evaluate, predictors, generate, bench, export)
}
