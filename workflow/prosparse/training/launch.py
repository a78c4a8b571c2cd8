"""Start a training job's processes: in place, with torchrun, or with srun and torchrun.

The number of processes is a resource of the job, not part of the experiment. A profile sets it, and a stage can resume
with a different number.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from prosparse.system.errors import UserError
from prosparse.system.locking import asked_to_stop

#: The Slurm variables that identify the job. The others describe the step the launcher itself runs in, and srun would
#: read them as options for the new step.
SLURM_IDENTITY = ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CLUSTER_NAME")

#: The variable with the file that a job's script reads after it (profiles/cluster/jobscript).
OUT_OF_TIME_FILE = "PROSPARSE_OUT_OF_TIME"

#: How long a requeued job waits, at most, for Slurm to end it.
REQUEUED_SECONDS = 600


class NotStarted(UserError):
    """The processes cannot be started from here."""


def time_budget(runtime: int) -> int | None:
    """Seconds that a stage may train in a job of ``runtime`` minutes; None if the job has no limit (0).

    Reserves a tenth of the time, at least 40 seconds and at most half an hour, for what the budget does not count:
    starting Snakemake and Python before training, and the last step and its checkpoint after it.
    """
    if runtime == 0:
        return None
    return max(0, round(60 * runtime - max(40, min(6 * runtime, 30 * 60))))


def torchrun(command: list[str], nodes: int, processes: int, rendezvous: str | None) -> int:
    """Run ``prosparse step COMMAND`` in ``processes`` of this node; ``rendezvous`` (host:port) joins the nodes.

    Returns:
        The exit status of the first process that failed, e.g. 75 for one out of time, else 0. (torchrun itself would
        return 1.)
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    arguments = [f"--nproc-per-node={processes}"]
    if rendezvous is None:
        arguments += ["--standalone"]
    else:
        arguments += [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={rendezvous}"]
        arguments += [f"--rdzv-id={os.environ.get('SLURM_JOB_ID', 'prosparse')}"]
    try:
        run(parse_args([*arguments, "-m", "prosparse", "step", *command]))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return 0


def srun(command: list[str], nodes: int, processes: int) -> int:
    """Run the launcher on every node of the Slurm job; they meet at this node.

    Returns:
        The highest exit status of the nodes.

    Raises:
        NotStarted: this is not a Slurm job.
    """
    if "SLURM_JOB_ID" not in os.environ:
        raise NotStarted(
            f"{nodes} nodes: only Slurm starts processes on several nodes, and this is not a Slurm job; set the "
            "resource nodes to 1"
        )
    launcher = [sys.executable, "-m", "prosparse", "step", "launch"]
    launcher += ["--nodes", str(nodes), "--processes", str(processes)]
    arguments = [
        "srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1",
        "--overlap",  # Snakemake's own step holds the job's CPUs and GPUs
        "--cpu-bind=none",  # one task per node, whose processes use all the job's CPUs
        "--kill-on-bad-exit=0", "--wait=60",  # when one node runs out of time, the others exit by themselves
        *launcher, "--rendezvous", f"{socket.gethostname()}:{_free_port()}", "--", *command,
    ]  # fmt: skip
    with asked_to_stop():  # srun passes SIGTERM on, and is waited for while its processes save
        status = subprocess.run(arguments, env=step_environment(os.environ)).returncode
    return status if status >= 0 else 128 - status


def requeue() -> None:
    """Requeue this Slurm job and wait for Slurm to end it.

    To Slurm and Snakemake it is the same job, which has not failed. Returns if Slurm refuses, after saying why.
    """
    job = os.environ.get("SLURM_JOB_ID", "")
    # said before Slurm ends the job, and with it this process
    print(f"job {job} is requeued and will continue from its checkpoint", flush=True)
    asked = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, encoding="utf-8")
    if asked.returncode:
        reason = " ".join(asked.stderr.split())
        print(f"Slurm does not requeue job {job} ({reason}): it continues as a retry", file=sys.stderr)
        return
    time.sleep(REQUEUED_SECONDS)


def ask_for_another_job() -> None:
    """Tell the job's script that another job should continue this one, if it sets ``PROSPARSE_OUT_OF_TIME``."""
    if asked := os.environ.get(OUT_OF_TIME_FILE):
        Path(asked).write_text("out of time\n", encoding="utf-8")
        print("the stage continues in another job", flush=True)


def step_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without variables that describe another step of the job."""
    return {
        name: value
        for name, value in environment.items()
        if name in SLURM_IDENTITY or not name.startswith(("SLURM_", "SRUN_", "SBATCH_"))
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
