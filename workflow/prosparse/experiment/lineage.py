"""Which runs and stages lead to a checkpoint, and whose folder holds it.

Runs that share a prefix of stages share its checkpoints: a stage belongs to the first run in the config with the same
start, activation, data, tokenizer, training and stages up to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prosparse.experiment.activation import Activation
from prosparse.experiment.data import MeasuredSplit
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.model import Init, PretrainedInit, RunInit, ScratchInit
from prosparse.experiment.training import Draw, without_bands


def owner(experiment: Experiment, run: str, stage: int) -> str:
    """Return the run whose folder holds this stage's checkpoint."""
    wanted = _identity(experiment, run, stage)
    return next(
        name
        for name, other in experiment.runs.items()
        if stage < len(other.stages) and _identity(experiment, name, stage) == wanted
    )


def _identity(experiment: Experiment, name: str, stage: int) -> tuple[Any, ...]:
    run = experiment.runs[name]
    total = None if run.training.schedule == "constant" else run.stages[-1].until
    data = run.mixture, experiment.tokenizer(name)
    return run.init, run.activation, data, run.training, run.distillation, total, without_bands(run.stages[: stage + 1])


def checkpoint(experiment: Experiment, run: str, stage: int | None = None) -> tuple[str, int]:
    """Return the (owner, stage) of a run's checkpoint; ``stage`` None means the last."""
    if stage is None:
        stage = len(experiment.runs[run].stages) - 1
    return owner(experiment, run, stage), stage


def predecessor(experiment: Experiment, run: str, stage: int) -> tuple[str, int] | None:
    """Return the (owner, stage) that a stage starts from; None for scratch and pretrained."""
    if stage > 0:
        return checkpoint(experiment, run, stage - 1)
    init = experiment.runs[run].init
    return checkpoint(experiment, init.run, init.stage) if isinstance(init, RunInit) else None


def continuations(experiment: Experiment, run: str, stage: int) -> list[tuple[str, int]]:
    """Return the (owner, stage) of every checkpoint that continues the optimizer of this stage's."""
    own = checkpoint(experiment, run, stage)
    found = [
        checkpoint(experiment, name, stage + 1)
        for name, other in experiment.runs.items()
        if stage + 1 < len(other.stages) and checkpoint(experiment, name, stage) == own
    ]
    return list(dict.fromkeys(found))


def chain(experiment: Experiment, run: str) -> list[tuple[int | None, tuple[str, int]]]:
    """Return a run's stages, each with the (owner, stage) of its checkpoint.

    The first is None, with the checkpoint that the run starts from, if another run made it.
    """
    before = predecessor(experiment, run, 0)
    stages = range(len(experiment.runs[run].stages))
    return [*([(None, before)] if before else []), *((stage, checkpoint(experiment, run, stage)) for stage in stages)]


def earlier_draws(experiment: Experiment, init: Init) -> tuple[Draw, ...]:
    """Return what the runs behind a starting point trained on, earliest first."""
    if not isinstance(init, RunInit):
        return ()
    behind = [(experiment.runs[name], stage) for name, stage in _ends(experiment, init.run, init.stage)]
    return tuple(
        Draw(
            mixture=experiment.data.mixtures[run.mixture],
            samples=run.stages[stage].until * run.training.batch_size,
        )
        for run, stage in behind
        if run.stages[stage].until
    )


def tokens(experiment: Experiment, run: str, stage: int | None = None) -> int:
    """Return the tokens that a run has trained on by the end of ``stage`` (default: its last)."""
    chosen = experiment.runs[run]
    return (
        chosen.stages[-1 if stage is None else stage].until
        * chosen.training.batch_size
        * experiment.data.context_length
    )


def lineage_tokens(experiment: Experiment, run: str) -> int:
    """Return ``tokens`` summed over the run and the runs it started from; a pretrained start counts as zero."""
    return sum(tokens(experiment, name, stage) for name, stage in _ends(experiment, run))


def lineage(experiment: Experiment, run: str, stage: int | None = None) -> list[tuple[str, int]]:
    """Return every (run, stage) that led to this checkpoint, earliest first, its own last."""
    chosen = experiment.runs[run]
    own = [(run, index) for index in range(len(chosen.stages) if stage is None else stage + 1)]
    before = lineage(experiment, chosen.init.run, chosen.init.stage) if isinstance(chosen.init, RunInit) else []
    return before + own


def _ends(experiment: Experiment, run: str, stage: int | None = None) -> Iterable[tuple[str, int]]:
    """Return the last stage of each run in the lineage."""
    return dict(lineage(experiment, run, stage)).items()


def start(experiment: Experiment, run: str) -> tuple[str, ScratchInit | PretrainedInit]:
    """Return the first run of the lineage and its init."""
    init = experiment.runs[run].init
    while isinstance(init, RunInit):
        run, init = init.run, experiment.runs[init.run].init
    return run, init


def needed(experiment: Experiment, run: str, stage: int | None = None) -> Iterator[tuple[str, int]]:
    """Yield every (owner, stage) that must be trained for this checkpoint, latest first, starting with its own."""
    for name, index in reversed(lineage(experiment, run, stage)):
        yield owner(experiment, name, index), index


def overhead_run(experiment: Experiment) -> str | None:
    """Return the run to measure the overhead on: the first regularized one, or None."""
    return next((name for name, run in experiment.runs.items() if run.stages[-1].regularized), None)


def measured_split(experiment: Experiment, run: str) -> MeasuredSplit:
    """Return the rows that a run is measured on: those of `search` choose the recipe, all others are reported."""
    searched = {experiment.pair(pair)[0] for pair in experiment.search}
    return "tuning" if run in searched else "heldout"


def measured_activations(experiment: Experiment, run: str) -> list[Activation]:
    """Return the run's own activation, then all others that a table row, a frontier or a release asks for."""
    activations = [experiment.runs[run].activation]
    pairs = [*experiment.rows.values(), *experiment.ours.values(), *experiment.search]
    frontiers = [*experiment.figures.frontier_pairs(), *experiment.schedules.pairs()]
    for pair in (*pairs, *frontiers, *experiment.release):
        name, activation = experiment.pair(pair)
        if name == run and activation not in activations:
            activations.append(activation)
    return activations


def training_free_targets(experiment: Experiment) -> dict[tuple[str, str], list[float]]:
    """Return the sparsities to reach without training, ascending, of each (run, activation) that a frontier names."""
    targets: dict[tuple[str, str], set[float]] = {}
    for frontier in experiment.figures.frontier.values():
        if frontier.training_free:
            run, activation = experiment.pair(frontier.original)
            targets.setdefault((run, str(activation)), set()).update(frontier.training_free)
    return {pair: sorted(found) for pair, found in targets.items()}
