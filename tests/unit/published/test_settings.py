"""The rows of Table 2 as printed."""

from __future__ import annotations

import pytest

from prosparse.published.settings import settings


def test_settings_are_the_papers_rows_by_scale():
    names = [setting.name for setting in settings()]
    assert names[:6] == ["Dense-7B", "ReluLLaMA-7B", "ProSparse-7B*", "ProSparse-7B", "Vanilla ReLU-7B", "Fixed L1-7B"]
    assert names[6:] == ["Dense-13B", "ReluLLaMA-13B", "ProSparse-13B*", "ProSparse-13B"]
    for setting in settings():  # the printed speedups are ratios of the printed times
        dense = next(s for s in settings() if s.is_dense and s.scale == setting.scale)
        for step in (2, 3):
            ratio = dense.microseconds(step) / setting.microseconds(step)
            assert setting.speedup(step) == pytest.approx(ratio, abs=0.006)
