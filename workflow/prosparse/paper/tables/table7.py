"""Table 7: training stages of MiniCPM-1B."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.stages import stage_table, stages_needs
from prosparse.paper.tables.table import Table


def needs(experiment: Experiment) -> Needs:
    return stages_needs(experiment, ("1B",))


def build(results: Results) -> Table:
    return stage_table(
        results, "table7", "Table 7. Training stages of MiniCPM-1B, decay and SFT", "table7_stages_minicpm"
    )
