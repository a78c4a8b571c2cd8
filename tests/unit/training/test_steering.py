"""Stages with a target sparsity: the lambda that they use, resumption, and what they say at the end."""

import json
import math

import pytest
import torch
from helpers.tiny_training import ledger, specification, weights
from transformers import Trainer, TrainingArguments

from prosparse.experiment.activation import Activation
from prosparse.experiment.training import Stage
from prosparse.method.activations import substitute
from prosparse.method.controller import Controller
from prosparse.training.callbacks import regularize
from prosparse.training.job import StageJob
from prosparse.training.stage import OutOfTime, train_stage

STAGES = [Stage(until=3), Stage(until=6, peak=0.2), Stage(until=12, target_sparsity=0.7),
          Stage(until=20, target_sparsity=0.8)]  # fmt: skip


def run(data, spec, output, previous=None, **options):
    train_stage(StageJob(spec, data / "tokens", data / "tokenizer", previous, output, **options))
    return output


def assert_same(found, expected):
    """The same weights and ledger, bit for bit."""
    for name, weight in weights(expected).items():
        assert torch.equal(weights(found)[name], weight), name
    for one, other in zip(ledger(found), ledger(expected), strict=True):
        assert one | {"tokens_per_second": 0} == other | {"tokens_per_second": 0}


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    return run(data, specification(STAGES, log_every=1), tmp_path_factory.mktemp("steered") / "whole")


def test_ledger_holds_the_lambda_that_the_controller_gives_for_its_sparsities(whole):
    """Recomputed from the ledger and the learning rate's closed form: warm-up of 2 steps, then a cosine to step 20."""
    rates = [step / 2 if step < 2 else 0.5 * (1 + math.cos(math.pi * (step - 2) / 18)) for step in range(20)]
    rows = ledger(whole)
    assert [row["learning_rate"] for row in rows] == pytest.approx([1e-2 * rate for rate in rates])
    assert [row["lambda"] for row in rows[:7]] == [0, 0, 0, 0.2, 0.2, 0.2, 0.2]  # continues from the previous peak
    previous = 0.2
    for target, start, end in ((0.7, 6, 12), (0.8, 12, 20)):
        controller = Controller(target, sum(rates[start:end]))
        state = controller.begin(previous, rows[start]["sparsity"], rows[start]["l1"])
        for index in range(start + 1, end):
            assert rows[index]["lambda"] == pytest.approx(state.factor, rel=1e-9)
            state = controller.advance(state, rows[index]["sparsity"], rates[index])
        previous = state.factor
        if end < 20:
            assert rows[end]["lambda"] == pytest.approx(previous, rel=1e-9)
    assert len({row["lambda"] for row in rows[6:]}) > 10


def test_stages_equal_the_run_in_one_piece(data, whole, tmp_path):
    previous, rows = None, []
    for index in range(len(STAGES)):
        spec = specification(STAGES[: index + 1], log_every=1)
        previous = run(data, spec, tmp_path / f"stage{index}", previous)
        rows += ledger(previous)
    for name, weight in weights(whole).items():
        assert torch.equal(weights(previous)[name], weight), name
    assert [row["lambda"] for row in rows] == [row["lambda"] for row in ledger(whole)]


def test_stopped_at_every_step_equals_uninterrupted(data, whole, tmp_path):
    """Stopped where steering begins, within it, and between two targets."""
    for step in range(1, 20):
        with pytest.raises(OutOfTime, match=f"step {step} of 20"):
            run(data, specification(STAGES, log_every=1), tmp_path / "stopped", max_seconds=0)
    assert_same(run(data, specification(STAGES, log_every=1), tmp_path / "stopped"), whole)


def test_how_often_is_logged_changes_nothing(data, whole, tmp_path):
    rarely = run(data, specification(STAGES, log_every=7), tmp_path / "rarely")
    for name, weight in weights(whole).items():
        assert torch.equal(weights(rarely)[name], weight), name
    logged = {row["step"]: row["lambda"] for row in ledger(whole)}
    assert [(row["step"], row["lambda"]) for row in ledger(rarely)] == [(s, logged[s]) for s in (1, 7, 14, 20)]


def test_provenance_and_output_tell_what_was_reached(data, tmp_path, capsys):
    """The last tenth of 20 steps is 2; a target is reached within half a point."""
    spec = specification([Stage(until=20, target_sparsity=0.999)], log_every=1, learning_rate=1e-5)
    missed = run(data, spec, tmp_path / "missed")
    said = capsys.readouterr().out
    final = json.loads((missed / "provenance.json").read_text())["final"]
    last = [row["sparsity"] for row in ledger(missed)[-2:]]
    assert final["reached_sparsity"] == pytest.approx(sum(last) / 2)
    reached = f"reached {50 * sum(last):.2f}% sparsity in the stage's last tenth"
    assert f"warning: target 99.9% not reached: {reached}" in said
    near = round(final["reached_sparsity"], 3)
    # with a learning rate near zero, the model stays what it is
    frozen = specification([Stage(until=20, target_sparsity=near)], log_every=1, learning_rate=1e-30)
    start = run(data, frozen, tmp_path / "frozen")
    stays = round(json.loads((start / "provenance.json").read_text())["final"]["reached_sparsity"], 3)
    capsys.readouterr()
    spec = specification([Stage(until=20, target_sparsity=stays)], log_every=1, learning_rate=1e-30)
    run(data, spec, tmp_path / "reached")
    said = capsys.readouterr().out
    assert f"target {100 * stays:g}%: reached" in said
    assert "warning: target" not in said
    spec = specification([Stage(until=20, target_sparsity=stays - 0.1)], log_every=1, learning_rate=1e-30)
    run(data, spec, tmp_path / "exceeded")
    said = capsys.readouterr().out
    assert f"warning: target {100 * (stays - 0.1):g}% exceeded: reached" in said
    assert "more steps" not in said


class InOrder(Trainer):
    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)


def test_lambda_of_a_trainer_of_ones_own_averages_over_micro_batches(tiny_llama, tmp_path):
    """Two micro-batches of one row measure what one batch of both does, so lambda takes the same course."""
    rows = torch.randint(64, (16, 16), generator=torch.Generator().manual_seed(1))
    dataset, courses = [{"input_ids": row, "labels": row} for row in rows], []
    for accumulation in (1, 2):
        model = tiny_llama()
        substitute(model, Activation.parse("relu"))
        arguments = TrainingArguments(
            str(tmp_path / str(accumulation)), max_steps=8, per_device_train_batch_size=2 // accumulation,
            gradient_accumulation_steps=accumulation, use_cpu=True, optim="sgd", learning_rate=0.1,
            lr_scheduler_type="constant", report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer, course = InOrder(model, arguments, train_dataset=dataset), []
        callback = regularize(trainer, [Stage(until=8, target_sparsity=0.9)])
        regularization = callback.regularization
        model.register_forward_pre_hook(lambda *_, of=regularization, course=course: course.append(of.factor))
        trainer.train()
        courses.append(course[::accumulation])
        assert callback.steering is not None
        assert callback.steering.controller.steps == 8
        assert callback.steering.duration == 8
    assert courses[0][0] == 0
    assert courses[0][1] > 0
    assert courses[1] == pytest.approx(courses[0], rel=1e-3)
