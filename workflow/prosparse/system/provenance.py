"""Provenance of results, recorded with every number."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("prosparse", "torch", "transformers", "accelerate", "datasets", "tokenizers", "lm_eval", "triton")


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, independent of key order; the first 16 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def code_revision() -> str:
    """The git revision of the working tree, with ``+changes`` if it is not clean."""
    root = Path(__file__).parent
    try:
        revision = _git("rev-parse", "--short=12", "HEAD", at=root)
        return revision + ("+changes" if _git("status", "--porcelain", "--untracked-files=no", at=root) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not a git checkout)"


def _git(*arguments: str, at: Path) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=at, capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout.strip()


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} {'core' if cores == 1 else 'cores'}"


def threads() -> int | None:
    """torch's number of threads, None if torch was not used; torch reads more variables than OMP_NUM_THREADS."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


def record(specification: Any, started: float, device: str = "cpu") -> dict[str, Any]:
    """Provenance of a result made from ``specification``; ``started`` is a ``time.time()``."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "code_revision": code_revision(),
        "specification_digest": digest(specification),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:400],
        "packages": versions,
        "device": device,
        "processor": processor(),
        "threads": threads(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "wall_seconds": round(time.time() - started, 3),
    }
