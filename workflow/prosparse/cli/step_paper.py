"""Steps that write the tables, figures, claims and pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prosparse.cli.arguments import Output, Specification

if TYPE_CHECKING:
    from prosparse.experiment.layout import Layout

Config = Annotated[Path, typer.Option(help="results/EXPERIMENT/config.json; the output goes next to it.")]


def _layout(config: Path) -> Layout:
    from prosparse.experiment.experiment import Experiment
    from prosparse.experiment.layout import Layout

    return Layout(Experiment.model_validate_json(config.read_text(encoding="utf-8")), config.parent)


def table(name: str, config: Config) -> None:
    """Write one table."""
    from prosparse.paper.tables import registry as tables

    tables.write(name, _layout(config))


def figure(name: str, config: Config) -> None:
    """Draw one figure."""
    from prosparse.paper.figures import registry as figures

    figures.write(name, _layout(config))


def acceleration(config: Config) -> None:
    """Explain why sparsity by itself does not make decoding 4.52 times faster."""
    from prosparse.paper.acceleration import page

    page.write(_layout(config))


def claims(config: Config) -> None:
    """Judge the paper's claims on our numbers."""
    from prosparse.paper.claims import registry as claims

    claims.write(_layout(config))


def page(config: Config) -> None:
    """Write the page that shows everything."""
    from prosparse.paper import page

    page.write(_layout(config))


def html(config: Config) -> None:
    """Write the page to open in a browser."""
    from prosparse.paper.html import document

    document.write(_layout(config))


def plan(config: Config) -> None:
    """Estimate what the experiment costs, and report what would stop it."""
    from prosparse.plan import page

    print(page.write(_layout(config)), end="")


def calibrate(
    ledgers: Annotated[list[Path], typer.Argument(help="Ledgers of the probes, in the order of their λ.")],
    specification: Specification,
    output: Output,
) -> None:
    """Find the multiplier that turns the paper's λ into a model's own."""
    from prosparse.experiment.calibrated import CalibrationSpecification
    from prosparse.paper import calibration

    wanted = CalibrationSpecification.model_validate_json(specification)
    print(f"multiplier: {calibration.write(wanted, ledgers, output):g}")


def release(pair: Annotated[str, typer.Argument(help="run, or run@activation.")], config: Config) -> None:
    """Make the folder to upload for one sparse model."""
    from prosparse.paper.release import folder

    print(f"released: {folder.write(pair, _layout(config)).parent}")


def publish(config: Config) -> None:
    """Copy tables, figures and JSONs to results/published."""
    from prosparse.paper import publish

    print(f"published: {publish.publish(_layout(config))}")


def compare(config: Config) -> None:
    """Compare the results with the committed copy in results/published."""
    from prosparse.paper.compare import page

    print(page.write(_layout(config)), end="")


STEPS = (table, figure, acceleration, calibrate, claims, page, html, plan, release, publish, compare)
COMMANDS = {each.__name__: each for each in STEPS}
