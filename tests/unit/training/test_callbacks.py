"""A Trainer of one's own: its weights, against SGD on the objective written out, and what it logs."""

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from prosparse.experiment.activation import Activation
from prosparse.experiment.training import Stage
from prosparse.method.activations import UnsupportedArchitecture, gated_ffns, substitute
from prosparse.system.errors import ConfigError
from prosparse.training.callbacks import regularize

STAGES = [Stage(until=1), Stage(until=3, shape="sine", peak=0.5), Stage(until=4, peak=0.5)]
LAMBDAS = [0.0, 0.25, 0.5, 0.5]  # steps 2 and 3 are the middle and the end of the half sine
LEARNING_RATE = 0.1


def written_out(model, row):
    """SGD on LM loss + lambda * sum over layers of mean |x1|."""
    for weight in LAMBDAS:
        x1 = []
        hooks = [f.down_proj.register_forward_pre_hook(lambda m, i, x1=x1: x1.append(i[0])) for f in gated_ffns(model)]
        loss = model(input_ids=row[None], labels=row[None]).loss + weight * sum(x.abs().mean() for x in x1)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= LEARNING_RATE * parameter.grad
        for hook in hooks:
            hook.remove()
    return model


# in the last case, every second step is an epoch's last, of one micro-batch
@pytest.mark.parametrize(("accumulation_steps", "rows"), [(1, 4), (2, 8), (3, 4)])
def test_lambda_in_a_trainer_of_ones_own(tiny_llama, tmp_path, accumulation_steps, rows):
    models = [tiny_llama(), tiny_llama()]
    for each in models:
        substitute(each, Activation.parse("relu"))
    trained, expected = models
    row = torch.randint(64, (16,), generator=torch.Generator().manual_seed(1))
    arguments = TrainingArguments(
        str(tmp_path), max_steps=len(LAMBDAS), per_device_train_batch_size=1, use_cpu=True, optim="sgd",
        gradient_accumulation_steps=accumulation_steps, learning_rate=LEARNING_RATE, lr_scheduler_type="constant",
        max_grad_norm=0, report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(trained, arguments, train_dataset=[{"input_ids": row, "labels": row}] * rows)
    regularize(trainer, STAGES)
    trainer.train()
    weights = dict(written_out(expected, row).named_parameters())
    for name, parameter in trained.named_parameters():
        torch.testing.assert_close(parameter, weights[name], rtol=1e-4, atol=1e-6)


class Tracker(TrainerCallback):
    """Keeps what ``on_log`` is given, in the place of a tracker: before a user's callbacks."""

    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.logs.append({"step": state.global_step, **logs})


@pytest.mark.parametrize("stages", [STAGES, [Stage(until=4, target_sparsity=0.9)]], ids=["schedule", "target"])
def test_trackers_are_given_lambda_l1_and_sparsity(tiny_llama, tmp_path, stages):
    """Of every second step, against x1 itself and the lambdas that the forward passes ran under."""
    model, found = tiny_llama(), []
    substitute(model, Activation.parse("relu"))
    for ffn in gated_ffns(model):
        ffn.down_proj.register_forward_pre_hook(lambda m, inputs: found.append(inputs[0].detach()))
    row = torch.randint(64, (16,), generator=torch.Generator().manual_seed(1))
    arguments = TrainingArguments(
        str(tmp_path), max_steps=4, per_device_train_batch_size=1, use_cpu=True, optim="sgd", report_to="none",
        learning_rate=LEARNING_RATE, logging_steps=2, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    tracker, used = Tracker(), []
    trainer = Trainer(model, arguments, train_dataset=[{"input_ids": row, "labels": row}] * 4, callbacks=[tracker])
    callback = regularize(trainer, stages)
    model.register_forward_pre_hook(lambda *_: used.append(callback.regularization.factor))
    trainer.train()
    assert [log["step"] for log in tracker.logs] == [2, 4]
    if stages is STAGES:
        assert used == LAMBDAS
    for log in tracker.logs:
        layers = found[2 * log["step"] - 2 : 2 * log["step"]]  # two layers per step
        assert log["lambda"] == used[log["step"] - 1]
        assert log["l1"] == pytest.approx(sum(x.abs().mean().item() for x in layers), rel=1e-5)
        assert log["sparsity"] == pytest.approx(sum((x == 0).double().mean().item() for x in layers) / 2, abs=1e-6)
        assert log["learning_rate"] > 0
    kept = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [(entry["lambda"], entry["sparsity"]) for entry in kept] == [
        (log["lambda"], log["sparsity"]) for log in tracker.logs
    ]
    assert used[-1] > 0


def test_what_cannot_be_regularized_is_refused(tiny_llama, tmp_path):
    def trainer(model, **changed):
        made = Trainer(model, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
        for name, value in changed.items():
            setattr(made.args, name, value)
        return made

    with pytest.raises(ConfigError, match="use bf16 or float32"):
        regularize(trainer(tiny_llama(), fp16=True), STAGES)
    with pytest.raises(ConfigError, match="4 GPUs: start one process per GPU with torchrun"):
        regularize(trainer(tiny_llama(), _n_gpu=4), STAGES)
    with pytest.raises(UnsupportedArchitecture, match="no gated FFN"):
        regularize(trainer(torch.nn.Linear(2, 2)), STAGES)
