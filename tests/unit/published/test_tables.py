"""The paper's tables as data."""

from __future__ import annotations

from prosparse.published.tables import row_keys


def test_published_row_keys_are_unique_and_from_the_tables():
    rows = row_keys()
    assert {"LLaMA2-7B", "ProSparse-13B*", "Vanilla ReLU 34.60", "13B ProSparse", "7B 0.005"} <= set(rows)
    assert len(rows) == 11 + 3 + 6 + 8 + 10
