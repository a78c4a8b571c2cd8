"""``results/{experiment}/release/{run}@{activation}``: a sparse model as a folder to upload.

The weights are hard links to the checkpoint's. The config names the activation that was measured, including FATReLU
and shifted ReLU: a loader without them then fails, where `relu` would silently compute another model.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from prosparse.experiment.activation import Activation
from prosparse.experiment.experiment import Experiment
from prosparse.paper.release import card
from prosparse.paper.results.reader import Results
from prosparse.system.files import write_text

#: What a checkpoint directory holds for its users besides the config; the rest belongs to training.
FILES = (
    "*.safetensors", "*.safetensors.index.json", "generation_config.json", "tokenizer*", "special_tokens_map.json",
    "added_tokens.json", "chat_template*", "vocab*", "merges*",
)  # fmt: skip


def pairs(experiment: Experiment) -> list[str]:
    """``run@activation`` of every model to release."""
    chosen = [experiment.pair(pair) for pair in experiment.release]
    return list(dict.fromkeys(f"{run}@{activation}" for run, activation in chosen))


def write(pair: str, experiment: Experiment, directory: Path) -> Path:
    """Makes the folder from the first seed's weights; returns its README.md."""
    run, activation = experiment.pair(pair)
    results = Results(directory, experiment)
    checkpoint = results.stage_directory(run, None, experiment.seeds[0])
    folder = directory / "release" / f"{run}@{activation}"
    shutil.rmtree(folder, ignore_errors=True)  # an older checkpoint may have had more files
    folder.mkdir(parents=True)
    for pattern in FILES:
        for source in checkpoint.glob(pattern):
            os.link(source, folder / source.name)
    settings = portable_config(json.loads((checkpoint / "config.json").read_text(encoding="utf-8")), activation)
    write_text(folder / "config.json", json.dumps(settings, indent=2, sort_keys=True) + "\n")
    write_text(folder / "README.md", card.render(results, run, activation, settings))
    return folder / "README.md"


def portable_config(settings: dict[str, Any], activation: Activation) -> dict[str, Any]:
    """A checkpoint's config.json for loaders elsewhere."""
    settings = {key: value for key, value in settings.items() if key != "hidden_act_param"}
    settings["hidden_act"] = activation.name
    if activation.parameter is not None:
        settings["hidden_act_param"] = activation.parameter
    settings["use_cache"] = True  # training turns it off, and leaves that in the config
    if (rope := settings.get("rope_parameters", {})).get("rope_type") == "default":
        settings["rope_theta"] = rope["rope_theta"]  # read there by transformers before version 5
    return settings
