"""A machine of any size, and no token of whoever runs the tests."""

from __future__ import annotations

import os
import shutil
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def _no_token(monkeypatch, tmp_path):
    """No token of whoever runs the tests."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))


@pytest.fixture
def roomy(monkeypatch):
    """A disk and a memory of any size."""

    def set_sizes(disk: float = 1e16, memory: float = 1e13) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int(disk)))
        pages = {"SC_PHYS_PAGES": int(memory) // 4096, "SC_PAGE_SIZE": 4096}
        monkeypatch.setattr(os, "sysconf", pages.__getitem__)

    set_sizes()
    return set_sizes
