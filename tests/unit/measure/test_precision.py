"""Loss and sparsity with rounded weights, against transformers' own loss of weights rounded by gguf."""

from __future__ import annotations

import json

import datasets
import gguf
import pytest
import torch
from helpers.tiny_decoders import build, configs

from prosparse.experiment.activation import Activation
from prosparse.experiment.specifications import MeasuredCorpus
from prosparse.experiment.timings import MeasuredModel, PrecisionSpecification
from prosparse.measure.precision import measure

ROWS = torch.randint(2, 190, (3, 24), generator=torch.Generator().manual_seed(3))


def specified(folder, hidden_size, precisions) -> tuple[PrecisionSpecification, torch.nn.Module]:
    tokens = folder / "tokens" / "a"
    datasets.Dataset.from_dict({"input_ids": ROWS.tolist()}).save_to_disk(tokens / "heldout")
    (tokens / "manifest.json").write_text(json.dumps({"heldout_bytes_per_token": 3.0}))
    config = configs(160)["llama"]
    config.hidden_size = hidden_size
    model = build(config, "fatrelu-0.1", torch.bfloat16)
    model.save_pretrained(folder / "model")
    described = MeasuredModel(
        pair="run@fatrelu-0.1", checkpoint=folder / "model", activation=Activation.parse("fatrelu-0.1"),
        tokens=folder / "tokens",
    )  # fmt: skip
    corpora = {"a": MeasuredCorpus(stands_for="wikipedia", weight=1.0)}
    return PrecisionSpecification(precisions=precisions, models=[described], corpora=corpora), model.float()


@torch.no_grad()
def test_the_loss_is_that_of_rounded_weights(tmp_path):
    wanted, model = specified(tmp_path, 64, ["bfloat16", "q8_0", "q4_0"])
    found = measure(wanted)["models"]
    assert [each["precision"] for each in found] == wanted.precisions
    original = {name: weight.clone() for name, weight in model.state_dict().items()}
    types = [None, gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0]
    losses = []
    for each, form in zip(found, types, strict=True):
        for name, weight in model.named_parameters():
            values = original[name]
            if form is not None and weight.ndim == 2 and "embed" not in name:
                rows = values.T if "down_proj" in name else values
                rounded = gguf.quants.quantize(rows.contiguous().numpy(), form)
                values = torch.from_numpy(gguf.quants.dequantize(rounded, form))
                values = values.T if "down_proj" in name else values
            weight.copy_(values)
        losses.append(model(ROWS, labels=ROWS).loss.item())
        assert each["loss"] == pytest.approx(losses[-1], rel=1e-5)
        assert each["tokens"] == 3 * 23
        assert 0 < each["sparsity"] < 1
    assert len({round(loss, 7) for loss in losses}) == 3


def test_what_a_format_cannot_hold_is_told(tmp_path):
    wanted, _ = specified(tmp_path, 48, ["q8_0", "bfloat16"])
    refused, measured = measure(wanted)["models"]
    assert "rows of 48 values" in refused["missing"]
    assert "loss" not in refused
    assert measured["loss"] > 0
