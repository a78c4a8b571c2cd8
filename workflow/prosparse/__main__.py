"""``prosparse`` and ``python -m prosparse``."""

import atexit
import gc
import os
import sys

# importing torch and transformers makes a million objects that stay: collecting among them takes a second per job, and
# at its exit another, although the process's memory goes as a whole
gc.set_threshold(100_000, 20, 100)
atexit.register(gc.freeze)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a job's threads are Snakemake's to give
os.environ.setdefault("TQDM_DISABLE", "1")  # a log keeps lines, not bars
os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # else it reports each of its attempts to reach the hub

from prosparse.cli.application import main  # noqa: E402  (after the environment that it is to see)

if __name__ == "__main__":
    sys.exit(main())
