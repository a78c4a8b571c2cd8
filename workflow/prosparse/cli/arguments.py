"""Arguments that several commands share, and how their values are parsed."""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from prosparse.experiment.activation import Activation
else:
    Activation = Any  # typer reads annotations at start-up, and this import takes half a second


class Command(TyperCommand):
    """A command whose options with a metavar like ``FILE...`` take several values, as the shell expands ``*.txt``.

    An option is never taken for the value of the one before it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = {name: each for each in self.params for name in each.opts if name.startswith("-")}
        given: list[str] = []
        several: str | None = None  # the option of this name takes the words that follow, up to the next option
        for position, word in enumerate(args):
            previous = options.get(given[-1]) if given else None
            if word == "--":
                given += args[position:]
                break
            if word in options and previous is not None and not getattr(previous, "is_flag", False):
                ctx.fail(f"{given[-1]} needs a value")
            if word.startswith("-"):
                several = word if word in options and (options[word].metavar or "").endswith("...") else None
            elif several is not None and given[-1] != several:
                given.append(several)
            given.append(word)
        return super().parse_args(ctx, given)


def one_of(*allowed: str) -> Callable[[str], Any]:
    """A parser that names what is allowed, and what was probably meant."""

    def parse(text: str) -> Any:
        if text not in allowed:
            meant = get_close_matches(text.lower(), allowed, 1)
            hint = f"; did you mean {meant[0]}?" if meant else ""
            raise typer.BadParameter(f"{text!r}: choose from {', '.join(allowed)}{hint}")
        return text

    return parse


def choice(annotation: Any, help: str | None = None) -> Any:
    """An option whose value is one of the words of a ``Literal``."""
    allowed = get_args(annotation)
    return typer.Option(parser=one_of(*allowed), metavar=f"[{'|'.join(allowed)}]", help=help)


def activation(text: str) -> Activation:
    from prosparse.experiment.activation import Activation as Parsed
    from prosparse.system.errors import ConfigError

    try:
        return Parsed.parse(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None


def specification(text: str) -> str:
    """A job's specification, as the workflow passes it; the command validates its content."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise typer.BadParameter("not a JSON object")
    return text


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise typer.BadParameter(f"{text!r}: a number above 0 and below 1 is needed, such as 0.5")
    return value


Engine = Literal["llama.cpp", "powerinfer"]
Kind = Literal["nonzero", "top", "svd"]
#: Of weights: a dtype, or one of ggml's formats.
WeightPrecision = Literal["bfloat16", "float16", "float32", "q8_0", "q4_0"]
RoundedPrecision = Literal["q8_0", "q4_0"]
TrainingFreeMethod = Literal["cats", "teal", "cett"]
Precision = Literal["float32", "bfloat16"]
Tracker = Literal["tensorboard", "trackio", "wandb"]

# the user's checkpoint
Checkpoint = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Hugging Face id or directory.")]
Text = Annotated[
    list[str],
    typer.Option(metavar="FILE...", help="Files or a quoted pattern: .txt; .jsonl and .parquet with a column text."),
]
NewActivation = Annotated[
    Activation,
    typer.Option(
        parser=activation,
        metavar="ACTIVATION",
        help="silu, relu, relu2, drelu, fatrelu-THRESHOLD or shiftrelu-BIAS (fatrelu-0.01).",
    ),
]
OwnActivation = Annotated[
    Activation | None,
    typer.Option(parser=activation, metavar="ACTIVATION", help="Default: the checkpoint's own."),
]
Activations = Annotated[
    list[Activation],
    typer.Option(parser=activation, metavar="ACTIVATION", help="Repeat for several. Default: the checkpoint's own."),
]
Seed = Annotated[
    int,
    typer.Option(min=0, max=2**32 - 1, metavar="N", help="Seed of the data order and of stochastic rounding."),
]
ReportTo = Annotated[
    Tracker | None,
    choice(Tracker, "Send loss, λ, L1, sparsity and learning rate to a tracker, which must be installed."),
]
ContextLength = Annotated[int, typer.Option(min=2, metavar="TOKENS", help="Tokens per sequence.")]
DecisionThreshold = Annotated[
    float, typer.Option(metavar="PROBABILITY", help="Compute neurons whose predicted probability is at least this.")
]

# a job of the workflow
CheckpointFile = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="provenance.json in the checkpoint's directory.")
]
Specification = Annotated[
    str,
    typer.Option(
        parser=specification, metavar="JSON", help="The job, as defined in prosparse.experiment.specifications."
    ),
]
Run = Annotated[str, typer.Option(help="Name of the measured run.")]
Tokens = Annotated[Path, typer.Option(help="Directory of tokens.")]
Output = Annotated[Path, typer.Option(help="JSON file.")]
MeasuringPrecision = Annotated[Precision, choice(Precision, "Precision of the measured model.")]
