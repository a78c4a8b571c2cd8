"""The share of a profile's nodes that a run can use: its batch limits its processes.

A profile's resources of ``train_stage`` describe whole nodes. A run whose batch divides among fewer processes asks for
that share of a node, so that small experiments run under any profile.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.training import Training

if TYPE_CHECKING:
    from snakemake.resources import Resources

#: Resources of which a profile gives a whole node's.
DIVIDED = frozenset({"gpu", "gres", "cpus", "cpus_per_task", "mem_mb"})


def usable(training: Training, nodes: int, processes: int) -> tuple[int, int]:
    """Return the nodes, and the processes on each, that a batch can use of those that a profile gives.

    Chooses the most processes in total, and among equals the fewest nodes.
    """
    shares = training.batch_size // training.micro_batch_size
    ways = [(n, p) for n in range(1, nodes + 1) for p in range(1, processes + 1) if shares % (n * p) == 0]
    return max(ways, key=lambda way: (way[0] * way[1], -way[0]))


def part(value: int | str, used: int, whole: int) -> int | str:
    """Return the share of a node's resource: a number, or a Slurm gres such as ``gpu:a100:8``."""
    if used == whole:
        return value
    if isinstance(value, int):
        return math.ceil(value * used / whole)
    return re.sub(r"(?<=:)\d+$", lambda count: str(math.ceil(int(count[0]) * used / whole)), value)


def fit(resources: Resources, divided: Iterable[str], experiment: Experiment) -> None:
    """Let each run ask for what it can use.

    Args:
        resources: of the rule that trains, as a profile set them; ``nodes`` and ``processes`` are among them.
        divided: those to divide among a node's processes.
    """
    given = dict(resources.items())

    def fitted(name: str) -> Any:
        def of_run(wildcards: Any, **context: Any) -> int | str:
            values = {each: given[each].evaluate(wildcards, **context).value for each in ("nodes", "processes", name)}
            nodes, processes = usable(experiment.runs[wildcards.run].training, values["nodes"], values["processes"])
            if name == "nodes":
                return nodes
            return processes if name == "processes" else part(values[name], processes, values["processes"])

        return of_run

    for name in {"nodes", "processes", *divided}:
        resources[name] = fitted(name)
