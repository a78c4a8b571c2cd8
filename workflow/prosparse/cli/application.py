"""The application: its commands, and how they exit."""

from __future__ import annotations

import sys
from functools import cache
from typing import Annotated

import typer
from typer.core import TyperGroup
from typer.main import get_command

from prosparse.cli import checkpoint, exit, step_data, step_gpu_check, step_measurement, step_paper, step_training
from prosparse.cli.arguments import Command
from prosparse.system import environment

EXAMPLES = """\
\b
Examples (any model with a gated FFN: LLaMA, Mistral, Qwen, Granite, Phi-3, ...):
  prosparse sparsify   my-model --target-sparsity 0.9 --text 'corpus/*.txt' --output sparse
  prosparse sparsity   my-model --text book.txt                         # its sparsity and loss
  prosparse substitute my-model --activation relu --output relu         # another activation, the same weights
  prosparse train      relu --recipe recipe.yaml --text 'corpus/*.txt' --output trained
  prosparse sparsity   trained --text book.txt --activation relu --activation fatrelu-0.01
  prosparse evaluate   sparse --activation fatrelu-0.01 --task piqa --output piqa.json
  prosparse generate   sparse --prompt 'Once upon a time'               # faster than dense, the same tokens
  prosparse predictors sparse --text 'corpus/*.txt' --output predictors # predict which neurons are active
  prosparse generate   sparse --prompt 'Once upon a time' --predictors predictors/nonzero
  prosparse bench      sparse --predictors predictors/nonzero           # decoding speed, next to other engines
  prosparse export     sparse --engine powerinfer --predictors predictors/nonzero --output model.gguf

\b
For the paper's tables and figures, run `snakemake --cores all`. Its jobs call `prosparse step`.
"""

application = typer.Typer(
    add_completion=False, rich_markup_mode=None, epilog=EXAMPLES
)  # fmt: skip
step = typer.Typer(rich_markup_mode=None, help="One step of the workflow, as its rules call it.")
application.add_typer(step, name="step", hidden=True)

for commands, group in (
    (checkpoint.COMMANDS, application),
    (
        step_data.COMMANDS
        | step_training.COMMANDS
        | step_measurement.COMMANDS
        | step_paper.COMMANDS
        | step_gpu_check.COMMANDS,
        step,
    ),
):
    for name, handler in commands.items():
        group.command(name, cls=Command)(handler)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"prosparse {version('prosparse')}")
        raise typer.Exit


@application.callback()
def _prosparse(
    version: Annotated[bool, typer.Option("--version", callback=_version, help="Show the version and exit.")] = False,
    traceback: Annotated[
        bool,
        typer.Option("--traceback", help="Show the stack trace when a command fails; may also follow the command."),
    ] = False,
) -> None:
    """ProSparse: intrinsic activation sparsity for language models with gated FFNs."""


@cache
def _command() -> TyperGroup:
    return get_command(application)  # type: ignore[return-value]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status is one of :mod:`prosparse.cli.exit`, or the command's own."""
    words = sys.argv[1:] if arguments is None else arguments
    own = words[: words.index("--")] if "--" in words else words
    words = [word for word in own if word != "--traceback"] + words[len(own) :]
    environment.print_what_streams_cannot()
    if ignored := environment.settle_launcher():
        print(f"prosparse: {ignored}", file=sys.stderr)
    try:
        try:
            with _command().make_context("prosparse", list(words)) as context:
                status = _command().invoke(context)
        except typer.Exit as ended:
            status = ended.exit_code
        sys.stdout.flush()  # a reader that has gone is noticed here
        return status or 0
    except BaseException as error:
        status = exit.status(error, in_step=words[:1] == ["step"], with_traceback="--traceback" in own)
        exit.discard_unwritten()
        return status
