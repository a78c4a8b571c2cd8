"""What was asked of Snakemake on its command line, checked where Snakemake itself says nothing or too much.

A profile that does not exist is no error for Snakemake: it would run everything on this machine. A target that does
not exist ends in its search for a rule.
"""

from __future__ import annotations

import contextlib
import io
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path

from prosparse.experiment.problems import did_you_mean
from prosparse.system.errors import ConfigError


def parsed(arguments: Sequence[str]) -> Namespace | None:
    """The options and targets of a call, profiles left aside; None where the arguments are not Snakemake's."""
    from snakemake.cli import get_argument_parser

    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return get_argument_parser().parse_args(arguments)
        except (SystemExit, Exception):
            return None


def called() -> Namespace | None:
    """How this process was called; None where a program uses Snakemake as a library."""
    program = Path(sys.argv[0])
    return parsed(sys.argv[1:]) if "snakemake" in (program.stem, program.parent.name) else None


def check_profile(name: str | None, root: Path) -> None:
    """Refuse a ``--workflow-profile`` that Snakemake would ignore.

    Args:
        root: the folder with the Snakefile.
    """
    if name in (None, "none"):
        return
    assert name is not None
    profiles = root / "profiles"
    if any(path.exists() for path in (Path(name), Path("profiles") / name, profiles / name)):
        return
    known = sorted(path.name for path in profiles.iterdir() if path.is_dir())
    raise ConfigError(
        f"--workflow-profile {name}: no such profile{did_you_mean(Path(name).name, known)}; "
        f"allowed: a folder, or {', '.join(known)}"
    )


def copied(outputs: Sequence[str], directory: str) -> str | None:
    """The line for outputs that are there, older than what they are made from, and that Snakemake did not make here.

    So it is after `cp -r`, which gives every file the time of its copying, in whatever order.
    """
    if not outputs:
        return None
    return (
        f"{len(outputs)} finished files of {directory} are older than what they are made from and would be made again: "
        "`cp -r` does not keep times, `cp -a` does. If they belong together, `snakemake --touch` with the same targets "
        "says so; to make them again, delete them"
    )


def check_experiment(name: str | None, named_by_file: bool, root: Path) -> None:
    """Refuse a ``--config experiment=NAME`` that names a file's experiment: its file says what that is, not its name.

    Args:
        named_by_file: a file given with --configfile says which experiment it is.
        root: the folder with the Snakefile.
    """
    file = root / "workflow" / "experiments" / f"{name}.yaml"
    if name is not None and not named_by_file and file.exists():
        shown = file.relative_to(root)
        raise ConfigError(
            f"experiment: --config experiment={name} would run the default experiment under the name of another: "
            f"--configfile {shown}"
        )


def check_targets(targets: Iterable[str], names: Sequence[str], files: Sequence[str], made: Sequence[str]) -> None:
    """Refuse a target that no rule makes.

    Args:
        names: rules that may be targets.
        files: some files that rules make, to choose a suggestion from.
        made: the targets among ``targets`` that are files which a rule makes or that exist.
    """
    for target in targets:
        if target in names or target in made:
            continue
        suggestion = did_you_mean(target, files if "/" in target else names)
        raise ConfigError(f"no target or file is called {target}{suggestion or '; targets: ' + ', '.join(names)}")
