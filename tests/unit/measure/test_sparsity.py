"""Sparsity and loss against a brute-force count and Hugging Face's own loss."""

import json
import math

import datasets
import pytest
import torch

from prosparse.experiment.activation import Activation
from prosparse.experiment.specifications import MeasuredCorpus, MeasuredStage, StageSparsitySpecification
from prosparse.measure.sparsity import ActiveNeurons, measure, measure_corpora, measure_stages
from prosparse.method.activations import gated_ffns, substitute

ROWS = torch.randint(0, 64, (7, 16), generator=torch.Generator().manual_seed(3))


def brute_force(model, rows):
    """Zero by zero in Python, row by row."""
    zeros = [0, 0]
    total = [0, 0]
    hooks = []
    for layer, ffn in enumerate(gated_ffns(model)):

        def count(module, inputs, layer=layer):
            values = inputs[0].flatten().tolist()
            zeros[layer] += sum(1 for v in values if v == 0.0)
            total[layer] += len(values)

        hooks.append(ffn.down_proj.register_forward_pre_hook(count))
    losses = [model(input_ids=row[None], labels=row[None]).loss.item() for row in rows]
    for hook in hooks:
        hook.remove()
    return [z / t for z, t in zip(zeros, total, strict=True)], sum(losses) / len(losses)


@pytest.mark.parametrize("activation", ["relu", "fatrelu-0.5", "shiftrelu-0.3", "silu"])
def test_against_a_brute_force_count(tiny_llama, activation):
    model = tiny_llama().eval()
    substitute(model, Activation.parse(activation))
    layers, loss = brute_force(model, ROWS)
    found = measure(model, ROWS, batch_size=3)
    assert found["layer_sparsity"] == pytest.approx(layers, abs=1e-12)
    assert found["sparsity"] == pytest.approx(sum(layers) / 2, abs=1e-12)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["tokens"] == 7 * 15
    if activation == "silu":
        assert found["sparsity"] == 0


def dead_by_hand(model, rows):
    """Each layer's share of neurons with x1 = 0 for every token, from the FFN's formula with HF's own modules."""
    inputs = []
    hooks = [layer.mlp.register_forward_pre_hook(lambda m, i: inputs.append((m, i[0]))) for layer in model.model.layers]
    with torch.no_grad():
        model(input_ids=rows)
    for hook in hooks:
        hook.remove()
    shares = []
    for mlp, hidden in inputs:
        x1 = mlp.act_fn(mlp.gate_proj(hidden)) * mlp.up_proj(hidden)
        shares.append(sum(not x1[..., neuron].any() for neuron in range(x1.shape[-1])) / x1.shape[-1])
    return shares


@pytest.mark.parametrize("activation", ["relu", "fatrelu-2", "silu"])
def test_dead_neurons_against_a_direct_count(tiny_llama, tmp_path, activation):
    """Over all corpora of the mixture together; a corpus that is only reported wakes no neuron."""
    model = tiny_llama("relu").eval()
    for name, rows in (("a", ROWS[:2]), ("b", ROWS[2:3]), ("other", ROWS[3:])):
        datasets.Dataset.from_dict({"input_ids": rows.tolist()}).save_to_disk(tmp_path / name / "heldout")
        (tmp_path / name / "manifest.json").write_text(json.dumps({"heldout_bytes_per_token": 2.0}))
    corpora = {
        name: MeasuredCorpus(stands_for=name, weight=weight) for name, weight in (("a", 2), ("b", 1), ("other", 0))
    }
    (found,) = measure_corpora(model, [Activation.parse(activation)], corpora, tmp_path)
    expected = dead_by_hand(model, ROWS[:3])
    assert found["dead_neurons"] == pytest.approx(expected, abs=1e-12)
    if activation == "silu":
        assert expected == [0, 0]
    if activation == "fatrelu-2":
        assert 0 < sum(dead_by_hand(model, ROWS)) < sum(expected)
    neurons = ActiveNeurons(model)
    for row in ROWS[:3]:  # one call per row: what was active stays active
        with neurons.noting():
            model(input_ids=row[None])
    assert neurons.dead() == pytest.approx(expected, abs=1e-12)
    model(input_ids=ROWS)  # outside the block
    assert neurons.dead() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_each_sequence_is_as_if_measured_by_itself_and_their_mean_is_the_total(tiny_llama, batch_size):
    model = tiny_llama("relu").eval()
    found = measure(model, ROWS, batch_size)
    sequences = found["sequences"]
    assert sequences.keys() == {"loss", "sparsity"}
    for place, row in enumerate(ROWS):
        layers, loss = brute_force(model, row[None])
        assert sequences["sparsity"][place] == pytest.approx(sum(layers) / 2, abs=1e-6)
        assert sequences["loss"][place] == pytest.approx(loss, abs=2e-6)
    assert len(set(sequences["sparsity"])) > 1
    for key, values in sequences.items():
        assert len(values) == len(ROWS)
        assert sum(values) / len(ROWS) == pytest.approx(found[key], abs=1e-6)


def test_bfloat16_agrees_with_float32_and_counts_its_own_zeros(tiny_llama):
    """Within 0.3 % of the loss and 1 % of the elements; the loss is that of float64 on the same logits."""
    exact = measure(tiny_llama("relu"), ROWS, batch_size=1)
    model = tiny_llama("relu", dtype=torch.bfloat16).eval()
    found = measure(model, ROWS, batch_size=1)
    assert found["loss"] == pytest.approx(exact["loss"], rel=3e-3)
    assert found["sparsity"] == pytest.approx(exact["sparsity"], abs=0.01)
    assert found["layer_sparsity"] == pytest.approx(brute_force(model, ROWS)[0], abs=1e-12)
    with torch.no_grad():
        logits = torch.cat([model(row[None]).logits for row in ROWS]).double()
    nats = -logits[:, :-1].log_softmax(-1).gather(2, ROWS[:, 1:, None])
    assert found["loss"] == pytest.approx(nats.mean().item(), rel=1e-6)

    assert measure(model.float(), ROWS, batch_size=1)["sparsity"] != found["sparsity"], "float32 has other zeros"


def test_stages_are_measured_each_under_the_runs_activation(tiny_llama, tmp_path):
    tokens = tmp_path / "tokens"
    datasets.Dataset.from_dict({"input_ids": ROWS.tolist()}).save_to_disk(tokens / "a" / "heldout")
    (tokens / "a" / "manifest.json").write_text(json.dumps({"heldout_bytes_per_token": 2.0}))
    models = [tiny_llama("silu"), tiny_llama("relu", seed=1)]
    for index, model in enumerate(models):
        model.save_pretrained(tmp_path / str(index))
    wanted = StageSparsitySpecification(
        activation=Activation.parse("fatrelu-0.5"),
        stages=[MeasuredStage(stage=None, step=0), MeasuredStage(stage=0, step=40)],
        corpora={"a": MeasuredCorpus(stands_for="wikipedia", weight=1)},
        precision="float32",
    )
    found = measure_stages([tmp_path / "0", tmp_path / "1"], wanted, tokens)
    assert [(each["stage"], each["step"], each["activation"]) for each in found] == [
        (None, 0, "fatrelu-0.5"), (0, 40, "fatrelu-0.5"),
    ]  # fmt: skip
    for model, entry in zip(models, found, strict=True):
        substitute(model.eval(), wanted.activation)
        layers, loss = brute_force(model, ROWS)
        assert entry["layer_sparsity"] == pytest.approx(layers, abs=1e-6)
        assert entry["loss"] == pytest.approx(loss, rel=1e-5)
        assert len(entry["corpora"]["a"]["sequences"]["loss"]) == len(ROWS)


def test_average_weights_corpora_by_the_mixture(tiny_llama, tmp_path):
    for name, rows, bytes_per_token in (("a", ROWS[:3], 2.0), ("b", ROWS[3:], 4.0), ("apart", ROWS[:1], 3.0)):
        datasets.Dataset.from_dict({"input_ids": rows.tolist()}).save_to_disk(tmp_path / name / "heldout")
        (tmp_path / name / "manifest.json").write_text(json.dumps({"heldout_bytes_per_token": bytes_per_token}))
    corpora = {
        "a": MeasuredCorpus(stands_for="wikipedia", weight=3),
        "b": MeasuredCorpus(stands_for="pile", weight=1),
        "apart": MeasuredCorpus(stands_for="flan", weight=0),
    }
    model = tiny_llama("relu")
    (relu, fat) = measure_corpora(model, [Activation.parse("relu"), Activation.parse("fatrelu-0.5")], corpora, tmp_path)
    a, b = measure(model, ROWS[:3], 16), measure(model, ROWS[3:], 16)  # the model is left under the last activation
    assert fat["activation"] == "fatrelu-0.5"
    assert fat["sparsity"] == pytest.approx(0.75 * a["sparsity"] + 0.25 * b["sparsity"])
    loss = 0.75 * a["loss"] + 0.25 * b["loss"]
    assert fat["loss"] == pytest.approx(loss)
    assert fat["bits_per_byte"] == pytest.approx(loss / math.log(2) / (0.75 * 2 + 0.25 * 4))
    assert fat["corpora"]["apart"]["tokens"] == 15
    assert fat["corpora"]["b"]["sequences"] == b["sequences"]
    assert fat["sparsity"] > relu["sparsity"]
