"""Training predictors: streamed, stopped early, killed and continued."""

from __future__ import annotations

import fcntl
import json

import datasets
import numpy as np
import pytest
import torch
from helpers.faults import kill_once
from transformers import LlamaConfig, LlamaForCausalLM

from prosparse.experiment.activation import Activation
from prosparse.experiment.measurement import Predictors
from prosparse.experiment.specifications import PredictorSpecification
from prosparse.inference import predictors
from prosparse.inference.predictor_labels import (
    unpack,
)
from prosparse.inference.predictor_session import Session
from prosparse.inference.predictor_training import _sequences, load_marginal, train
from prosparse.inference.predictors import observing
from prosparse.models.load import load
from prosparse.system.errors import ConfigError
from prosparse.system.locking import Refused

CONTEXT = 16


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokens")
    generator = torch.Generator().manual_seed(0)
    for corpus in ("a", "b"):
        rows = torch.randint(64, (150, CONTEXT), generator=generator).tolist()
        datasets.Dataset.from_dict({"input_ids": rows}).save_to_disk(root / corpus / "train")
    return root


@pytest.fixture
def checkpoint(tiny_llama, tmp_path):
    tiny_llama("relu").save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def specification(activation="relu", **settings):
    values = {
        "kinds": ["nonzero", "top", "svd"], "rank": 16, "tokens": 2000, "epochs": 4, "batch_size": 128,
        "learning_rate": 1e-2, **settings,
    }  # fmt: skip
    return PredictorSpecification(
        activation=Activation.parse(activation), settings=Predictors(**values), mixture={"a": 2.0, "b": 1.0}, seed=5
    )


# -------------------------------------------------------------------------------- the recipe


# ------------------------------------------------------------------------------------ training


def write_rows(root, **corpora):
    for name, rows in corpora.items():
        datasets.Dataset.from_dict({"input_ids": rows}).save_to_disk(root / name / "train")
    return root


def as_set(rows):
    return {tuple(row) for row in rows.tolist()}


@pytest.mark.parametrize("sizes", [(3, 3), (20, 4), (1, 60), (150, 150), (1000, 10)])
@pytest.mark.parametrize("wanted", [64, 2000, 400_000])
def test_rows_to_judge_by_are_not_trained_on(tmp_path, capsys, sizes, wanted):
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randint(9, (size, CONTEXT), generator=generator).tolist() for size in sizes)
    rows = {"a": a, "b": b}
    training, validation = _sequences(specification(tokens=wanted), write_rows(tmp_path, **rows))
    assert as_set(training).isdisjoint(as_set(validation))
    assert as_set(training) | as_set(validation) <= {tuple(row) for each in rows.values() for row in each}
    for part in (training, validation):
        assert len(part) == len(as_set(part)) > 0, "no row twice"
    short = len(training) + len(validation) < -(-wanted // CONTEXT)
    assert short == ("warning: the text has only" in capsys.readouterr().out)
    assert short or len(validation) == max(1, round(0.05 * wanted / CONTEXT))


def test_text_that_repeats_is_judged_by_none_of_its_training_rows(tmp_path):
    rows = [[number] * CONTEXT for number in range(30)]
    training, validation = _sequences(specification(tokens=10**6), write_rows(tmp_path, a=rows, b=rows))
    assert as_set(training).isdisjoint(as_set(validation))


@pytest.mark.parametrize("rows", [[[1] * CONTEXT], [[1] * CONTEXT] * 40])
def test_text_without_two_different_rows_is_refused(tmp_path, rows):
    with pytest.raises(ConfigError, match=r"numbers of sequences: a \d+, b \d+; at least two"):
        _sequences(specification(), write_rows(tmp_path, a=rows, b=rows))


def test_an_epoch_shows_every_training_token_once_shuffled_with_its_own_labels(checkpoint, tokens):
    wanted = specification(batch_size=64)
    model = load(checkpoint, wanted.activation).eval()
    training, validation = _sequences(wanted, tokens)
    assert (len(training), len(validation)) == (119, 6)  # of 125 sequences of 16 tokens

    expected = {}
    with torch.no_grad(), observing(model, lambda layer, residual, x1: expected.update({layer: (residual, x1)})):
        model(training)
    session, orders = Session(wanted, model, training, validation), []
    for seed in (0, 1):
        buffers = list(session._buffers(np.random.default_rng(seed)))
        assert max(len(residuals[0]) for residuals, _ in buffers) == 4 * 64, "no more than a buffer at a time"
        for layer, (residual, x1) in expected.items():
            found = torch.cat([residuals[layer] for residuals, _ in buffers])
            labels = torch.cat([unpack(labels["nonzero"][layer], 96) for _, labels in buffers])
            ours, theirs = found[:, 0].argsort(), residual.flatten(0, 1)[:, 0].argsort()
            if layer == 1:  # in which no two tokens have the same residual: attention has mixed them
                torch.testing.assert_close(found[ours], residual.flatten(0, 1)[theirs], rtol=1e-4, atol=1e-4)
                wrong = labels[ours] != (x1.flatten(0, 1)[theirs] != 0)
                assert wrong.float().mean() < 1e-3
                orders.append(found)
    assert not torch.allclose(orders[0], orders[1], atol=1e-2), "another epoch has another order"


@pytest.fixture(scope="module")
def trained(tokens, tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, hidden_act="relu", initializer_range=0.2)
    LlamaForCausalLM(config).save_pretrained(root / "checkpoint")
    train(root / "checkpoint", specification("fatrelu-0.1"), tokens, root / "output")
    return root


def test_what_training_leaves(trained):
    output = trained / "output"
    record = json.loads((output / "training.json").read_text())
    assert not (output / "resume").exists()
    assert (record["activation"], record["seed"], record["rank"]) == ("fatrelu-0.1", 5, 16)
    assert (record["training_tokens"], record["validation_tokens"]) == (119 * CONTEXT, 6 * CONTEXT)
    assert record["provenance"]["packages"]["torch"]
    assert set(record["kinds"]) == {"nonzero", "top"}
    for kind in ("nonzero", "top", "svd"):
        assert [p.rank for p in predictors.load(output / kind)] == [16, 16]
    for layer in record["kinds"]["nonzero"]["layers"]:
        recalls = [epoch["recall"] for epoch in layer["epochs"]]
        assert layer["best_epoch"] == 1 + recalls.index(max(recalls))
        assert layer["epochs"][-1]["loss"] < layer["epochs"][0]["loss"]


def test_recorded_recall_and_marginal_against_a_recount(trained, tokens):
    """The best epoch's held-out values, by the predictors that were kept."""
    output, wanted = trained / "output", specification("fatrelu-0.1")
    model = load(trained / "checkpoint", wanted.activation).eval()
    training, validation = _sequences(wanted, tokens)
    seen = {}
    for name, rows in (("training", training), ("validation", validation)):
        with torch.no_grad(), observing(model, lambda *found, name=name: seen.update({(name, found[0]): found[1:]})):
            model(rows)
    record = json.loads((output / "training.json").read_text())
    for layer, predictor in enumerate(predictors.load(output / "nonzero")):
        frequency = (seen["training", layer][1] != 0).double().mean((0, 1))
        torch.testing.assert_close(load_marginal(output)[layer].double(), frequency, rtol=0, atol=1e-3)
        residual, x1 = seen["validation", layer]
        predicted, active = torch.sigmoid(predictor(residual)) >= 0.5, x1 != 0
        values = record["kinds"]["nonzero"]["layers"][layer]
        best = values["epochs"][values["best_epoch"] - 1]
        assert best["recall"] == pytest.approx((predicted & active).sum().item() / active.sum().item(), abs=2e-3)
        assert best["predicted_sparsity"] == pytest.approx(1 - predicted.float().mean().item(), abs=2e-3)


def test_training_free_kinds_alone_need_one_pass(checkpoint, tokens, tmp_path, capsys):
    train(checkpoint, specification(kinds=["svd"]), tokens, tmp_path / "output")
    assert capsys.readouterr().out.count("epoch") == 1
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["marginal.pt", "svd", "training.json"]
    assert len(load_marginal(tmp_path / "output")) == 2


def assert_same_files(one, other):
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*.pt"))
    assert names == sorted(str(path.relative_to(other)) for path in other.rglob("*.pt"))
    assert len(names) == 3 * 2 + 1
    for name in names:
        found = [torch.load(root / name, weights_only=True) for root in (one, other)]
        pairs = [zip(f.values() if isinstance(f, dict) else f, strict=True) for f in found]
        assert all(torch.equal(a[0], b[0]) for a, b in zip(*pairs, strict=True)), name


def test_kill_9_and_rerun_equals_uninterrupted(checkpoint, tokens, tmp_path):
    wanted = specification(tokens=1000, epochs=12, patience=12)
    state = tmp_path / "killed" / "resume" / "state.pt"
    kill_once(state.exists, lambda: train(checkpoint, wanted, tokens, tmp_path / "killed"))
    done = torch.load(state, weights_only=True)["epochs"]
    assert 1 <= done < 12
    train(checkpoint, wanted, tokens, tmp_path / "killed")
    train(checkpoint, wanted, tokens, tmp_path / "whole")
    assert_same_files(tmp_path / "killed", tmp_path / "whole")
    records = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("killed", "whole")]
    assert records[0]["kinds"] == records[1]["kinds"]


def test_refuses_other_progress_and_a_second_process(checkpoint, tokens, tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(session, learning, seconds):
        if session.epochs > 1:  # the first epoch is saved
            raise Stopped

    monkeypatch.setattr(Session, "_report", stop)
    with pytest.raises(Stopped):
        train(checkpoint, specification(), tokens, tmp_path / "output")
    with pytest.raises(Refused, match=r"settings.rank is 8, was 16"):
        train(checkpoint, specification(rank=8), tokens, tmp_path / "output")
    with pytest.raises(Refused, match=r"precision is .bfloat16., was .float32."):
        train(checkpoint, specification().model_copy(update={"precision": "bfloat16"}), tokens, tmp_path / "output")
    with open(tmp_path / "output" / "resume" / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="another process is training"):
            train(checkpoint, specification(), tokens, tmp_path / "output")


def test_a_bfloat16_models_own_activations_train_float32_predictors(checkpoint, tokens, tmp_path):
    wanted = specification(epochs=1).model_copy(update={"precision": "bfloat16"})
    train(checkpoint, wanted, tokens, tmp_path / "output")
    model = load(checkpoint, wanted.activation, dtype=torch.bfloat16).eval()
    active = {}
    with torch.no_grad(), observing(model, lambda layer, residual, x1: active.update({layer: x1 != 0})):
        model(_sequences(wanted, tokens)[0])
    for layer, frequency in enumerate(load_marginal(tmp_path / "output")):
        torch.testing.assert_close(frequency.double(), active[layer].double().mean((0, 1)), rtol=0, atol=2e-3)
    for kind in ("nonzero", "top", "svd"):
        weights = torch.load(tmp_path / "output" / kind / "model_0.pt", weights_only=True)
        assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_refuses_what_cannot_be_trained(checkpoint, tokens, tmp_path):
    with pytest.raises(
        ConfigError, match=r"predictors\.tokens is 16, and the corpora have these numbers of sequences: a 150, b 150; "
    ):
        train(checkpoint, specification(tokens=16), tokens, tmp_path / "few")
    with pytest.raises(ConfigError, match=r"predictors\.rank is 15"):
        train(checkpoint, specification(rank=15), tokens, tmp_path / "odd")
