"""The application: which commands there are, and what their end looks like from outside."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from typer.main import get_command

from prosparse.cli import checkpoint, step_data, step_measurement, step_paper, step_training
from prosparse.cli.arguments import Command

EXAMPLES = """\
\b
Examples (any model with a gated FFN: LLaMA, Mistral, Qwen, Granite, Phi-3, ...):
  prosparse sparsity   MODEL --text book.txt                              how sparse it is, and its held-out loss
  prosparse swap       MODEL --activation relu --output relu              replace the activation, keep the weights
  prosparse train      relu --recipe recipe.yaml --text '*.txt' --output sparse      progressive regularization
  prosparse sparsity   sparse/stage2 --text book.txt --activation relu --activation fatrelu-0.01
  prosparse evaluate   sparse/stage2 --activation fatrelu-0.01 --task piqa --output piqa.json
  prosparse generate   sparse/stage2 --prompt 'Once upon a time'          faster than dense, the same tokens
  prosparse predictors sparse/stage2 --text '*.txt' --output predictors   which neurons will be active
  prosparse generate   sparse/stage2 --prompt 'Once upon a time' --predictors predictors/nonzero
  prosparse export     sparse/stage2 --engine powerinfer --predictors predictors/nonzero --output model.gguf

\b
The paper's tables and figures: `snakemake --cores all`. It calls the workflow's steps, `prosparse step --help`.
"""

application = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, epilog=EXAMPLES
)  # fmt: skip
step = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="One step of the workflow, as its rules call it.")
application.add_typer(step, name="step", hidden=True)

for commands, group in (
    (checkpoint.COMMANDS, application),
    (step_data.COMMANDS | step_training.COMMANDS | step_measurement.COMMANDS | step_paper.COMMANDS, step),
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
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it, and exit.")
    ] = False,
) -> None:
    """ProSparse: intrinsic activation sparsity for language models with gated FFNs."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status: 0, 2 for a mistyped command line, 75 out of time, 1 for what a user can mend."""
    try:
        return get_command(application).main(arguments, "prosparse", standalone_mode=False) or 0
    except typer.Exit as ended:
        return ended.exit_code
    except typer.TyperException as error:
        print(f"prosparse: error: {error.format_message()}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        from prosparse.config import UserError

        if not isinstance(error, UserError):
            raise
        if os.environ.get("RANK", "0") == "0":  # the processes of a job fail together: one says why
            print(f"prosparse: error: {error}", file=sys.stderr)
        return getattr(error, "exit_status", 1)
