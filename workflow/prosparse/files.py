"""Files and directories that a reader sees as they were or whole, never half written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any


def write_text(path: str | Path, text: str) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def replace_directory(source: Path, target: Path) -> None:
    """Put a finished directory in place of an older one."""
    if target.exists():
        shutil.rmtree(target)
    os.replace(source, target)
