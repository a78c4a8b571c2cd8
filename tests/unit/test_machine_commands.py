"""What a machine has beyond the plain commands is hidden from tests, unless they ask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import commands
from helpers.repository import ROOT

PLANTED = ["sbatch", "sinfo", "squeue", "qsub", "c++", "nvcc", "cmake", "chromium", "ollama", "conda", "nvidia-smi"]
VARIABLES = ["RANK", "WORLD_SIZE", "SLURM_JOB_ID", "SBATCH_PARTITION", "SNAKEMAKE_PROFILE", "PBS_JOBID"]


def plant(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f"#!/bin/sh\necho planted {name}\n")
        (folder / name).chmod(0o755)
    return folder


#: What a Python whose machine has every command sees, before and after a test asks for one.
SEEN = f"""
import os, shutil, subprocess, sys
from helpers import commands
commands.hide()
print([name for name in {PLANTED} if shutil.which(name)])
print([name for name in {PLANTED} if subprocess.call(["sh", "-c", f"command -v {{name}}"]) == 0])
print([name for name in {PLANTED} if shutil.which(name, path=commands.path("qsub", "c++"))])
print([name for name in {VARIABLES} if name in os.environ])
# as a parallel worker of pytest, which is started by a process that has hidden everything
worker = "from helpers import commands; print(commands.missing({PLANTED}))"
print(subprocess.run([sys.executable, "-c", worker], capture_output=True, text=True).stdout.strip())
"""


def test_a_machines_commands_and_jobs_are_hidden(tmp_path):
    planted = plant(tmp_path / "planted", *PLANTED)
    machine = {**os.environ, **dict.fromkeys(VARIABLES, "1"), "PYTHONPATH": str(ROOT / "tests")}
    del machine["MACHINE_PATH"]
    machine["PATH"] = os.pathsep.join([str(planted), os.environ["PATH"]])
    run = subprocess.run([sys.executable, "-c", SEEN], env=machine, capture_output=True, text=True)
    assert run.stdout.splitlines() == ["[]", "[]", "['qsub', 'c++']", "[]", "[]"], run.stdout + run.stderr


def executables(path: str) -> set[str]:
    return {
        file.name
        for folder in path.split(os.pathsep)
        if Path(folder).is_dir()
        for file in Path(folder).iterdir()
        if os.access(file, os.X_OK) and file.is_file()
    }


def test_this_machines_commands_are_hidden_here():
    environment = executables(str(Path(sys.executable).parent))
    others = executables(commands.MACHINE) - environment - set(commands.PLAIN)
    if torch.cuda.is_available():
        others -= {"c++", *commands.COMPANIONS["c++"]}
    assert others, "every machine has more than plain commands"
    assert not others & executables(os.environ["PATH"])


def test_a_command_that_is_absent_is_named():
    assert commands.missing(["sh", "a-command-that-no-machine-has"]) == ["a-command-that-no-machine-has"]


@pytest.mark.commands("c++")
def test_a_compiler_that_is_asked_for_compiles(tmp_path):
    """With the assembler and linker that it calls by name."""
    (tmp_path / "main.cpp").write_text('#include <cstdio>\nint main() { std::puts("compiled"); }\n')
    subprocess.run(["c++", str(tmp_path / "main.cpp"), "-o", str(tmp_path / "main")], check=True)
    assert subprocess.run([tmp_path / "main"], capture_output=True, text=True).stdout == "compiled\n"
