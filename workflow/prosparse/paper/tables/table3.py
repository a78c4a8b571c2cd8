"""Table 3: the benchmarks behind the first three columns of Table 1."""

from __future__ import annotations

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.by_setting import add_chance, by_setting, rows_needs
from prosparse.paper.tables.columns import BITS, LOSS
from prosparse.paper.tables.table import Column, Table
from prosparse.published.tables import GROUPS, LABELS


def needs(experiment: Experiment) -> Needs:
    return rows_needs(experiment, "table1_overall")  # the same settings


def build(results: Results) -> Table:
    names = [name for group in GROUPS.values() if len(group) > 1 for name in group]
    table = by_setting(
        results,
        "table3",
        "Table 3. Benchmarks behind the first three columns of Table 1",
        "table3_benchmarks",
        [*(Column(name, LABELS[name], "%") for name in names), LOSS, BITS],
    )
    add_chance(results, table)
    return table
