"""A process that a test kills takes nothing with it that the other tests wait for."""

from __future__ import annotations

import multiprocessing
import threading
import time

from helpers.faults import kill_once
from tqdm import tqdm


def test_tqdms_lock_is_free_after_a_process_that_held_it_was_killed():
    tqdm.get_lock()  # as the first progress bar does: what follows is forked with it
    held = multiprocessing.get_context("fork").Event()

    def hold() -> None:
        with tqdm.get_lock():
            held.set()
            time.sleep(60)

    def take() -> None:
        with tqdm.get_lock():
            pass

    kill_once(held.is_set, hold)
    taking = threading.Thread(target=take, daemon=True)
    taking.start()
    taking.join(timeout=10)
    assert not taking.is_alive()
