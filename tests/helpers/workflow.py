"""Snakemake on the repository's Snakefile, and what its dry runs plan."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from helpers.repository import ROOT


def snakemake(
    directory: Path, *arguments: str, config: Path = ROOT / "config.yaml", timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    return run_in(directory, *arguments, "--configfile", str(config), timeout=timeout)


def run_in(directory: Path, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Snakemake with these arguments and no others."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(directory)]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=timeout)


def planned(directory: Path, *targets: str, config: Path = ROOT / "config.yaml") -> dict[str, set[str]]:
    """Rule -> wildcards of the jobs that a dry run of the targets plans."""
    run = snakemake(directory, *targets, "--dry-run", config=config)
    assert run.returncode == 0, run.stdout + run.stderr
    jobs: dict[str, set[str]] = {}
    for block in re.split(r"\n(?=(?:local)?rule )", run.stdout):
        if match := re.match(r"(?:local)?rule (\w+):", block):
            wildcards = re.search(r"^    wildcards: (.*)$", block, re.M)
            jobs.setdefault(match[1], set()).add(wildcards[1] if wildcards else "")
    return jobs
