"""The commands that tests see: plain ones, this environment's own, and those that a test asks for.

What a well-equipped machine has beyond that (a Slurm, compilers, engines, browsers) is not on PATH, so that no test
passes there only. A test asks with ``@pytest.mark.commands("c++")`` and is skipped where the machine has no such
command.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

#: The machine's own PATH, with the folders of daemons that only root has there. A parallel worker of pytest inherits it
#: under this name, since PATH is hidden from the process that starts it.
MACHINE = os.environ.setdefault(
    "MACHINE_PATH", os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
)

#: What a machine has on which somebody cloned this repository: POSIX, bash and git.
PLAIN = [
    "sh", "bash", "env", "test", "true", "false", "expr", "getopt", "id", "whoami", "hostname", "uname",
    "arch", "nproc", "getconf", "locale", "tty", "stty", "ps", "kill", "nice", "nohup", "sleep", "date",
    "time", "timeout", "setsid", "flock", "which", "cat", "tac", "tee", "head", "tail", "cut", "paste", "tr",
    "sed", "awk", "gawk", "mawk", "grep", "egrep", "fgrep", "sort", "uniq", "wc", "comm", "diff", "cmp",
    "seq", "printf", "echo", "yes", "od", "fold", "split", "find", "xargs", "ls", "cp", "mv", "rm", "ln",
    "mkdir", "rmdir", "mktemp", "mkfifo", "mount", "touch", "chmod", "chown", "dirname", "basename",
    "readlink", "realpath", "pwd", "stat", "du", "df", "dd", "sync", "truncate", "install", "sha256sum",
    "md5sum", "cksum", "tar", "gzip", "gunzip", "zcat", "base64", "git",
]  # fmt: skip

#: Commands that another one calls by name: they come with it where the machine has them.
COMPANIONS = {
    # openssl: torch.compile fingerprints headers with it
    "c++": [
        "g++", "gcc", "cc", "clang", "clang++", "as", "ld", "ld.gold", "ld.lld", "ar", "ranlib", "nm", "strip",
        "openssl",
    ],
    "cmake": ["make", "gmake", "ninja"],
    "slurmctld": [
        "slurmd", "slurmstepd", "munged", "mungekey", "munge", "unmunge", "sbatch", "srun", "salloc", "squeue", "sinfo",
        "scontrol", "scancel", "sacct", "sstat", "sacctmgr",
    ],
}  # fmt: skip

#: Variables of a job, a launcher or a Snakemake that the tests themselves run in.
FOREIGN = ("SLURM_", "SBATCH_", "SRUN_", "SNAKEMAKE_", "PBS_", "TORCHELASTIC_")
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


def missing(names: Iterable[str]) -> list[str]:
    """Those of the commands that this machine does not have."""
    return [name for name in names if shutil.which(name, path=MACHINE) is None]


def path(*asked: str) -> str:
    """PATH with the plain commands, the environment's own, and those asked for."""
    folders = [_links(asked)] if asked else []
    return os.pathsep.join([*folders, str(Path(sys.executable).parent), _links(tuple(PLAIN))])


@cache
def _links(names: tuple[str, ...]) -> str:
    """A folder with links to these commands and what they call, as far as the machine has them."""
    folder = tempfile.mkdtemp(prefix="prosparse-commands-")
    atexit.register(_remove, folder, os.getpid())
    companions = {each for name in names for each in COMPANIONS.get(name, [])}
    for name in companions.union(names):
        if found := shutil.which(name, path=MACHINE):
            Path(folder, name).symlink_to(found)
    return folder


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child leaves it to its parent
        shutil.rmtree(folder, ignore_errors=True)


def hide() -> None:
    """Take everything else from this process and those that it starts."""
    os.environ["PATH"] = path()
    for name in list(os.environ):
        if name.startswith(FOREIGN) or name in LAUNCHER:
            del os.environ[name]
