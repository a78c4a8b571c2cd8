"""Table 2's operator tables from the check's times, next to the paper's."""

from __future__ import annotations

from pathlib import Path

import yaml

from prosparse.experiment.layout import Layout
from prosparse.experiment.loading import REPOSITORY, load
from prosparse.experiment.timings import OperatorsSpecification, operators
from prosparse.gpu_check.scale import Scale
from prosparse.paper.tables import registry

TABLES = ("table2_operators", "table2_operators_limit", "table2_operators_fit", "table2_operators_gpu")


def layout(scale: Scale, results: Path) -> Layout:
    """Return the default experiment, without its trained models, as if it lay in ``results``."""
    experiment = load(yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8")))
    timed = experiment.operators if scale.operators is None else scale.operators
    return Layout(experiment.model_copy(update={"operators": timed, "rows": {}}), results)


def specification(scale: Scale) -> OperatorsSpecification:
    return operators(layout(scale, Path()))


def operators_file(scale: Scale, results: Path) -> Path:
    return layout(scale, results).operators()


def write(scale: Scale, results: Path) -> list[Path]:
    """Write the tables as Markdown, CSV and LaTeX."""
    used = layout(scale, results)
    return [path for name in TABLES for path in registry.write(name, used)]
