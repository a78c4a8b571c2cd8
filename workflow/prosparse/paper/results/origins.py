"""Where a run's weights come from, and which of the paper's models it stands for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.lineage import start
from prosparse.experiment.model import PretrainedInit
from prosparse.published.settings import scale_of

#: Scale -> parts of a pretrained name, any of which identifies the paper's own model.
ORIGINALS = {
    "7B": ("llama27b", "relullama7b"),
    "13B": ("llama213b", "relullama13b"),
    "1B": ("minicpm1b", "minicpms1b"),
}


def origin(experiment: Experiment, run: str) -> tuple[str, str]:
    """Return (a description of where a run's weights come from, the same normalized to compare names)."""
    _, init = start(experiment, run)
    if isinstance(init, PretrainedInit):
        name = Path(init.gguf_file).stem if init.gguf_file else init.pretrained  # a GGUF's folder may say nothing
        words = f"{name} (GGUF)" if init.gguf_file else _base(Path(name)) if init.sha256 else name
        return words, "".join(c for c in name.lower() if c.isalnum())
    shape = experiment.architectures[init.architecture]
    words = (
        f"{shape.type}, {shape.layers} layers, d_model {shape.hidden_size}, d_ff {shape.intermediate_size}, "
        "trained from scratch"
    )
    return words, ""


def _base(directory: Path) -> str:
    """Describe a base that lies in the repository: its name says nothing about its size."""
    shape = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return (
        f"{directory.name} ({shape['model_type']}, {shape['num_hidden_layers']} layers, d_model "
        f"{shape['hidden_size']}, d_ff {shape['intermediate_size']}), pretrained in this project"
    )


def stands_in(experiment: Experiment, row: str | None, run: str) -> str:
    """Describe our row: the paper's model, or ``stand-in: ...``; without a row, any of the paper's models counts."""
    words, name = origin(experiment, run)
    originals = ORIGINALS[scale_of(row)] if row is not None else [o for names in ORIGINALS.values() for o in names]
    return words if any(original in name for original in originals) else f"stand-in: {words}"


def origin_note(words: str, labels: Iterable[str]) -> str:
    """Return a table's note on where some of our rows come from, in the words of ``stands_in``."""
    names = "; ".join(f"*{name}*" for name in dict.fromkeys(labels))
    return f"Ours is {'a ' if words.startswith('stand-in') else ''}{words}, in {names}."


def no_run(row: str) -> str:
    """Say why a published row has no row of ours."""
    if row.startswith("ReluLLaMA"):
        return "released checkpoint, not trained here"
    return "no run of this experiment stands for this row"
