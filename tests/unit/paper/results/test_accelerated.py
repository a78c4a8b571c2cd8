"""Which pairs stand for the rows of Table 2."""

from __future__ import annotations

from prosparse.experiment import table2_rows
from prosparse.paper.tables.registry import TABLES


def test_pairs_are_the_rows_of_table_2_with_the_dense_ones(synthetic):
    assert table2_rows.decoded(synthetic.experiment) == {
        "Dense-7B": "base@silu",
        "ProSparse-7B*": "progressive@relu",
        "ProSparse-7B": "progressive@fatrelu-0.01",
        "Vanilla ReLU-7B": "vanilla@relu",
        "Fixed L1-7B": "constant-0.1@relu",
    }
    predicted = table2_rows.predicted(synthetic.experiment)
    assert list(predicted) == ["ProSparse-7B*", "ProSparse-7B", "Vanilla ReLU-7B", "Fixed L1-7B"]


def test_needs_follow_the_sections(synthetic, nothing):
    needs = TABLES.needs("table2_predictors", synthetic.experiment)
    assert needs.prediction == {
        ("progressive", "relu"), ("progressive", "fatrelu-0.01"), ("vanilla", "relu"), ("constant-0.1", "relu")
    }  # fmt: skip
    assert needs.predicted_benchmarks == {("progressive", "fatrelu-0.01")}
    assert needs.benchmarks == needs.predicted_benchmarks | {("base", "silu")}  # the original
    needs = TABLES.needs("table2_decoding", synthetic.experiment)
    assert (needs.decoding, needs.decoding_shapes, needs.prediction) == (True, {"llama-7b"}, set())
    for name in ("table2", "table2_decoding", "table2_predictors"):
        assert not any(TABLES.needs(name, nothing.experiment).files(nothing.layout).values())
