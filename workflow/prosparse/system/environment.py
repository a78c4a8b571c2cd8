"""Read the environment: a process's place in a job, and where its commands are.

Imports nothing heavy, since every command starts here.
"""

from __future__ import annotations

import io
import os
import sys
import sysconfig
from collections.abc import MutableMapping

#: The variables torchrun sets, all of them. A subset is left over or comes from another program (Kubeflow sets all but
#: LOCAL_RANK).
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def settle_launcher(environment: MutableMapping[str, str] = os.environ) -> str | None:
    """Keep a launcher's variables if the set is complete; otherwise drop them and run as a single-process job.

    Without this, accelerate and torch.distributed would each read the variables they know and wait for processes that
    nobody started.

    Returns:
        One line that names the ignored variables; None if there are none.
    """
    present = [name for name in LAUNCHER if name in environment]
    if not present or (len(present) == len(LAUNCHER) and _is_process(environment)):
        return None
    shown = ", ".join(f"{name}={environment[name]}" for name in present)
    leave_job(environment)
    return f"ignored: {shown}: not what torchrun sets ({', '.join(LAUNCHER)}); this is a single-process job"


def leave_job(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make this process a job of its own, however it was started."""
    for name in LAUNCHER:
        environment.pop(name, None)


def speaks_for_job(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Whether this process reports an error that every process of its job meets.

    Silences only torchrun's other processes: if ``RANK`` decided, a variable left over in a shell would silence the
    only process.
    """
    return environment.get("RANK", "0") == "0" or "TORCHELASTIC_RUN_ID" not in environment


def _is_process(environment: MutableMapping[str, str]) -> bool:
    try:
        rank, local, count = (int(environment[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
        port = int(environment["MASTER_PORT"])
    except ValueError:
        return False
    return 0 <= local <= rank < count and 0 < port < 65536 and bool(environment["MASTER_ADDR"])


def print_what_streams_cannot() -> None:
    """Print characters outside a terminal's or log's encoding as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def prepare_jobs(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let this process's jobs find the commands of this Python, activated or not, and read and write UTF-8."""
    environment["PYTHONUTF8"] = "1"
    scripts = sysconfig.get_path("scripts")
    folders = environment.get("PATH", os.defpath).split(os.pathsep)
    if scripts not in folders:
        environment["PATH"] = os.pathsep.join([scripts, *folders])
