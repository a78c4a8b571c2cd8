"""The lambda callback in a Trainer of one's own, against SGD on the objective written out."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from prosparse.experiment.activation import Activation
from prosparse.experiment.training import Stage
from prosparse.method.activations import gated_ffns, substitute
from prosparse.method.regularization import SparsityRegularization
from prosparse.training.callbacks import LambdaCallback

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


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_lambda_in_a_trainer_of_ones_own(tiny_llama, tmp_path, accumulation_steps):
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
    regularization = SparsityRegularization(trained, accumulation_steps)
    callback = LambdaCallback(STAGES, regularization)
    rows = [{"input_ids": row, "labels": row}] * 8
    Trainer(trained, arguments, train_dataset=rows, callbacks=[callback]).train()
    weights = dict(written_out(expected, row).named_parameters())
    for name, parameter in trained.named_parameters():
        torch.testing.assert_close(parameter, weights[name], rtol=1e-4, atol=1e-6)
