"""What the timing of a training step counts and compares; times themselves are not asserted."""

import datasets
import pytest
import torch

from prosparse.experiment.activation import Activation
from prosparse.experiment.model import Architecture
from prosparse.experiment.specifications import StageSpecification
from prosparse.experiment.training import Stage, Training
from prosparse.measure import overhead
from prosparse.models.build import from_scratch

ARCHITECTURE = Architecture(hidden_size=32, intermediate_size=48, layers=2, heads=2, kv_heads=1)


def specification(**training):
    settings = {"learning_rate": 1e-3, "batch_size": 4, "micro_batch_size": 2, **training}
    return StageSpecification(
        seed=0, start=ARCHITECTURE, activation=Activation(name="relu"), mixture={"a": 1.0}, context_length=16,
        stages=[Stage(until=2, peak=0.5)], total_steps=2, training=Training(**settings),
    )  # fmt: skip


@pytest.fixture
def tokens(tmp_path):
    rows = torch.randint(0, 64, (8, 16), generator=torch.Generator().manual_seed(0)).tolist()
    datasets.Dataset.from_dict({"input_ids": rows}).save_to_disk(tmp_path / "a" / "train")
    return tmp_path


def test_a_step_is_timed_with_each_lever_and_beside_its_products(tokens):
    model = from_scratch(ARCHITECTURE, 64, 16, seed=0)
    measured = overhead.training(model, specification(precision="bfloat16", attention="eager"), tokens, repeats=3)
    assert list(measured["levers"]) == [
        "transformers, float32", "bfloat16", "freed memory kept", "fused loss", "eager attention",
    ]  # fmt: skip
    # by hand: q and o 32 x 32, k and v 16 x 32, three FFN matrices 48 x 32, two layers; the head 64 x 32
    weights = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32) + 64 * 32
    assert measured["flop_per_token"] == 6 * weights
    assert measured["tokens_per_step"] == 2 * 16
    share = measured["share_of_matmul_rate"]
    assert 0 < share["lower_quartile"] <= share["median"] <= share["upper_quartile"]


def test_levers_that_a_run_does_not_use_are_not_timed(tokens):
    measured = overhead.training(from_scratch(ARCHITECTURE, 64, 16, seed=0), specification(), tokens, repeats=3)
    assert list(measured["levers"]) == ["transformers, float32", "freed memory kept", "fused loss"]


def test_large_models_are_not_repeated_for_long(monkeypatch):
    monkeypatch.setattr(overhead, "ENOUGH_SECONDS", 0)
    assert len(overhead.interleaved({"arm": lambda: None}, repeats=20)["arm"]) == overhead.FEWEST_REPEATS


def test_a_model_keeps_as_many_layers_as_fit():
    model = from_scratch(ARCHITECTURE, 64, 16, seed=0)
    layer = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32 + 2 * 32  # by hand, two norms included
    rest = 64 * 32 + 32  # tied embeddings, last norm
    rows = torch.arange(16)[None]
    with torch.no_grad():
        inner = model(input_ids=rows, output_hidden_states=True).hidden_states[1]
        assert overhead.shorten(model, rest + 2 * layer - 1) == (1, 2)
        shortened = model.base_model(input_ids=rows).last_hidden_state
        assert torch.equal(shortened, model.base_model.norm(inner))
    assert sum(parameter.numel() for parameter in model.parameters()) == rest + layer
    assert overhead.shorten(model) == (1, 1)
