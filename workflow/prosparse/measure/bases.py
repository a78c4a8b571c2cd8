"""``workflow/bases/{run}``: trained checkpoints that other experiments start from."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from prosparse.data.mixture import load_rows
from prosparse.experiment import bases
from prosparse.experiment.layout import LEDGER, PROVENANCE
from prosparse.experiment.specifications import MeasuredCorpus
from prosparse.measure.sparsity import measure_corpora
from prosparse.models.load import load, load_to_measure, own_activation
from prosparse.system import devices
from prosparse.system.files import copy, discard, replace_directory, write_json
from prosparse.system.provenance import record


def commit(checkpoint: Path, corpora: dict[str, MeasuredCorpus], tokens: Path, output: Path) -> None:
    """Replace ``output`` by the checkpoint in bfloat16, its tokenizer, its ledger and its provenance.

    The provenance adds ``heldout``, the loss of the rounded weights on every corpus, computed in float32.

    Args:
        checkpoint: directory of a finished stage.
        corpora: what to measure on; the weights average.
        tokens: directory of tokenized corpora under the checkpoint's tokenizer.
    """
    started = time.time()
    temporary = output.with_name(f".{output.name}.partial")
    discard(temporary)  # left by an interrupted call
    model = load(checkpoint, dtype=torch.bfloat16)
    model.config.use_cache = True  # training turns it off
    model.save_pretrained(temporary)
    for name in ("tokenizer.json", "tokenizer_config.json", LEDGER):
        copy(checkpoint / name, temporary / name)
    rounded = load_to_measure(temporary)
    [measured] = measure_corpora(rounded, [own_activation(rounded.config)], corpora, tokens)
    keys = ("loss", "bits_per_byte", "tokens")
    heldout: dict[str, Any] = {key: measured[key] for key in keys}
    heldout["corpora"] = {name: {key: values[key] for key in keys} for name, values in measured["corpora"].items()}
    weights = {name: corpus.weight for name, corpus in corpora.items()}
    heldout["provenance"] = record(weights, started, devices.name(rounded.device))
    trained = json.loads((checkpoint / PROVENANCE).read_text(encoding="utf-8"))
    write_json(temporary / PROVENANCE, {**trained, "precision": "bfloat16", "heldout": heldout})
    output.parent.mkdir(parents=True, exist_ok=True)
    replace_directory(temporary, output)
    print(f"init: {{pretrained: {output}, sha256: {bases.digest(output)}}}", flush=True)


def commit_heldout(corpora: dict[str, MeasuredCorpus], tokens: Path, output: Path) -> None:
    """Write the rows that the bases' losses were measured on, ``[sequences, context_length]`` per corpus."""
    rows = load_rows(tokens)
    kept = {name: rows[name].to(torch.int16) for name in corpora}
    assert all(torch.equal(kept[name].long(), rows[name]) for name in corpora), "a vocabulary beyond 16 bits"
    save_file(kept, output / "heldout.safetensors")
