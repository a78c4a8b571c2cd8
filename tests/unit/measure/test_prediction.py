"""Shares of a prediction against a count element by element, and losses that are known without it."""

from __future__ import annotations

import copy
import json

import datasets
import numpy as np
import pytest
import torch
from helpers.observation import observed
from helpers.tiny_decoders import random_predictors

from prosparse.experiment.activation import Activation
from prosparse.experiment.measurement import Predictors
from prosparse.experiment.specifications import MeasuredCorpus, PredictorSpecification
from prosparse.inference import predictors
from prosparse.inference.predictor_training import load_marginal, train
from prosparse.inference.predictors import Predictor, svd
from prosparse.measure import sparsity
from prosparse.measure.prediction import SWEEP, measure
from prosparse.method.activations import gated_ffns, substitute
from prosparse.system.errors import UserError

ROWS = torch.randint(0, 64, (7, 16), generator=torch.Generator().manual_seed(3))
CORPORA = {
    "a": MeasuredCorpus(stands_for="wikipedia", weight=3),
    "b": MeasuredCorpus(stands_for="pile", weight=1),
    "apart": MeasuredCorpus(stands_for="flan", weight=0),
}
PARTS = {"a": ROWS[:3], "b": ROWS[3:]}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokens")
    for name, rows in PARTS.items():
        datasets.Dataset.from_dict({"input_ids": rows.tolist()}).save_to_disk(root / name / "heldout")
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(64, (200, 16), generator=generator).tolist()
    datasets.Dataset.from_dict({"input_ids": rows}).save_to_disk(root / "a" / "train")
    return root


def tiny(tiny_llama, activation="relu"):
    model = tiny_llama().eval()
    substitute(model, Activation.parse(activation))
    return model


def some_predictors():
    return random_predictors((32, 6, 96), layers=2, seed=3, scale=0.25)


def by_hand(model, scores, threshold):
    """Recall, precision and predicted sparsity [3, layers], averaged 3 : 1 over the corpora."""
    result = np.zeros((3, 2))
    for name, weight in (("a", 0.75), ("b", 0.25)):
        residuals, x1 = observed(model, PARTS[name])
        for layer in range(2):
            probability = np.broadcast_to(scores(layer, residuals[layer]), tuple(x1[layer].shape)).ravel()
            active = x1[layer].float().numpy().ravel() != 0
            pairs = [(p >= threshold, bool(a)) for p, a in zip(probability.tolist(), active.tolist(), strict=True)]
            hits = sum(p and a for p, a in pairs)
            truly, predicted = sum(a for _, a in pairs), sum(p for p, _ in pairs)
            shares = (hits / truly, hits / predicted if predicted else 1.0, 1 - predicted / len(pairs))
            result[:, layer] += weight * np.array(shares)
    return result


def sigmoid(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))


@pytest.mark.parametrize("activation", ["relu", "fatrelu-0.3"])
def test_shares_against_a_count_element_by_element(tiny_llama, tokens, activation):
    model, given = tiny(tiny_llama, activation), some_predictors()
    frequency = [torch.rand(96, generator=torch.Generator().manual_seed(layer)) for layer in range(2)]
    found = measure(model, {"nonzero": given}, frequency, CORPORA, tokens, 0.3)

    def predicted(layer, residual):
        return sigmoid(given[layer](residual).numpy())

    def marginal(layer, residual):
        return frequency[layer].double().numpy()

    for kind, scores in (("nonzero", predicted), ("marginal", marginal)):
        entry = found["kinds"][kind]
        expected = by_hand(model, scores, 0.3)
        for index, share in enumerate(("activation_recall", "precision", "predicted_sparsity")):
            assert [layer[share] for layer in entry["layers"]] == pytest.approx(expected[index], abs=1e-9)
            assert entry[share] == pytest.approx(expected[index].mean(), abs=1e-9)
            for point in (0, 9, 14, 20, 28):
                at = entry["sweep"][point]
                assert at["decision_threshold"] == pytest.approx(sigmoid(SWEEP[point]))
                assert at[share] == pytest.approx(by_hand(model, scores, sigmoid(SWEEP[point]))[index].mean(), abs=1e-3)
        sparsities = [at["predicted_sparsity"] for at in entry["sweep"]]
        assert sparsities == sorted(sparsities)
    assert found["kinds"]["nonzero"]["rank"] == 6
    assert "rank" not in found["kinds"]["marginal"]
    assert json.loads(json.dumps(found)) == found


def test_exact_values_are_those_of_the_sparsity_measurement(tiny_llama, tokens):
    model = tiny(tiny_llama)
    found = measure(
        model,
        {"svd": some_predictors()},
        [torch.rand(96)] * 2,
        CORPORA,
        tokens,
        0.5,
    )
    a, b = (sparsity.measure(model, PARTS[name], 16) for name in "ab")
    assert found["tokens"] == 7 * 15
    for key in ("sparsity", "loss"):
        assert found[key] == pytest.approx(0.75 * a[key] + 0.25 * b[key])
    for layer in range(2):
        mean = 0.75 * a["layer_sparsity"][layer] + 0.25 * b["layer_sparsity"][layer]
        assert found["layer_sparsity"][layer] == pytest.approx(mean)


def test_a_bfloat16_model_agrees_with_float32(tiny_llama, tokens):
    """Within 0.3 % of the losses and 2 % of the elements; predictors stay in float32."""
    given, frequency = {"nonzero": some_predictors()}, [torch.rand(96)] * 2
    exact = measure(tiny(tiny_llama), given, frequency, CORPORA, tokens, 0.5)
    model = tiny(tiny_llama).to(torch.bfloat16)
    found = measure(model, given, frequency, CORPORA, tokens, 0.5)
    assert found["loss"] == pytest.approx(exact["loss"], rel=3e-3)
    assert found["sparsity"] == pytest.approx(exact["sparsity"], abs=0.02)
    ours, theirs = found["kinds"]["nonzero"], exact["kinds"]["nonzero"]
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=3e-3)
    for share in ("activation_recall", "precision", "predicted_sparsity"):
        assert ours[share] == pytest.approx(theirs[share], abs=0.02)

    def predicted(layer, residual):
        return sigmoid(given["nonzero"][layer](residual.float()).numpy())

    expected = by_hand(model, predicted, 0.5)
    assert [layer["activation_recall"] for layer in ours["layers"]] == pytest.approx(expected[0], abs=1e-9)


def test_losses_that_are_known(tiny_llama, tokens):
    """A perfect predictor loses nothing; one that is never sure leaves the attention alone."""
    model = tiny(tiny_llama)
    perfect = svd(model, 64, ROWS)
    never = [Predictor.of(torch.zeros(4, 32), torch.zeros(96, 4)) for _ in range(2)]  # logits of 0
    found = measure(model, {"svd": perfect, "nonzero": never}, [torch.rand(96)] * 2, CORPORA, tokens, 0.5)
    assert found["kinds"]["svd"]["activation_recall"] == pytest.approx(1, abs=1e-3)
    assert found["kinds"]["svd"]["precision"] == pytest.approx(1, abs=1e-3)
    assert found["kinds"]["svd"]["loss"] == pytest.approx(found["loss"], abs=1e-4)
    assert found["kinds"]["nonzero"]["loss"] == pytest.approx(found["loss"]), "0.5 is reached: everything is computed"
    with_loss = [at for at in found["kinds"]["svd"]["sweep"] if "loss" in at]
    assert with_loss
    assert not any("loss" in at for at in found["kinds"]["nonzero"]["sweep"])

    bare = copy.deepcopy(model)
    for ffn in gated_ffns(bare):
        ffn.down_proj.weight.data.zero_()
    expected = sum(
        weight * sparsity.measure(bare, PARTS[name], 16)["loss"] for name, weight in (("a", 0.75), ("b", 0.25))
    )
    nothing = measure(model, {"nonzero": never}, [torch.rand(96)] * 2, CORPORA, tokens, 0.51)["kinds"]["nonzero"]
    assert nothing["loss"] == pytest.approx(expected, rel=1e-5)
    assert (nothing["activation_recall"], nothing["precision"], nothing["predicted_sparsity"]) == (0, 1, 1)


def test_a_layer_without_active_neurons_has_recall_1(tiny_llama, tokens):
    model = tiny(tiny_llama)
    gated_ffns(model)[1].gate_proj.weight.data.zero_()
    found = measure(model, {"nonzero": some_predictors()}, [torch.rand(96)] * 2, CORPORA, tokens, 0.5)
    first, second = found["kinds"]["nonzero"]["layers"]
    assert second["activation_recall"] == 1
    assert (first["activation_recall"] + 1) / 2 == pytest.approx(found["kinds"]["nonzero"]["activation_recall"])


def test_trained_and_svd_predictors_beat_the_frequency_on_heldout_text(tiny_llama, tokens, tmp_path):
    model = tiny(tiny_llama, "fatrelu-0.1")
    model.save_pretrained(tmp_path / "checkpoint")
    settings = {"kinds": ["nonzero", "top", "svd"], "rank": 16, "tokens": 3200, "epochs": 5, "batch_size": 64}
    specification = PredictorSpecification(
        activation=Activation.parse("fatrelu-0.1"), settings=Predictors(**settings, learning_rate=1e-2),
        mixture={"a": 1.0}, seed=0,
    )  # fmt: skip
    train(tmp_path / "checkpoint", specification, tokens, tmp_path / "output")
    kinds = {kind: predictors.load(tmp_path / "output" / kind) for kind in settings["kinds"]}
    found = measure(model, kinds, load_marginal(tmp_path / "output"), CORPORA, tokens, 0.5)["kinds"]
    curve = sorted((at["predicted_sparsity"], at["activation_recall"]) for at in found["marginal"]["sweep"])
    for kind in kinds:
        baseline = np.interp(found[kind]["predicted_sparsity"], *np.array([(0, 1), *curve, (1, 0)]).T)
        assert found[kind]["activation_recall"] > baseline + 0.1, kind
    assert found["nonzero"]["activation_recall"] > 0.8


def test_refuses_predictors_of_another_model(tiny_llama, tokens):
    with pytest.raises(UserError, match="another model"):
        measure(
            tiny(tiny_llama),
            {"svd": some_predictors()[:1]},
            [torch.rand(96)] * 2,
            CORPORA,
            tokens,
            0.5,
        )
