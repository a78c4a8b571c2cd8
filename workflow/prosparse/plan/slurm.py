"""Ask Slurm, before any work starts, which jobs it would refuse or is still running."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from prosparse.system.errors import ConfigError

#: Resource of a job -> the sbatch option that Snakemake's plugin passes it as.
OPTIONS = {
    "slurm_partition": "--partition",
    "slurm_account": "--account",
    "nodes": "--nodes",
    "gres": "--gres",
    "cpus_per_task": "--cpus-per-task",
    "mem_mb": "--mem",
    "runtime": "--time",
}

RESOURCES = frozenset({*OPTIONS, "slurm_extra"})


def submission(resources: Mapping[str, int | str]) -> tuple[str, ...]:
    """Return sbatch's arguments for a job with these resources; 0 and empty values are omitted."""
    options = [f"{option}={resources[name]}" for name, option in OPTIONS.items() if resources.get(name)]
    return (*options, *shlex.split(str(resources.get("slurm_extra", ""))))


def check(asked: Iterable[tuple[str, Mapping[str, int | str]]]) -> None:
    """Refuse a profile whose jobs this cluster would never run, e.g. because a partition does not exist.

    Args:
        asked: pairs of a rule and a job's resources; one rule may appear with several.

    Raises:
        ConfigError: names Slurm's reason, the rules and the options.
    """
    rules: dict[tuple[str, ...], dict[str, None]] = {}
    for rule, resources in asked:
        if "slurm_partition" in resources:
            rules.setdefault(submission(resources), {})[rule] = None
    if rules:
        answer = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, encoding="utf-8")
        if answer.returncode:
            raise ConfigError(f"Slurm does not answer on this machine: {_last_line(answer.stderr)}")
    for arguments, names in rules.items():
        if (reason := refusal(arguments)) is not None:
            raise ConfigError(
                f"Slurm refuses jobs of {', '.join(names)}: {reason}; adapt the profile, which asks for "
                f"{shlex.join(arguments)}"
            )


def refusal(arguments: tuple[str, ...]) -> str | None:
    """Return Slurm's reason for refusing such a job; None if it would run. Submits nothing."""
    asked = subprocess.run(
        ["sbatch", "--test-only", *arguments, "--wrap=true"], capture_output=True, text=True, encoding="utf-8"
    )
    return None if asked.returncode == 0 else _last_line(asked.stderr)


def _last_line(text: str) -> str:
    return next(iter(text.strip().splitlines()[::-1]), "it does not say why")


def leftover_jobs(directory: Path) -> list[str]:
    """Return the ids of this user's unfinished jobs that Snakemake submitted from ``directory``.

    Empty without Slurm, or if no controller answers: its commands may be installed without one.
    """
    if shutil.which("squeue") is None:
        return []
    rows = subprocess.run(
        ["squeue", "--me", "--noheader", "--format=%i\t%Z\t%k"], capture_output=True, text=True, encoding="utf-8"
    ).stdout.splitlines()
    jobs = [row.split("\t") for row in rows]
    return [job for job, worked_in, comment in jobs if Path(worked_in) == directory and comment.startswith("rule_")]
