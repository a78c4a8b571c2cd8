"""Steps that train, and the launcher that starts their processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from prosparse.cli.arguments import CheckpointFile, Specification, Tokens


def train_stage(
    specification: Specification,
    tokens: Tokens,
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json in its directory.")],
    output: Annotated[Path, typer.Option(help="provenance.json in the stage's directory.")],
    previous: Annotated[Path | None, typer.Option(help="Directory of the previous stage.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Checkpoint directory to distill from.")] = None,
    continuation: Annotated[
        list[Path],
        typer.Option(
            help="provenance.json of a stage that continues the previous one, whose optimizer state "
            "is removed once all are there."
        ),
    ] = [],  # noqa: B006  (typer's way of an option that may be repeated)
    max_seconds: Annotated[float | None, typer.Option(help="Save and exit with 75 before this time is up.")] = None,
    expected_sparsity: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Save and stop outside this band, 0 to 1.")
    ] = None,
) -> None:
    """Train one stage, or resume it."""
    from prosparse.experiment.specifications import StageSpecification
    from prosparse.training import distributed
    from prosparse.training.job import StageJob
    from prosparse.training.stage import train_stage as train

    wanted = StageSpecification.model_validate_json(specification)
    job = StageJob(wanted, tokens, tokenizer.parent, previous, output.parent, max_seconds, teacher)
    train(replace(job, continuations=tuple(continuation), expected_sparsity=expected_sparsity))
    distributed.leave()


def launch(
    command: Annotated[list[str], typer.Argument(metavar="-- STEP ...", help="The step and its arguments.")],
    nodes: Annotated[int, typer.Option(min=1)] = 1,
    processes: Annotated[int, typer.Option(min=1, help="Per node: one per GPU.")] = 1,
    rendezvous: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the nodes meet; set by the launcher itself.")
    ] = None,
    requeue: Annotated[bool, typer.Option("--requeue", help="When out of time, requeue the Slurm job.")] = False,
) -> int:
    """Run a step in all processes of its job."""
    from prosparse.cli.application import main
    from prosparse.system.environment import leave_job
    from prosparse.system.errors import OUT_OF_TIME
    from prosparse.training import launch

    if nodes * processes == 1:
        leave_job()
        status = main(["step", *command])
    elif nodes > 1 and rendezvous is None:
        status = launch.srun(command, nodes, processes)
    else:
        status = launch.torchrun(command, nodes, processes, rendezvous)
    if status == OUT_OF_TIME:
        if requeue:
            launch.requeue()
        else:
            launch.ask_for_another_job()
    return status


def predictors(
    checkpoint: CheckpointFile,
    specification: Specification,
    tokens: Tokens,
    output: Annotated[Path, typer.Option(help="training.json in the predictors' directory.")],
) -> None:
    """Train activation predictors, or resume."""
    from prosparse.experiment.specifications import PredictorSpecification
    from prosparse.inference.predictor_training import train

    wanted = PredictorSpecification.model_validate_json(specification)
    train(checkpoint.parent, wanted, tokens, output.parent)


COMMANDS = {each.__name__.replace("_", "-"): each for each in (train_stage, launch, predictors)}
