"""What Slurm refuses, asked before any work, and jobs that an earlier call left behind."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from prosparse.system.errors import ConfigError

#: sbatch's option for a resource of a job, as Snakemake's plugin gives it.
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
    """sbatch's arguments for a job with these resources; what is 0 or empty is not asked for."""
    options = [f"{option}={resources[name]}" for name, option in OPTIONS.items() if resources.get(name)]
    return (*options, *shlex.split(str(resources.get("slurm_extra", ""))))


def check(asked: Iterable[tuple[str, Mapping[str, int | str]]]) -> None:
    """Refuse a profile whose jobs this cluster would never run, e.g. on a partition that it does not have.

    Args:
        asked: a rule and the resources of a job of its, as often as these differ.

    Raises:
        ConfigError: with Slurm's reason, the rules and the options.
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
    """Why this cluster would never run such a job, in Slurm's words; None where it would. Submits nothing."""
    asked = subprocess.run(
        ["sbatch", "--test-only", *arguments, "--wrap=true"], capture_output=True, text=True, encoding="utf-8"
    )
    return None if asked.returncode == 0 else _last_line(asked.stderr)


def _last_line(text: str) -> str:
    return next(iter(text.strip().splitlines()[::-1]), "it does not say why")


def leftover_jobs(directory: Path) -> list[str]:
    """Ids of this user's jobs that Snakemake submitted from ``directory`` and that have not ended.

    Empty where no controller answers: Slurm's commands may be installed without one.
    """
    rows = subprocess.run(
        ["squeue", "--me", "--noheader", "--format=%i\t%Z\t%k"], capture_output=True, text=True, encoding="utf-8"
    ).stdout.splitlines()
    jobs = [row.split("\t") for row in rows]
    return [job for job, worked_in, comment in jobs if Path(worked_in) == directory and comment.startswith("rule_")]
