"""``release/{run}@{activation}``: a sparse model as a folder to upload.

The weights are hard links to the checkpoint's. The config names the measured activation, FATReLU and shifted ReLU
included, so that a loader without them fails; `relu` would silently compute a different model.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from prosparse.experiment.activation import Activation
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.paper.release import card
from prosparse.paper.results.reader import Results
from prosparse.system.files import write_text

#: Files of a checkpoint directory that its users need besides the config; the rest belongs to training.
FILES = (
    "*.safetensors", "*.safetensors.index.json", "generation_config.json", "tokenizer*", "special_tokens_map.json",
    "added_tokens.json", "chat_template*", "vocab*", "merges*",
)  # fmt: skip


def pairs(experiment: Experiment) -> list[str]:
    """Return ``run@activation`` for every model to release."""
    chosen = [experiment.pair(pair) for pair in experiment.release]
    return list(dict.fromkeys(f"{run}@{activation}" for run, activation in chosen))


def write(pair: str, layout: Layout) -> Path:
    """Make the folder from the first seed's weights and return its README.md."""
    run, activation = layout.experiment.pair(pair)
    checkpoint = layout.checkpoint(run, None, layout.experiment.seeds[0])
    folder = layout.release(f"{run}@{activation}")
    shutil.rmtree(folder, ignore_errors=True)  # an older checkpoint may have had more files
    folder.mkdir(parents=True)
    for pattern in FILES:
        for source in checkpoint.glob(pattern):
            os.link(source, folder / source.name)
    settings = portable_config(json.loads((checkpoint / "config.json").read_text(encoding="utf-8")), activation)
    write_text(folder / "config.json", json.dumps(settings, indent=2, sort_keys=True) + "\n")
    write_text(folder / "README.md", card.render(Results(layout), run, activation, settings))
    return folder / "README.md"


def portable_config(settings: dict[str, Any], activation: Activation) -> dict[str, Any]:
    """Return a checkpoint's config.json, adapted to other loaders."""
    settings = {key: value for key, value in settings.items() if key != "hidden_act_param"}
    settings["hidden_act"] = activation.name
    if activation.parameter is not None:
        settings["hidden_act_param"] = activation.parameter
    settings["use_cache"] = True  # training turns it off and saves that in the config
    if (rope := settings.get("rope_parameters", {})).get("rope_type") == "default":
        settings["rope_theta"] = rope["rope_theta"]  # where transformers before version 5 reads it
    return settings
