"""What a job's log file tells a reader: its last line while it runs, its warnings when it ends"""

from __future__ import annotations

from pathlib import Path

TAIL = 4096  # bytes: a line of progress is far shorter
WARNING = "warning: "


def last_line(log: Path, start: float) -> str:
    """Return the last line that a job has written since its start; empty if there is none yet."""
    try:
        if log.stat().st_mtime < start:  # of an earlier attempt
            return ""
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = file.read().decode("utf-8", errors="replace").splitlines()  # also at a progress bar's returns
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def warnings(log: Path) -> list[str]:
    """Return the lines with which a job warned its reader."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.startswith(WARNING) or f": {WARNING}" in line]
