"""``README.md`` of a check: its parts, what they found, and Table 2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prosparse.gpu_check.run import Outcome


def text(outcomes: Sequence[Outcome], tables: Sequence[Path]) -> str:
    """Return the page; ``tables`` are relative to it."""
    gpus: list[str] = next((outcome.found.get("gpus", []) for outcome in outcomes if outcome.name == "machine"), [])
    lines = [f"# Check on {', '.join(gpus) or 'a machine without a GPU'}", ""]
    lines += ["| Part | Verdict | Seconds | Found |", "| --- | --- | ---: | --- |"]
    for each in outcomes:
        lines.append(f"| {each.title} | {each.verdict} | {each.seconds:.0f} of {each.limit} | {_shown(each.found)} |")
    if tables:
        lines += ["", "## Table 2, operators", ""]
        lines += [f"- [{path.stem}]({path.as_posix()})" for path in tables]
    for each in outcomes:
        if each.last_lines:
            lines += ["", f"## {each.title}: {each.verdict}", "", "```text", *each.last_lines, "```"]
    return "\n".join(lines) + "\n"


def _shown(found: Any) -> str:
    if isinstance(found, dict):
        return "; ".join(
            f"{key.replace('_', ' ')}: {_shown(value)}" for key, value in found.items() if value not in ([], None)
        )
    if isinstance(found, list):
        return ", ".join(map(_shown, found))
    if isinstance(found, bool):
        return "yes" if found else "no"
    return f"{found:,.4g}" if isinstance(found, float) else str(found).replace("|", "\\|")
