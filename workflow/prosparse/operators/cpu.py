"""Build and load the native CPU operators (the C++ files of this folder).

The library is stored with torch's own extensions: ``$TORCH_EXTENSIONS_DIR``, else ``~/.cache/torch_extensions``.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from prosparse.operators import gathered

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
FLAGS = ["-O3"]


def library() -> Path:
    """Return the path of the library, built or not."""
    from torch.utils.cpp_extension import get_default_build_root

    built_from = [
        *(path.read_text(encoding="utf-8") for path in SOURCES + HEADERS),
        *FLAGS,
        torch.__version__,
        platform.machine(),
    ]
    digest = hashlib.sha256("\0".join(built_from).encode()).hexdigest()[:16]
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    return root / f"prosparse_cpu_{digest}.so"


def build(target: Path) -> None:
    """Compile in a temporary folder and move the result into place, so that processes may build concurrently.

    Raises:
        OSError, RuntimeError, subprocess.CalledProcessError: there is no compiler, ninja or writable folder, or
            compilation failed.
    """
    from torch.utils.cpp_extension import load

    target.parent.mkdir(parents=True, exist_ok=True)
    print("building the sparse CPU operators: once, up to a minute", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        load(
            target.stem,
            [str(path) for path in SOURCES],
            extra_cflags=FLAGS,
            build_directory=folder,
            is_python_module=False,
        )
        os.replace(Path(folder) / target.name, target)


def register() -> None:
    """Register the native operators for CPU tensors, or plain torch ones, with a warning, if the build fails."""
    try:
        target = library()
        if target.exists():
            torch.ops.load_library(target)
        else:
            build(target)
    except (OSError, RuntimeError, subprocess.CalledProcessError, ImportError) as error:
        # the build failed, or the library is for another machine
        reason = " | ".join(str(error).strip().splitlines()[-2:]) or type(error).__name__
        warnings.warn(
            f"the native CPU operators could not be built or loaded ({reason}); slower ones in plain torch are used "
            "instead. A C++20 compiler and ninja are needed.",
            stacklevel=2,
        )
        gathered.register()
