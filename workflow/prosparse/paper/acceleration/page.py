"""``acceleration.md``: what makes up the paper's 4.52x speedup, and how large ours is."""

from __future__ import annotations

from pathlib import Path

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.paper.acceleration.ours import ours
from prosparse.paper.acceleration.papers import attribution, dense_token, question, savings
from prosparse.paper.results import accelerated
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.published.settings import largest_speedup
from prosparse.system.files import write_text


def needs(experiment: Experiment) -> Needs:
    """Return the measurements that the page needs."""
    return accelerated.decoding_needs(experiment)


def write(layout: Layout) -> Path:
    """Write the page.

    Raises:
        MissingResult: if a measurement it needs does not exist; names the file.
    """
    path = layout.acceleration()
    write_text(path, render(Results(layout)))
    return path


def render(results: Results) -> str:
    lines = [f"# Why sparsity alone does not explain {largest_speedup().printed['speedup_to_dense']}×", ""]
    lines += [*question(), "", *dense_token(), "", *savings(), "", *attribution(), "", *ours(results)]
    return "\n".join(lines) + "\n"
