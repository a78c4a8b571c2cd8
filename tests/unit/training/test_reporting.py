"""Training that a tracker follows: what it is told, what stays the same, and what is refused."""

import csv
import importlib.machinery
import json
import sys
import types

import pytest
import torch
import yaml
from helpers.checkpoint import make_checkpoint
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments
from transformers.integrations import WandbCallback

from prosparse.__main__ import main
from prosparse.training import reporting

RECIPE = {
    "activation": "relu",
    "context_length": 16,
    "stages": [{"until": 2}, {"until": 6, "target_sparsity": 0.7}],
    "training": {"learning_rate": 1e-2, "batch_size": 2, "micro_batch_size": 1, "log_every": 2},
}


def module(monkeypatch, name, **members):
    made = types.ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(made).update(members)
    monkeypatch.setitem(sys.modules, name, made)


@pytest.fixture
def own(tmp_path, monkeypatch):
    make_checkpoint(tmp_path / "model")
    (tmp_path / "book.txt").write_text("".join(f"Sentence {index}, which is not before. " for index in range(50)))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(output, *more):
    return main(["train", "model", "--recipe", "recipe.yaml", "--text", "book.txt", "--output", output, *more])


@pytest.fixture
def scalars(monkeypatch):
    """What TensorBoard's writer is given: by folder, (tag, step) and value."""
    found = {}

    class SummaryWriter:
        def __init__(self, log_dir):
            self.given = found.setdefault(str(log_dir), {})

        def add_scalar(self, tag, value, step):
            self.given[tag, step] = value

        def add_text(self, *_):
            pass

        flush = close = add_text

    module(monkeypatch, "tensorboard")
    module(monkeypatch, "torch.utils.tensorboard", SummaryWriter=SummaryWriter)
    return found


def test_tensorboard_is_given_the_ledger_and_changes_nothing(own, scalars, capsys):
    assert train("plain") == 0
    assert not scalars
    assert train("followed", "--report-to", "tensorboard") == 0
    assert list(scalars) == ["followed/stage0/tensorboard", "followed/stage1/tensorboard"]
    rows = list(csv.DictReader((own / "followed" / "ledger.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["1", "2", "4", "6"]
    given = {key: value for folder in scalars.values() for key, value in folder.items()}
    columns = {"lm_loss": "loss", "lambda": "lambda", "l1": "l1", "sparsity": "sparsity",
               "learning_rate": "learning_rate"}  # fmt: skip
    for row in rows:
        for column, tag in columns.items():
            assert given[f"train/{tag}", int(row["step"])] == pytest.approx(float(row[column])), (tag, row["step"])
    assert (own / "followed" / "identity.json").read_text() == (own / "plain" / "identity.json").read_text()
    for name, weight in load_file("plain/model.safetensors").items():
        assert (load_file("followed/model.safetensors")[name] == weight).all(), name
    records = [json.loads((own / name / "provenance.json").read_text()) for name in ("plain", "followed")]
    assert records[0]["specification"] == records[1]["specification"]
    capsys.readouterr()
    assert train("plain", "--report-to", "tensorboard") == 0  # the same run: nothing to do
    assert "already trained" in capsys.readouterr().out


def test_a_run_of_wandb_ends_with_its_training(tiny_llama, tmp_path, monkeypatch):
    """Else the next training of the process would continue it."""
    events = []
    module(monkeypatch, "wandb", finish=lambda: events.append("finished"))

    class Wandb(WandbCallback):
        def __init__(self):
            pass

        def on_train_begin(self, *_, **__):
            events.append("begun")

        on_train_end = on_log = on_predict = on_save = lambda *_, **__: None

    arguments = TrainingArguments(
        str(tmp_path), max_steps=1, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True
    )
    row = torch.arange(8)
    trainer = Trainer(tiny_llama(), arguments, train_dataset=[{"input_ids": row, "labels": row}], callbacks=[Wandb()])
    reporting.prepare(trainer, tmp_path)
    trainer.train()
    assert events == ["begun", "finished"]


@pytest.mark.parametrize("tracker", ["trackio", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_before_work(own, capsys, monkeypatch, tracker):
    monkeypatch.setattr("prosparse.training.reporting.find_spec", lambda name: None)
    assert train("out", "--report-to", tracker) == 1
    assert f"--report-to {tracker}: the package is not installed: pip install {tracker}" in capsys.readouterr().err
    assert not (own / "out").exists()
