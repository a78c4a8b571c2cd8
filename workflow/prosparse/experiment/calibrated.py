"""The runs that calibrate λ, and their multipliers, applied to the runs that need them"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import accumulate

from prosparse.experiment import lineage
from prosparse.experiment.calibration import FEWEST_MEASUREMENTS, SETTLING, Calibration
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.experiment.model import RunInit
from prosparse.experiment.section import Section
from prosparse.experiment.training import Run, Stage, Training
from prosparse.system.errors import ConfigError


class CalibrationSpecification(Section):
    """What the probes of a model's λ tell, and what they are compared with."""

    scale: str  # of the paper
    probes: list[float]  # λ of each ledger, in their order
    steps: int  # of each
    training: Training  # theirs
    full_time: float  # of a full run's steps after stage 0, as Training.time counts


def probes(experiment: Experiment, scale: str) -> list[str]:
    """Return the names of the runs that calibrate a model's λ."""
    return [f"probe-{scale.lower()}-{peak:g}" for peak in experiment.calibration[scale].probes]  # type: ignore[index]


def with_probes(experiment: Experiment) -> Experiment:
    """Add the probes of every calibration as runs of one stage.

    Raises:
        ConfigError: a probe is too short, another run has its name, or two calibrations are of one model.
    """
    added: dict[str, Run] = {}
    for scale, section in experiment.calibration.items():
        _check_length(experiment.runs[section.run], scale, section)
        added |= zip(probes(experiment, scale), _probe_runs(experiment.runs[section.run], section), strict=True)
    if taken := [name for name, run in added.items() if experiment.runs.get(name, run) != run]:
        raise ConfigError(f"runs.{taken[0]} has the name of a calibration's probe: rename it")
    models = [lineage.start(experiment, section.run)[0] for section in experiment.calibration.values()]
    if len(set(models)) < len(models):
        raise ConfigError(f"calibration: {', '.join(experiment.calibration)} must be of different models")
    return experiment.model_copy(update={"runs": experiment.runs | added})


def _probe_runs(run: Run, section: Calibration) -> Iterable[Run]:
    training = run.training.model_copy(
        update={"schedule": "constant", "decay_share": None, "warmup_steps": section.steps // 10}
    )
    for peak in section.probes:
        yield run.model_copy(
            update={
                "init": RunInit(run=section.run, stage=0),
                "training": training,
                "stages": [Stage(until=section.steps, peak=peak)],
                "label": f"Probe, λ = {peak:g}",
            }
        )


def _check_length(run: Run, scale: str, section: Calibration) -> None:
    training, steps = next(iter(_probe_runs(run, section))).training, section.steps
    logged = {1, steps, *range(training.log_every, steps + 1, training.log_every)}
    times = list(accumulate(training.rate(step, steps) for step in range(1, steps + 1)))
    used = [step for step in logged if times[step - 1] >= SETTLING * times[-1]]
    if len(used) < FEWEST_MEASUREMENTS:
        raise ConfigError(
            f"calibration.{scale}.steps: {steps} steps have {len(used)} rows of the ledger after their first quarter, "
            f"and at least {FEWEST_MEASUREMENTS} are needed: more steps, or a smaller training.log_every (now "
            f"{training.log_every})"
        )


def specification(experiment: Experiment, scale: str) -> CalibrationSpecification:
    """Describe the probes of a model's λ; its multiplier holds for no others."""
    section = experiment.calibration[scale]  # type: ignore[index]
    full = experiment.runs[section.run]
    return CalibrationSpecification(
        scale=scale,
        probes=section.probes,
        steps=section.steps,
        training=experiment.runs[probes(experiment, scale)[0]].training,
        full_time=full.training.time(full.stages[-1].until, after=full.stages[0].until),
    )


def calibrated(experiment: Experiment) -> Experiment:
    """Multiply the peaks of every model whose multiplier has been found; its section records the number.

    A multiplier that other probes or runs of another length found does not count.

    Raises:
        ConfigError: a result of ``snakemake calibrate`` cannot be read.
    """
    found, layout = experiment, Layout.of(experiment)
    for scale, section in experiment.calibration.items():
        path = layout.calibration(scale, "json")
        if section.multiplier is not None or not path.exists():
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            multiplier = float(record["multiplier"])
            current = record["specification"] == specification(experiment, scale).model_dump(mode="json")
            section = Calibration.model_validate({**section.model_dump(), "multiplier": multiplier})
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(f"{path} has no multiplier: delete it and run `snakemake calibrate` again") from None
        if not current:
            continue
        named = _runs(experiment, scale)
        runs = {name: _multiplied(run, multiplier) if name in named else run for name, run in found.runs.items()}
        found = found.model_copy(update={"runs": runs, "calibration": found.calibration | {scale: section}})
    return found


def _runs(experiment: Experiment, scale: str) -> set[str]:
    """Return the runs of a calibration's model, without its probes."""
    model = lineage.start(experiment, experiment.calibration[scale].run)[0]  # type: ignore[index]
    own = {name for name in experiment.runs if lineage.start(experiment, name)[0] == model}
    return own - set(probes(experiment, scale))


def _multiplied(run: Run, multiplier: float) -> Run:
    stages = [
        # ten digits, so that 0.1 times 3 is 0.3
        stage.model_copy(update={"peak": float(f"{stage.peak * multiplier:.10g}")}) if stage.peak else stage
        for stage in run.stages
    ]
    return run.model_copy(update={"stages": stages})


def uncalibrated(experiment: Experiment, run: str, stage: int) -> str | None:
    """Return the calibration that a stage with a peak is waiting for; None if it can be trained."""
    if not any(each.peak for each in experiment.runs[run].stages[: stage + 1]):
        return None
    waiting = (scale for scale, section in experiment.calibration.items() if section.multiplier is None)
    return next((scale for scale in waiting if run in _runs(experiment, scale)), None)


def refusal(experiment: Experiment, scale: str, run: str) -> str:
    """Say why a run's stage with a peak is not trained, and what to do."""
    page = Layout.of(experiment).calibration(scale, "md")
    return (
        f"runs.{run}: its λ are the paper's, whose normalization is unknown: run `snakemake calibrate` first (for this "
        f"model only: `snakemake {page}`), with the same --configfile"
    )
