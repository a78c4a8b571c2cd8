"""Table 2, lower bounds on a GPU."""

from __future__ import annotations

import pytest
from helpers.tables import cells_of

from prosparse.paper.tables.registry import TABLES
from prosparse.published.settings import settings


def test_least_time_is_bytes_over_bandwidth(synthetic):
    table = TABLES.build("table2_operators_gpu", synthetic.results)
    dense = cells_of(table, "Dense-7B")
    size = 2 * (4096 * 11008 + 4096 + 11008)
    assert dense["step2_A100"].ours.mean == pytest.approx(1e6 * size / 2039e9)
    assert dense["step3_H100"].ours.mean == pytest.approx(1e6 * size / 3350e9)
    assert dense["step2_share"].ours.mean == pytest.approx(100 * 44.24 / 90.55, abs=0.1)
    sparse = cells_of(table, "ProSparse-7B")["step3_A100"].ours.mean
    assert sparse == pytest.approx(1e6 * 2 * (4096 * 1176 + 4096 + 11008) / 2039e9)
    for setting in settings():  # a model of the least time is below every printed one
        for step in (2, 3):
            assert cells_of(table, setting.name)[f"step{step}_A100"].ours.mean < setting.microseconds(step)


def test_gpu_times_are_missing_until_a_gpu_has_run(synthetic):
    table = TABLES.build("table2_operators_gpu", synthetic.results)
    cell = cells_of(table, "ProSparse-13B")["step2_time_us"]
    assert (cell.ours, cell.published, cell.note) == (None, "53.78", "missing: ours have not been run on a GPU")
    assert any(note.startswith("Our operators have not been run on a GPU") for note in table.notes)


def test_gpu_times_are_shown_once_a_gpu_has_run(on_gpu):
    table = TABLES.build("table2_operators_gpu", on_gpu.results)
    assert cells_of(table, "ProSparse-7B")["step2_time_us"].ours.mean == pytest.approx(20 + 3000 * 1176 / 11008)
    assert cells_of(table, "Dense-7B")["step2_time_us"].ours.mean == pytest.approx(3020)
    assert not any("not been run" in note for note in table.notes)
    assert "Step (2) and step (3) of ours: Imaginary GPU, cold." in table.notes
