"""Table 6: training stages of the LLaMA2 models."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.stages import stage_table, stages_needs
from prosparse.paper.tables.table import Table


def needs(experiment: Experiment) -> Needs:
    return stages_needs(experiment, ("7B", "13B"))


def build(results: Results) -> Table:
    return stage_table(results, "table6", "Table 6. Training stages of the LLaMA2 models", "table6_stages_llama2")
