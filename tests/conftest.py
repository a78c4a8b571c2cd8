"""What every test sees of this machine; longer tests come first."""

from __future__ import annotations

import gc
import os
import threading
from functools import cache

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here, and no Snakemake that a test starts, may reach for a hub
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny: threads only wait for one another
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # and not by spinning, which takes a core from another test

import pytest
from helpers import commands
from tqdm import tqdm

# tqdm's own lock is shared with forked processes: one that a test kills while it holds the lock would keep it for ever
tqdm.set_lock(threading.RLock())

commands.hide()  # before any test asks what this machine has


def pytest_configure(config):
    config.addinivalue_line("markers", "commands(*names): sees these commands of the machine; skipped without them")


def pytest_collection_modifyitems(items):
    """Files that take longest come first, so that parallel workers end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def rank(item) -> int:
        if item.path.name == "test_rehearsal.py":
            return 0
        return 1 if item.path.parent.name == "workflow" else 3 - (item.path in slow)

    items.sort(key=rank)


def pytest_collection_finish(session):
    """The garbage collector, which every training stage runs, passes over all that has been imported."""
    gc.collect()
    gc.freeze()


@cache
def _always() -> tuple[str, ...]:
    """On a GPU, Triton compiles the launcher of each kernel with a C compiler."""
    import torch  # not at the start of pytest: seconds

    return ("c++",) if torch.cuda.is_available() else ()


def _asked(item) -> tuple[str, ...]:
    marked = (name for mark in item.iter_markers("commands") for name in mark.args)
    return tuple(dict.fromkeys([*marked, *_always()]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Around the test and its fixtures, those of its module too."""
    before = os.environ["PATH"]
    os.environ["PATH"] = commands.path(*_asked(item))
    try:
        return (yield)
    finally:
        os.environ["PATH"] = before


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if missing := commands.missing(_asked(item)):
        pytest.skip(f"{', '.join(missing)}: not installed")
