"""Sparsity without training on a tiny model, against the same thresholds in modules of their own."""

import json
import math
from contextlib import nullcontext

import datasets
import pytest
import torch

from prosparse.experiment.activation import Activation
from prosparse.experiment.specifications import MeasuredCorpus, TrainingFreeSpecification
from prosparse.experiment.training_free import SEARCH_STEPS
from prosparse.measure import training_free
from prosparse.measure.training_free import measure_settings, within_cost
from prosparse.method.activations import gated_ffns

ROWS = torch.randint(0, 64, (40, 16), generator=torch.Generator().manual_seed(3))
CORPORA = {
    "a": MeasuredCorpus(stands_for="wikipedia", weight=3),
    "b": MeasuredCorpus(stands_for="pile", weight=1),
    "apart": MeasuredCorpus(stands_for="flan", weight=0),
}


class CutSiLU(torch.nn.Module):
    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, gate):
        activated = torch.nn.functional.silu(gate)
        return activated.masked_fill(activated.abs() <= self.threshold, 0)


@pytest.fixture
def tokens(tmp_path):
    for start, name in enumerate(CORPORA):
        rows = ROWS[10 * start :]
        for split, part in (("heldout", rows[:4]), ("train", rows[4:10])):
            datasets.Dataset.from_dict({"input_ids": part.tolist()}).save_to_disk(tmp_path / name / split)
        (tmp_path / name / "manifest.json").write_text(json.dumps({"heldout_bytes_per_token": 2.0}))
    return tmp_path


def test_every_method_reaches_the_target_and_records_what_follows(tiny_llama, tokens, monkeypatch):
    monkeypatch.setattr(training_free, "CALIBRATION_TOKENS", 12 * 16)
    wanted = TrainingFreeSpecification(
        activation=Activation.parse("silu"), targets=[0.5, 0.8], corpora=CORPORA, precision="float32"
    )
    model = tiny_llama().eval()
    found = measure_settings(model, wanted, tokens, seed=0)
    assert found["calibration"]["tokens"] == 12 * 16
    entries = {entry["setting"]: entry for entry in found["measurements"]}
    assert list(entries) == [f"{m}-{setting}" for m in ("cats", "teal", "cett") for setting in (0.5, 0.8, "ppl-1%")]
    for name, entry in entries.items():
        method, _, target = name.partition("-")
        assert len(entry["thresholds"]) == len(entry["layer_sparsity"]) == 2
        if target != "ppl-1%":
            assert entry["target"] == float(target)
            # x1 shrinks where its factors' inputs are cut, so TEAL zeroes more of it than on the dense model
            assert entry["sparsity"] == pytest.approx(float(target), abs=0.1 if method == "teal" else 0.03)
            assert entry["input_sparsity"] == pytest.approx(float(target) if method == "teal" else 0, abs=0.06)
        assert len(entry["corpora"]["apart"]["sequences"]["loss"]) == 4
        assert entry["loss"] == pytest.approx(
            0.75 * entry["corpora"]["a"]["loss"] + 0.25 * entry["corpora"]["b"]["loss"]
        )
    json.dumps(found)

    for ffn, threshold in zip(gated_ffns(model), entries["cats-0.8"]["thresholds"], strict=True):
        ffn.module.act_fn = CutSiLU(threshold["activation"])
    with torch.no_grad():
        losses = [model(row[None], labels=row[None]).loss.item() for row in ROWS[:4]]
    assert entries["cats-0.8"]["corpora"]["a"]["sequences"]["loss"] == pytest.approx(losses, abs=1e-5)


@pytest.mark.parametrize(("curvature", "largest"), [(0.1, math.sqrt(math.log(1.01) / 0.1)), (0.0, 0.98)])
def test_the_largest_sparsity_at_one_percent_more_perplexity(monkeypatch, curvature, largest):
    """The loss rises by curvature x sparsity²; without a cost, all but the whole FFN is cut."""
    tried = []
    monkeypatch.setattr(training_free, "thresholds", lambda layers, method, sparsity: tried.append(sparsity))
    monkeypatch.setattr(training_free, "cutting", lambda model, chosen: nullcontext())
    monkeypatch.setattr(training_free, "measure", lambda *given: {"loss": 3 + curvature * tried[-1] ** 2})
    assert within_cost(None, None, [], "cett", dense=3.0) == pytest.approx(largest, abs=1e-3)
    assert len(tried) <= SEARCH_STEPS
