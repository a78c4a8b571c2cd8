"""The short runs that chose the recipe."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import tokens
from prosparse.experiment.model import RunInit
from prosparse.experiment.training import Stage, Training
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.origins import origin
from prosparse.paper.results.reader import Results
from prosparse.paper.results.value import exact
from prosparse.paper.tables.columns import SPARSITY, final_value
from prosparse.paper.tables.notes import NORMALIZATION, count, published_budgets
from prosparse.paper.tables.table import Cell, Column, Row, Table

TUNING_LOSS = Column("tuning_loss", "Tuning loss", "nats/token", 3)


def build(results: Results) -> Table:
    columns = [
        Column("start", "Starts from", ""),
        Column("activation", "Activation", ""),
        Column("objective", "Objective", ""),
        Column("learning_rate", "Peak learning rate", "", None),
        Column("schedule", "Schedule", ""),
        Column("steps", "Optimizer steps", "", 0),
        Column("tokens", "Tokens", "tokens", 0),
        Column("stages", "Stages: λ (until step)", ""),
        SPARSITY,
        TUNING_LOSS,
        Column("lm_loss", "Training LM loss", "nats/token", 3),
    ]
    experiment = results.experiment
    table = Table("search", "Hyperparameter search: the runs that the recipe was chosen from", columns, row_title="Run")
    if not experiment.search:
        table.note(f"Experiment `{experiment.experiment}` has none.")
        return table
    table.rows += [_searched(results, pair) for pair in experiment.search]
    table.notes += [
        "In the order of the config, including the runs that did not help.",
        "Stages: λ and the optimizer step at which the stage ends; sine, linear: λ rises to that value along a half "
        "sine or a line; target: λ is steered to that sparsity.",
        f"Steps and tokens: of this run only. {published_budgets()}",
        "Sparsity (percent) and loss: on tuning rows, held-out text that no other table reports, under the activation "
        "in the second column. Training LM loss: the last value of the ledger, under the run's own activation.",
        NORMALIZATION,
        f"Experiment `{experiment.experiment}`, {count(len(experiment.seeds), 'seed')}.",
    ]
    return table


def _searched(results: Results, pair: str) -> Row:
    experiment = results.experiment
    run, activation = experiment.pair(pair)
    chosen = experiment.runs[run]
    measured = results.sparsity(run, activation)
    cells = {
        "start": Cell(text=_start(experiment, run)),
        "activation": Cell(text=str(activation)),
        "steps": Cell(exact(chosen.stages[-1].until)),
        "tokens": Cell(exact(tokens(experiment, run))),
        SPARSITY.key: Cell(measured.sparsity),
        TUNING_LOSS.key: Cell(measured.loss),
    }
    if chosen.stages[-1].until:  # something was trained
        final = [record["final"] for record in results.stage(run, len(chosen.stages) - 1)]
        distillation = chosen.distillation
        objective = f"{distillation.share:g} from {distillation.teacher}" if distillation else "next token"
        cells |= {
            "objective": Cell(text=objective),
            "learning_rate": Cell(exact(chosen.training.learning_rate)),
            "schedule": Cell(text=_schedule(chosen.training)),
            "stages": Cell(text=_stages(chosen.stages)),
            "lm_loss": Cell(final_value(final, "lm_loss")),
        }
    return Row(pair, cells, is_published=False)


def _start(experiment: Experiment, run: str) -> str:
    init = experiment.runs[run].init
    if not isinstance(init, RunInit):
        return origin(experiment, run)[0]
    return init.run if init.stage is None else f"{init.run} stage {init.stage}"


def _schedule(training: Training) -> str:
    """Format the learning-rate schedule; wsd with the share of the steps over which it decays."""
    share = training.decay_share
    return training.schedule if share is None else f"{training.schedule}, decay {share:g}"


def _stages(stages: list[Stage]) -> str:
    """Format stages as ``0 (100), 0.1 (150), sine 0.4 (300)``."""
    return ", ".join(f"{stage.factor_text} ({stage.until})" for stage in stages)


def needs(experiment: Experiment) -> Needs:
    searched = {experiment.pair(pair)[0] for pair in experiment.search}
    stages = {(run, len(experiment.runs[run].stages) - 1) for run in searched}
    trained = {(run, stage) for run, stage in stages if experiment.runs[run].stages[stage].until}
    return Needs(sparsity=searched, stages=trained)
