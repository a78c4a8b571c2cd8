"""The committed bases are what their provenance says."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from helpers.repository import ROOT
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from prosparse.experiment.loading import load

BASES = ROOT / "workflow/bases"
EXPERIMENT = load(yaml.safe_load((ROOT / "workflow/experiments/bases.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", EXPERIMENT.bases)
def test_the_heldout_loss_is_that_of_the_provenance(name):
    """By transformers' own model and loss, on a code, a prose and a question corpus."""
    provenance = json.loads((BASES / name / "provenance.json").read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(BASES / name, dtype=torch.float32).eval()
    rows = load_file(BASES / "heldout.safetensors")
    assert rows.keys() == EXPERIMENT.data.corpora.keys()
    for corpus in ("django-sources", "wikipedia-summaries", "short-answers"):
        ids = rows[corpus].long()
        with torch.inference_mode():
            loss = model(input_ids=ids, labels=ids).loss.item()
        assert loss == pytest.approx(provenance["heldout"]["corpora"][corpus]["loss"], abs=1e-3)


@pytest.mark.parametrize("name", EXPERIMENT.bases)
def test_a_base_was_trained_as_the_experiment_says(name):
    run = EXPERIMENT.runs[name]
    provenance = json.loads((BASES / name / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["steps"] == run.stages[-1].until
    assert provenance["tokens"] == run.stages[-1].until * run.training.batch_size * EXPERIMENT.data.context_length
    ledger = (BASES / name / "ledger.csv").read_text(encoding="utf-8").splitlines()
    assert int(ledger[-1].split(",")[0]) == provenance["steps"]


def test_the_larger_base_is_the_better_one():
    """`medium` stands for LLaMA2-13B, `small` for LLaMA2-7B."""
    losses = {
        name: json.loads((BASES / name / "provenance.json").read_text(encoding="utf-8"))["heldout"]["loss"]
        for name in EXPERIMENT.bases
    }
    assert losses["medium"] < losses["small"]
