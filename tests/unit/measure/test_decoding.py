"""The layout of what is measured. No speed is asserted."""

from __future__ import annotations

import datasets
import pytest
import torch
from helpers.tiny_decoders import HIDDEN, LAYERS, build, configs, random_predictors

from prosparse.experiment.activation import Activation
from prosparse.experiment.decoding import Decoding, Shape
from prosparse.experiment.timings import DecodingSpecification, SyntheticModel, TrainedModel
from prosparse.inference import predictors
from prosparse.measure import bandwidth, decoding
from prosparse.measure.decoding import measure

INTERMEDIATE, RANK = 160, 12
CONFIG = configs(INTERMEDIATE)["llama"]
SPREAD = {"median", "lower_quartile", "upper_quartile"}
MODE = {
    "tokens_per_second", "milliseconds_per_token", "first_token_milliseconds", "bytes", "bound_milliseconds",
    "share_of_bound",
}  # fmt: skip
PARTS = {"attention", "head", "gate", "active_rows", "predictor", "kv_cache", "all"}


@pytest.fixture(autouse=True)
def small_probe(monkeypatch):
    probe = bandwidth.probe(1 << 20, 1)
    monkeypatch.setattr(bandwidth, "probe", lambda: probe)


def check_layout(found, modes, keys):
    assert keys | {"row", "scale", "precision", "synthetic", "architecture", "weight_bytes", "sparsity",
                   "gate_sparsity", "bandwidth", "modes", "same_tokens_as_dense", "engines"} == set(found)  # fmt: skip
    assert set(found["bandwidth"]) == SPREAD
    assert list(found["modes"]) == modes
    for name, mode in found["modes"].items():
        compared = set() if name == "torch" else {"times_faster_than_dense", "overhead_milliseconds"}
        assert set(mode) == MODE | compared
        assert set(mode["bytes"]) == PARTS
        for key, value in mode.items():
            if key not in ("bytes", "overhead_milliseconds"):
                assert set(value) == SPREAD
                assert 0 < value["lower_quartile"] <= value["median"] <= value["upper_quartile"]
    if "torch" in modes:
        assert found["modes"]["torch"]["bytes"] == found["modes"]["dense"]["bytes"]
    if "dense" in modes:
        assert found["modes"]["dense"]["times_faster_than_dense"]["median"] == 1
    assert set(found["same_tokens_as_dense"]) == set(modes) - {"dense"}
    assert found["same_tokens_as_dense"].get("exact", 1.0) == 1.0


def specified(models, new_tokens=32, **more) -> DecodingSpecification:
    settings = Decoding(prompts=2, new_tokens=new_tokens)
    given = {"decision_threshold": 0.5, "powerinfer": None, **more}
    return DecodingSpecification(settings=settings, models=models, **given)


native = pytest.mark.skipif(
    not hasattr(torch.ops.prosparse, "read_rows"), reason="the native CPU operators could not be built"
)


def synthetic(precision: str, hidden_size: int = 64) -> SyntheticModel:
    shape = Shape(
        hidden_size=hidden_size, intermediate_size=160, layers=2, heads=4, kv_heads=2, vocabulary_size=300,
        tied_embeddings=False, rank=18, rows=["ProSparse-7B"],
    )  # fmt: skip
    return SyntheticModel(
        row="ProSparse-7B", precision=precision, scale="7B", shape=shape, sparsity=0.9, activation_recall=0.93,
        predicted_sparsity=0.78,
    )  # fmt: skip


FFN, ATTENTION, PREDICTOR, HEAD, NORMS = 3 * 64 * 160, 2 * (64 * 64 + 64 * 32), 18 * (64 + 160), 300 * 64, 5 * 64


@native
@pytest.mark.skipif(torch.cuda.is_available(), reason="names the GPU")
def test_measures_a_synthetic_model():
    found = measure(specified([synthetic("bfloat16")]))
    (model,) = found.pop("models")
    assert set(found.pop("memory_read")) == {"streams", "ahead", "huge_pages"}
    assert found == {
        "device": "cpu", "threads": torch.get_num_threads(), "prompts": 2, "prompt_tokens": 5,
        "new_tokens": 32,
    }  # fmt: skip
    shares = {"activation_recall", "predicted_sparsity"}
    check_layout(model, ["torch", "dense", "exact", "predicted"], shares)
    named = model["row"], model["scale"], model["precision"], model["synthetic"]
    assert named == ("ProSparse-7B", "7B", "bfloat16", True)
    assert model["architecture"] == {
        "type": "llama", "hidden_size": 64, "intermediate_size": 160, "layers": 2, "heads": 4, "kv_heads": 2,
        "vocabulary_size": 300, "rank": 18,
    }  # fmt: skip
    assert model["sparsity"] == pytest.approx(0.9, abs=0.1)
    assert model["weight_bytes"] == 2 * (2 * (FFN + ATTENTION + PREDICTOR) + NORMS + 2 * HEAD)
    read = {mode: values["bytes"] for mode, values in model["modes"].items()}
    assert read["exact"]["active_rows"] == pytest.approx((1 - model["sparsity"]) * 2 * 2 * 64 * 160 * 2, abs=1)
    assert read["predicted"]["gate"] == pytest.approx((1 - model["predicted_sparsity"]) * 2 * 64 * 160 * 2, abs=1)
    assert read["exact"]["kv_cache"] == 2 * 2 * 32 * (5 + 16) * 2
    assert set(model["engines"]) == {"llama.cpp", "powerinfer"}
    assert all(set(engine) == {"missing"} for engine in model["engines"].values())


@native
def test_measures_each_precision_without_transformers_where_it_has_none():
    """Sizes of ggml's blocks, 32 values with a scale of two bytes; the embedding and the norms stay in 16 bits."""
    models = measure(specified([synthetic("q8_0"), synthetic("q4_0")], new_tokens=16))["models"]
    shares = {"activation_recall", "predicted_sparsity", "engines"}
    for model, block in zip(models, (34, 18), strict=True):
        check_layout(model, ["dense", "exact", "predicted"], shares)
        matrices = 2 * (FFN + ATTENTION + PREDICTOR) + HEAD
        assert model["weight_bytes"] == matrices * block // 32 + 2 * (HEAD + NORMS)
    assert [model["precision"] for model in models] == ["q8_0", "q4_0"]


@native
def test_what_a_format_cannot_hold_is_told_and_the_next_model_is_measured():
    refused, measured = measure(specified([synthetic("q4_0", 48), synthetic("q4_0")], new_tokens=16))["models"]
    assert "rows of 48 values: Q8_0 and Q4_0 need a multiple of 32" in refused["missing"]
    assert refused["modes"] == {}
    assert "missing" not in measured


@native
def test_predictors_that_a_format_cannot_hold_leave_the_other_modes(trained):
    """Their rows are as long as the model's are many."""
    described = trained("relu", True, "q4_0", intermediate_size=176)
    (model,) = measure(specified([described], new_tokens=16))["models"]
    check_layout(model, ["dense", "exact"], {"pair", "missing_modes"})
    assert "rows of 176 values" in model["missing_modes"]["predicted"]


@pytest.fixture
def trained(tmp_path):
    """A function that saves a model and describes it, with the tokens its prompts come from."""
    for name, rows in (("a", [list(range(2, 22))]), ("b", [list(range(30, 50))])):
        datasets.Dataset.from_dict({"input_ids": rows}).save_to_disk(tmp_path / "tokens" / name / "heldout")

    def save(
        activation: str, with_predictors: bool, precision: str = "float32", intermediate_size: int = INTERMEDIATE
    ) -> TrainedModel:
        model, folder = build(configs(intermediate_size)["llama"], activation), tmp_path / activation
        model.save_pretrained(folder)
        if with_predictors:
            predictors.save(random_predictors((HIDDEN, RANK, intermediate_size)), folder / "predictors")
        return TrainedModel(
            row="ProSparse-7B", precision=precision, scale="7B", pair=f"run@{activation}", checkpoint=folder,
            activation=Activation.parse(activation), tokens=tmp_path / "tokens",
            predictors=folder / "predictors" if with_predictors else None,
        )  # fmt: skip

    return save


@native
def test_measures_saved_models(trained):
    """With predictors, without, and one whose activation has no zeros."""
    models = [trained("fatrelu-0.1", True), trained("relu", False), trained("silu", False)]
    predicted, exact, dense = measure(specified(models, new_tokens=16))["models"]
    shares = {"activation_recall", "predicted_sparsity"}
    check_layout(predicted, ["torch", "dense", "exact", "predicted"], {"pair"} | shares)
    check_layout(exact, ["torch", "dense", "exact"], {"pair"})
    check_layout(dense, ["torch", "dense"], {"pair"})
    assert [model["pair"] for model in (predicted, exact, dense)] == ["run@fatrelu-0.1", "run@relu", "run@silu"]
    assert predicted["architecture"]["rank"] == RANK
    assert exact["architecture"]["rank"] is None
    assert dense["sparsity"] == 0
    assert 0.3 < exact["sparsity"] < predicted["sparsity"] < 1
    assert predicted["weight_bytes"] == exact["weight_bytes"] + 4 * LAYERS * RANK * (HIDDEN + INTERMEDIATE)


@native
def test_decodes_the_models_own_greedy_text(monkeypatch, trained):
    """Turns of a few tokens, each from the cache of the one before, give what one call of ``generate`` gives."""
    described = trained("relu", False)
    arms = []
    monkeypatch.setattr(decoding, "_mode", lambda arm, *rest: arms.append(arm) or {})
    measure(specified([described], new_tokens=48))
    unprepared = build(CONFIG, "relu")
    for arm in arms[1:]:
        for prompt, text in zip((range(2, 7), range(30, 35)), arm.texts, strict=True):
            expected = unprepared.generate(
                torch.tensor([list(prompt)]), max_new_tokens=48, min_new_tokens=48, do_sample=False, pad_token_id=0
            )
            assert text == expected[0, 5:].tolist()
