"""Snakemake on the repository's Snakefile, and what its dry runs plan."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from helpers.repository import ROOT
from helpers.warm_start import warm


def snakemake(
    directory: Path,
    *arguments: str,
    config: Path = ROOT / "config.yaml",
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> subprocess.CompletedProcess[str]:
    return run_in(directory, *arguments, "--configfile", str(config), environment=environment, timeout=timeout)


def run_in(
    directory: Path, *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Snakemake with these arguments and no others; ``environment`` is changed for it."""
    command = [str(warm("snakemake") / "snakemake"), "--snakefile", str(ROOT / "Snakefile"), "--directory"]
    return subprocess.run(
        [*command, str(directory), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
    )


def warm_jobs() -> dict[str, str]:
    """The environment in which a run's jobs call the stand-in for ``prosparse``."""
    return {"PATH": os.pathsep.join([str(warm("prosparse")), os.environ["PATH"]])}


@dataclass(frozen=True)
class Job:
    """A job as a dry run prints it; its wildcards as ``run=small-base, seed=0``."""

    rule: str
    wildcards: str
    input: frozenset[str]
    output: frozenset[str]
    resources: dict[str, str]  # with its threads

    @classmethod
    def read(cls, block: str) -> Job | None:
        if (name := re.match(r"(?:local)?rule (\w+):", block)) is None:
            return None
        lines = dict(re.findall(r"^    (\w+): (.*)$", block, re.M))
        resources = dict(each.split("=", 1) for each in lines.get("resources", "").split(", ") if each)
        files = (frozenset(lines[key].split(", ")) if key in lines else frozenset() for key in ("input", "output"))
        return cls(name[1], lines.get("wildcards", ""), *files, {"threads": lines.get("threads", "1"), **resources})


class Plan:
    """The jobs that a dry run of some targets plans."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.jobs = list(jobs)

    @classmethod
    def read(cls, output: str) -> Plan:
        return cls(job for block in re.split(r"\n(?=(?:local)?rule )", output) if (job := Job.read(block)))

    @cached_property
    def by_rule(self) -> dict[str, set[str]]:
        """Rule -> wildcards of its jobs."""
        found: dict[str, set[str]] = {}
        for job in self.jobs:
            found.setdefault(job.rule, set()).add(job.wildcards)
        return found

    def behind(self, target: str) -> Plan:
        """The jobs that a dry run of the one target, a rule's name or a file, would plan: one run answers for many."""
        makes = {file: job for job in self.jobs for file in job.output}
        left = [job for job in self.jobs if job.rule == target or target in job.output]
        found: dict[int, Job] = {}
        while left:
            job = left.pop()
            if id(job) not in found:
                found[id(job)] = job
                left += [makes[file] for file in job.input if file in makes]
        return Plan(found.values())


def planned(directory: Path, *targets: str, config: Path = ROOT / "config.yaml") -> Plan:
    """What a dry run of the targets plans."""
    run = snakemake(directory, *targets, "--dry-run", "--printshellcmds", config=config)
    assert run.returncode == 0, run.stdout + run.stderr
    return Plan.read(run.stdout)
