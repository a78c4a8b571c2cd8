"""Steps of ``make gpu-check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prosparse.cli.arguments import Output

if TYPE_CHECKING:
    from prosparse.gpu_check.scale import Scale

Rehearse = Annotated[bool, typer.Option("--rehearse", help="Rehearse on a CPU, with tiny models.")]


def _scale(rehearse: bool) -> Scale:
    from prosparse.gpu_check.scale import REHEARSAL, WHOLE

    return REHEARSAL if rehearse else WHOLE


def gpu_check(
    output: Annotated[Path, typer.Option(help="Folder of check.json, README.md and Table 2.")],
    rehearse: Rehearse = False,
) -> int:
    """Ten minutes on a GPU: its tests, Table 2's operators, training, decoding."""
    import torch

    from prosparse.gpu_check.run import check

    gpus = 2 if rehearse else torch.cuda.device_count()
    outcomes = check(_scale(rehearse), output, gpus)
    print(f"see {output / 'README.md'}")
    return int(any(outcome.verdict != "passed" for outcome in outcomes))


def gpu_check_machine(output: Output, rehearse: Rehearse = False) -> None:
    """Show the GPUs that torch sees."""
    from prosparse.gpu_check.steps import machine
    from prosparse.system.files import write_json

    write_json(output, machine(needs_gpu=not rehearse))


def gpu_check_data(output: Annotated[Path, typer.Option(help="Folder.")], rehearse: Rehearse = False) -> None:
    """Write random tokens."""
    from prosparse.gpu_check.steps import write_data

    write_data(_scale(rehearse), output)


def gpu_check_decoding(output: Output, rehearse: Rehearse = False) -> None:
    """Decode in every mode."""
    from prosparse.gpu_check.steps import decode
    from prosparse.system.files import write_json

    write_json(output, decode(_scale(rehearse)))


COMMANDS = {
    each.__name__.replace("_", "-"): each for each in (gpu_check, gpu_check_machine, gpu_check_data, gpu_check_decoding)
}
