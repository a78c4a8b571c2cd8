"""Table 8: average sparsity by data set."""

from __future__ import annotations

from prosparse.experiment.data import PAPER_DATASETS
from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.tables.by_setting import by_setting
from prosparse.paper.tables.columns import BITS, LOSS
from prosparse.paper.tables.table import Column, Table
from prosparse.published.tables import LABELS, published_table


def needs(experiment: Experiment) -> Needs:
    settings = [row["setting"] for row in published_table("table8_dataset_sparsity")]
    return Needs(sparsity={experiment.pair(experiment.rows[key])[0] for key in settings if key in experiment.rows})


def build(results: Results) -> Table:
    experiment = results.experiment
    notes = [f"Mixed: all corpora, weighted as in the mixture `{experiment.data.mixed}`."]
    stand_ins = [
        f"{LABELS[corpus.stands_for]}: `{name}`" for name, corpus in experiment.data.corpora.items() if corpus.stand_in
    ]
    if stand_ins:
        notes.append(f"Stand-in corpora: {'; '.join(stand_ins)}.")
    uncovered = [d for d in PAPER_DATASETS if d not in {c.stands_for for c in experiment.data.corpora.values()}]
    if uncovered:
        notes.append(f"Missing: no corpus of this experiment stands for {', '.join(LABELS[d] for d in uncovered)}.")
    columns = [Column(name, LABELS[name], "%") for name in ("mixed", *PAPER_DATASETS)]
    return by_setting(
        results,
        "table8",
        "Table 8. Average sparsity by data set",
        "table8_dataset_sparsity",
        [*columns, LOSS, BITS],
        *notes,
    )
