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
CPUINFO = Path("/proc/cpuinfo")
# what a name such as "AMD EPYC" does not tell, and speeds depend on; best first
INSTRUCTION_SETS = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}


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


def processor(cpuinfo: Path = CPUINFO) -> str:
    """Return the processor's name, its best vector instructions and the cores that this process may use."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        name, flags = about["model name"], about.get("flags", "").split()
        best = next((known for flag, known in INSTRUCTION_SETS.items() if flag in flags), None)
    except (OSError, KeyError):
        name, best = platform.processor() or platform.machine(), None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}{f' ({best})' if best else ''}, {cores} {'core' if cores == 1 else 'cores'}"


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
