"""Starts the processes of a training job: in place, with torchrun on one node, with srun and torchrun on several.

How many there are is a resource of the job, not a part of the experiment: a profile says it, and a stage that was
begun with some goes on with others.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from typing import NoReturn

from prosparse.system.errors import UserError

#: Of a job's variables, those that name it. The rest describe the step that the launcher itself is in, and srun
#: would take them for options of the step that it is asked for.
SLURM_IDENTITY = ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CLUSTER_NAME")


class NotStarted(UserError):
    """The processes cannot be started from here."""


def time_budget(runtime: int) -> int | None:
    """Seconds that a stage may train in a job of ``runtime`` minutes; None where the job has no limit (0).

    What is left, a tenth of it but at least 40 seconds and at most half an hour, is for what the budget does not
    count: Snakemake's and Python's start in the job before, the last step and the writing of a checkpoint after.
    """
    if runtime == 0:
        return None
    return max(0, round(60 * runtime - max(40, min(6 * runtime, 30 * 60))))


def torchrun(command: list[str], nodes: int, processes: int, rendezvous: str | None) -> int:
    """Run ``prosparse step COMMAND`` in ``processes`` of this node; ``rendezvous`` (host:port) joins the nodes.

    Returns:
        The exit status of the first process that failed, e.g. 75 of one that is out of time, else 0. (torchrun's own
        status is 1 then.)
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


def srun(command: list[str], nodes: int, processes: int) -> NoReturn:
    """Become the srun that runs this launcher on every node of the Slurm job; this node is where they meet.

    Raises:
        NotStarted: this is no Slurm job.
    """
    if "SLURM_JOB_ID" not in os.environ:
        raise NotStarted(
            f"{nodes} nodes: only Slurm starts processes on several nodes, and this is none of its jobs; "
            "set the resource nodes to 1"
        )
    launcher = [sys.executable, "-m", "prosparse", "step", "launch"]
    launcher += ["--nodes", str(nodes), "--processes", str(processes)]
    os.execvpe(
        "srun",
        [
            "srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1",
            "--overlap",  # the step that Snakemake runs in holds the job's CPUs and GPUs
            "--cpu-bind=none",  # one task a node, and all CPUs of the job are its processes'
            "--kill-on-bad-exit=0", "--wait=60",  # out of time on one node: the others end by themselves and say so
            *launcher, "--rendezvous", f"{socket.gethostname()}:{_free_port()}", "--", *command,
        ],
        step_environment(os.environ),
    )  # fmt: skip


def step_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what describes another step of the job."""
    return {
        name: value
        for name, value in environment.items()
        if name in SLURM_IDENTITY or not name.startswith(("SLURM_", "SRUN_", "SBATCH_"))
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
