"""Check Snakemake's command line where Snakemake itself says nothing or too much.

Snakemake ignores a profile that does not exist and would run everything on this machine. For a target that does not
exist, it reports its failed search for a rule.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prosparse.experiment.experiment import Experiment
from prosparse.system.errors import ConfigError
from prosparse.system.problems import did_you_mean

if TYPE_CHECKING:
    from snakemake.dag import DAG
    from snakemake.persistence import Persistence


def parsed(arguments: Sequence[str]) -> Namespace | None:
    """Parse a call's options and targets, ignoring profiles; None if the arguments are not Snakemake's."""
    from snakemake.cli import get_argument_parser

    with contextlib.redirect_stderr(io.StringIO()):
        try:
            return get_argument_parser().parse_args(arguments)
        except (SystemExit, Exception):
            return None


def called() -> Namespace | None:
    """Return how this process was called; None if a program uses Snakemake as a library."""
    program = Path(sys.argv[0])
    return parsed(sys.argv[1:]) if "snakemake" in (program.stem, program.parent.name) else None


def check_profile(name: str | None, root: Path) -> None:
    """Refuse a ``--workflow-profile`` that Snakemake would ignore.

    Args:
        root: the folder that holds the Snakefile.
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


def check_installed() -> None:
    """Refuse an environment whose jobs would not find the command."""
    if shutil.which("prosparse") is None:
        raise ConfigError(
            f"prosparse is not installed in the environment of {sys.executable}; run pip install --no-deps --editable ."
        )


def copied(dag: DAG, persistence: Persistence, directory: Path) -> str | None:
    """Say what to do if finished work would be redone because a copy lost its files' modification times, else None.

    `cp -r` sets every file's time to that of its copying, in arbitrary order.
    """
    # a job without a record did not finish here
    jobs = [
        job
        for job in dag.needrun_jobs()
        if dag.reason(job).updated_input and not dag.reason(job).missing_output and not persistence.has_metadata(job)
    ]
    outputs = [output for job in jobs for output in job.output]
    if not outputs:
        return None
    return (
        f"{len(outputs)} finished files of {directory} are older than their inputs and would be made again: "
        "`cp -r` does not keep modification times, `cp -a` does. To accept the files as they are, run `snakemake "
        "--touch` with the same targets; to make them again, delete them"
    )


def check_experiment(name: str | None, named_by_file: bool, root: Path) -> None:
    """Refuse ``--config experiment=NAME`` if an experiment file has that name: only --configfile selects the file.

    Args:
        named_by_file: whether a file given with --configfile names the experiment.
        root: the folder that holds the Snakefile.
    """
    file = root / "workflow" / "experiments" / f"{name}.yaml"
    if name is not None and not named_by_file and file.exists():
        shown = file.relative_to(root)
        raise ConfigError(
            f"experiment: --config experiment={name} would run the default experiment under another name; use "
            f"--configfile {shown}"
        )


def notice_of_seeds(experiment: Experiment) -> str | None:
    """Warn before training about what the seeds of an experiment cannot decide."""
    if len(experiment.seeds) > 1 or experiment.seed_deviation is not None:
        return None
    return (
        "seeds: one seed cannot show how much results vary, so claims that compare runs will be undecided; set at "
        "least two seeds, or seed_deviation"
    )


def check_targets(targets: Iterable[str], names: Sequence[str], files: Sequence[str], made: Sequence[str]) -> None:
    """Refuse a target that no rule makes.

    Args:
        names: rules that may be targets.
        files: some files that rules make, as candidates for a suggestion.
        made: those of ``targets`` that exist as files or that a rule makes.
    """
    for target in targets:
        if target in names or target in made:
            continue
        suggestion = did_you_mean(target, files if "/" in target else names)
        raise ConfigError(f"no target or file is called {target}{suggestion or '; targets: ' + ', '.join(names)}")
