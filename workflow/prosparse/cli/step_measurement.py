"""Steps that measure."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prosparse.cli.arguments import (
    CheckpointFile,
    DecisionThreshold,
    MeasuringPrecision,
    NewActivation,
    Output,
    Run,
    Specification,
    Tokens,
)

if TYPE_CHECKING:
    from prosparse.experiment.section import Section


def sparsity(
    checkpoint: CheckpointFile,
    specification: Specification,
    run: Run,
    seed: Annotated[int, typer.Option()],
    tokens: Tokens,
    output: Output,
) -> None:
    """Measure sparsity and loss under several activations."""
    from prosparse.experiment.activation import Activation
    from prosparse.experiment.specifications import SparsitySpecification
    from prosparse.measure.sparsity import measure_corpora
    from prosparse.models.load import load_to_measure
    from prosparse.system import devices

    started, wanted = time.time(), SparsitySpecification.model_validate_json(specification)
    model = load_to_measure(checkpoint.parent, precision=wanted.precision)
    activations = [Activation.parse(text) for text in wanted.activations]
    results = measure_corpora(model, activations, wanted.corpora, tokens, wanted.split)
    measured = {"run": run, "seed": seed, "measurements": results}
    _write(measured, wanted, started, devices.name(model.device), output)


def stage_sparsity(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(metavar="CHECKPOINT...", help="provenance.json of each stage, in the specification's order."),
    ],
    specification: Specification,
    run: Run,
    seed: Annotated[int, typer.Option()],
    tokens: Tokens,
    output: Output,
) -> None:
    """Measure sparsity and loss at the end of every stage."""
    from prosparse.experiment.specifications import StageSparsitySpecification
    from prosparse.measure.sparsity import measure_stages
    from prosparse.system import devices

    started, wanted = time.time(), StageSparsitySpecification.model_validate_json(specification)
    results = measure_stages([file.parent for file in checkpoints], wanted, tokens)
    measured = {"run": run, "seed": seed, "measurements": results}
    _write(measured, wanted, started, devices.name(devices.fastest()), output)


def training_free(
    checkpoint: CheckpointFile,
    specification: Specification,
    run: Run,
    seed: Annotated[int, typer.Option(help="Seed of the run and of the training rows for calibration.")],
    tokens: Tokens,
    output: Output,
) -> None:
    """Measure sparsity and loss under thresholds without training."""
    from prosparse.experiment.specifications import TrainingFreeSpecification
    from prosparse.measure.training_free import measure_settings
    from prosparse.models.load import load_to_measure
    from prosparse.system import devices

    started, wanted = time.time(), TrainingFreeSpecification.model_validate_json(specification)
    model = load_to_measure(checkpoint.parent, precision=wanted.precision)
    measured = {"run": run, "seed": seed, **measure_settings(model, wanted, tokens, seed)}
    _write(measured, wanted, started, devices.name(model.device), output)


def benchmarks(
    checkpoint: CheckpointFile,
    specification: Specification,
    activation: NewActivation,
    run: Run,
    seed: Annotated[int, typer.Option()],
    rows: Annotated[Path, typer.Option(help="rows.json in the rows' directory.")],
    output: Output,
    precision: MeasuringPrecision = "float32",
    predictors: Annotated[Path | None, typer.Option(help="Compute only the neurons that these predict active.")] = None,
    decision_threshold: DecisionThreshold = 0.5,
) -> None:
    """Answer benchmarks under one activation, or resume."""
    from prosparse.experiment.measurement import Benchmarks
    from prosparse.measure import evaluation

    evaluation.run(
        evaluation.Evaluation(
            checkpoint=checkpoint.parent,
            benchmarks=Benchmarks.model_validate_json(specification),
            output=output,
            rows=rows.parent,
            activation=activation,
            precision=precision,
            predictors=predictors,
            decision_threshold=decision_threshold,
            names={"run": run, "seed": seed},
        )
    )


def bases(
    base: Annotated[list[str], typer.Option(metavar="RUN=FILE", help="provenance.json in a checkpoint's directory.")],
    specification: Specification,
    tokens: Tokens,
    output: Annotated[Path, typer.Option(help="Directory of the bases.")],
) -> None:
    """Write trained bases in bfloat16, with their loss in that precision and the rows it was measured on."""
    from prosparse.experiment.specifications import BasesSpecification
    from prosparse.measure.bases import commit, commit_heldout

    wanted = BasesSpecification.model_validate_json(specification)
    for name, _, file in (item.partition("=") for item in base):
        commit(Path(file).parent, wanted.corpora, tokens, output / name)
    commit_heldout(wanted.corpora, tokens, output)


def prediction(
    checkpoint: CheckpointFile,
    specification: Specification,
    activation: NewActivation,
    run: Run,
    seed: Annotated[int, typer.Option()],
    predictors: Annotated[Path, typer.Option(help="training.json in the predictors' directory.")],
    tokens: Tokens,
    output: Output,
) -> None:
    """Measure the predictors' recall and predicted sparsity, and the loss under them."""
    from prosparse.experiment.specifications import PredictionSpecification
    from prosparse.inference.predictor_training import load_marginal
    from prosparse.inference.predictors import load
    from prosparse.measure.prediction import measure
    from prosparse.models.load import load_to_measure
    from prosparse.system import devices

    started, wanted = time.time(), PredictionSpecification.model_validate_json(specification)
    folder = predictors.parent
    model = load_to_measure(checkpoint.parent, activation, wanted.precision)
    kinds = {kind: load(folder / kind) for kind in wanted.kinds}
    found = measure(model, kinds, load_marginal(folder), wanted.corpora, tokens, wanted.decision_threshold)
    names = {"run": run, "seed": seed, "activation": str(activation)}
    _write({**names, **found}, wanted, started, devices.name(model.device), output)


def decoding(specification: Specification, output: Output) -> None:
    """Measure tokens per second in every decoding mode."""
    from prosparse.experiment.timings import DecodingSpecification
    from prosparse.measure.decoding import measure

    _measure(measure, DecodingSpecification.model_validate_json(specification), output)


def precision(specification: Specification, output: Output) -> None:
    """Measure loss and sparsity with weights in each precision of decoding."""
    from prosparse.experiment.timings import PrecisionSpecification
    from prosparse.measure.precision import measure

    _measure(measure, PrecisionSpecification.model_validate_json(specification), output)


def powerinfer(
    specification: Specification,
    output: Annotated[Path, typer.Option(help="PowerInfer's program, in build/bin of its directory.")],
) -> None:
    """Build PowerInfer for CPUs."""
    from prosparse.experiment.decoding import PowerInfer
    from prosparse.measure import powerinfer

    wanted = PowerInfer.model_validate_json(specification)
    powerinfer.build_powerinfer(wanted.source, wanted.revision, output.parents[2])


def overhead(
    checkpoint: CheckpointFile,
    specification: Specification,
    tokens: Tokens,
    output: Output,
    precision: MeasuringPrecision = "float32",
) -> None:
    """Measure the overhead of the L1 gradient and of counting zeros."""
    import torch

    from prosparse.data.mixture import load_rows
    from prosparse.experiment.specifications import StageSpecification
    from prosparse.measure.overhead import counting, shorten, training
    from prosparse.models.load import load
    from prosparse.system import devices
    from prosparse.system.files import write_json
    from prosparse.system.provenance import record

    started = time.time()
    wanted = StageSpecification.model_validate_json(specification)
    device = devices.fastest()
    model = load(checkpoint.parent)
    layers, of = shorten(model)
    rows = next(iter(load_rows(tokens).values())).to(device)
    rows = rows[: max(1, 4096 // rows.shape[1])]
    model.to(device)  # type: ignore[arg-type]
    result = {
        "layers": {"measured": layers, "of": of},
        "sparsity_measurement": counting(copy.deepcopy(model).to(getattr(torch, precision)), rows, repeats=20),
        # last: it changes how this process allocates memory
        "training_step": training(model, wanted, tokens, repeats=20),
        "provenance": record(wanted.model_dump(mode="json"), started, devices.name(device)),
    }
    write_json(output, result)
    print(
        f"the L1 gradient slows training by {result['training_step']['slowdown_of_run_percent']:.1f}%, "
        f"counting zeros slows a forward pass by {result['sparsity_measurement']['slowdown']['percent']:.1f}%"
    )


def operators(specification: Specification, output: Output) -> None:
    """Time the sparse FFN operators on this machine."""
    from prosparse.experiment.timings import OperatorsSpecification
    from prosparse.measure.operators import measure

    _measure(measure, OperatorsSpecification.model_validate_json(specification), output)


def _measure(measure: Callable[[Any], dict[str, Any]], wanted: Section, output: Path) -> None:
    """Write what ``measure(wanted)`` returns, with its provenance."""
    started = time.time()
    measured = measure(wanted)
    _write(measured, wanted, started, measured["device"], output)


def _write(measured: dict[str, Any], wanted: Section, started: float, device: str, output: Path) -> None:
    """Write a measurement with its provenance."""
    from prosparse.system.files import write_json
    from prosparse.system.provenance import record

    write_json(output, {**measured, "provenance": record(wanted.model_dump(mode="json"), started, device)})


def compiled_operators(output: Output) -> None:
    """Compile the GPU operators, without a GPU."""
    from dataclasses import asdict

    from prosparse.system.files import write_json
    from prosparse.system.provenance import record

    started = time.time()
    try:
        from prosparse.operators.ahead_of_time import MULTIPROCESSORS, compile_kernels
    except ImportError as error:  # Triton is only for Linux
        found: dict[str, Any] = {"missing": str(error)}
    else:
        found = {"kernels": [asdict(kernel) for each in MULTIPROCESSORS for kernel in compile_kernels(each)]}
    write_json(output, {**found, "provenance": record(None, started)})


COMMANDS = {
    each.__name__.replace("_", "-"): each
    for each in (
        sparsity, stage_sparsity, training_free, benchmarks, bases, prediction, decoding, precision, powerinfer,
        overhead, operators, compiled_operators,
    )
}  # fmt: skip
