"""The GPU resources that the compiled operators need."""

from __future__ import annotations

import json
from pathlib import Path

from prosparse.paper.markdown import markdown_table


def compiled_operators(path: Path) -> list[str]:
    """Show what the Triton kernels' machine code needs from a GPU (``measurements/compiled_operators.json``)."""
    if not path.exists():
        return ["Missing: not compiled."]
    found = json.loads(path.read_text(encoding="utf-8"))
    if "missing" in found:
        return [f"Missing: {found['missing']}."]
    rows = []
    for kernel in found["kernels"]:
        code = kernel["code"]
        rows.append(
            [
                f"`{kernel['name']}`",
                f"sm_{kernel['capability']}",
                str(kernel["threads"]),
                str(code["registers"]),
                f"{kernel['shared_memory']:,}",
                str(code["spill_stores"] + code["spill_loads"]),
                ", ".join(map(str, sorted(set(code["weight_load_widths"])))) or "–",
                "; ".join(kernel["uses"]),
            ]
        )
    header = ["Kernel", "Compiled for", "Threads", "Registers per thread", "Shared memory (B)", "Spilled (B)"]
    return [
        *markdown_table([*header, "Loads of weights (B)", "Launched by"], rows),
        "",
        "Each kernel as the operators launch it for one token at the 7B and 13B shapes in bfloat16, read from the "
        "machine code without a GPU.",
    ]
