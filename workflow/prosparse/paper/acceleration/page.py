"""``acceleration.md``: what makes up the paper's 4.52x speedup, and how large ours is."""

from __future__ import annotations

from pathlib import Path

from prosparse.experiment.experiment import Experiment
from prosparse.paper.acceleration.ours import ours
from prosparse.paper.acceleration.papers import attribution, dense_token, question, savings
from prosparse.paper.results import accelerated
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.settings import largest_speedup
from prosparse.system.files import write_text

FILE = "acceleration.md"


def needs(experiment: Experiment) -> Needs:
    """Return the measurements that the page needs."""
    return accelerated.decoding_needs(experiment)


def write(experiment: Experiment, directory: str | Path) -> Path:
    """Write ``directory/acceleration.md``.

    Raises:
        MissingResult: if a measurement it needs does not exist; names the file.
    """
    path = Path(directory) / FILE
    write_text(path, render(Results(directory, experiment)))
    return path


def render(results: Results) -> str:
    lines = [f"### Why sparsity alone does not explain {largest_speedup().printed['speedup_to_dense']}×", ""]
    lines += [*question(), "", *dense_token(), "", *savings(), "", *attribution(), "", *ours(results)]
    return "\n".join(lines) + "\n"
