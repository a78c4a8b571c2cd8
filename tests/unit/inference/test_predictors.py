"""Predictors against formulas in float64, the FFN recomputed by hand, and PowerInfer's file layout."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from helpers.tiny_decoders import random_predictors
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen3Config,
)

from prosparse.experiment.activation import Activation
from prosparse.inference import predictors
from prosparse.inference.predictors import (
    Predictor,
    decision_logit,
    feeding_norms,
    observing,
    predicting,
    svd,
)
from prosparse.method.activations import UnsupportedArchitecture, gated_ffns, substitute
from prosparse.system.errors import ConfigError, UserError

SIZES = {
    "vocab_size": 99, "hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig, "granite": GraniteConfig, "mistral": MistralConfig, "qwen3": Qwen3Config, "phi3": Phi3Config,
}  # fmt: skip
ROWS = torch.randint(2, 99, (4, 24), generator=torch.Generator().manual_seed(1))


def tiny(name="llama", activation="relu"):
    """A random model whose norms' weights are not all ones."""
    torch.manual_seed(0)
    sizes = {key: value for key, value in SIZES.items() if name != "phi3" or key != "head_dim"}
    model = AutoModelForCausalLM.from_config(CONFIGS[name](**sizes), dtype=torch.float32).eval()
    for norm in feeding_norms(model):
        norm.weight.data.uniform_(0.3, 1.7)
    substitute(model, Activation.parse(activation))
    return model


def some_predictors():
    return random_predictors((32, 6, 72), layers=3, seed=3)


def seen_by(model, rows):
    """Residual and x1 of every layer as plain hooks on the modules see them, and the input of each FFN."""
    residual, x1, ffn_input, hooks = {}, {}, {}, []
    for layer, block in enumerate(model.model.layers):

        def keep(store, layer=layer):
            return lambda module, inputs: store.__setitem__(layer, inputs[0].detach().clone())

        hooks += [
            block.post_attention_layernorm.register_forward_pre_hook(keep(residual)),
            block.mlp.register_forward_pre_hook(keep(ffn_input)),
            block.mlp.down_proj.register_forward_pre_hook(keep(x1)),
        ]
    with torch.no_grad():
        logits = model(rows).logits
    for hook in hooks:
        hook.remove()
    return residual, x1, ffn_input, logits


def gate_and_up(ffn):
    module = ffn.module
    if hasattr(module, "gate_up_proj"):
        return module.gate_up_proj.weight.detach().split(72)
    return module.gate_proj.weight.detach(), module.up_proj.weight.detach()


def test_logits_are_two_products_with_a_relu_between():
    predictor = some_predictors()[0]
    residual = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    fc1, fc2 = predictor.fc1.weight.double().numpy(), predictor.fc2.weight.double().numpy()
    expected = np.maximum(residual.double().numpy() @ fc1.T, 0) @ fc2.T
    np.testing.assert_allclose(predictor(residual).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert predictor.rank == 6
    assert [tuple(p.shape) for p in Predictor(32, 6, 72).parameters()] == [(6, 32), (72, 6)]


@pytest.mark.parametrize("probability", [1e-3, 0.2, 0.5, 0.9])
def test_decision_logit_is_the_inverse_of_the_sigmoid(probability):
    assert 1 / (1 + math.exp(-decision_logit(probability))) == pytest.approx(probability, rel=1e-12)
    assert decision_logit(0.5) == 0


# --------------------------------------------------------------------------------------- files


def test_files_have_powerinfers_layout_and_read_back_exactly(tmp_path):
    saved = some_predictors()
    predictors.save(saved, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["model_0.pt", "model_1.pt", "model_2.pt"]
    state = torch.load(tmp_path / "new" / "model_1.pt", weights_only=True)
    assert {name: tuple(weight.shape) for name, weight in state.items()} == {
        "fc1.weight": (6, 32), "fc2.weight": (72, 6),
    }  # fmt: skip
    for before, after in zip(saved, predictors.load(tmp_path / "new"), strict=True):
        assert torch.equal(before.fc1.weight, after.fc1.weight)
        assert torch.equal(before.fc2.weight, after.fc2.weight)
        assert not after.fc1.weight.requires_grad
    assert predictors.load(tmp_path / "new", torch.bfloat16)[0].fc2.weight.dtype == torch.bfloat16


def test_a_model_of_fewer_layers_leaves_none_of_the_earlier_files(tmp_path):
    predictors.save(some_predictors(), tmp_path)
    predictors.save(some_predictors()[:2], tmp_path)
    assert len(predictors.load(tmp_path)) == 2


class Planted:
    def __reduce__(self):
        return print, ("planted code ran",)


def write(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fc1.weight": torch.ones(2, 4)}, "must hold the matrices fc1.weight and fc2.weight"),
        ({"fc1.weight": torch.ones(2, 4), "fc2.weight": torch.ones(3)}, "must hold the matrices"),
        ([torch.ones(2, 4)], "must hold the matrices"),
        ({"fc1.weight": torch.ones(2, 4), "fc2.weight": torch.ones(8, 3)}, r"\[2, 4\] and .* \[8, 3\] differ in rank"),
        (Planted(), "not a predictor: it holds something other than weights"),
        (pickle.dumps(Planted(), protocol=2), "not a predictor: it holds something other than weights"),
        (b"", "not a predictor"),
        (b"PK\x03\x04 torn", "not a predictor"),
    ],
    ids=["fc1 alone", "vector", "list", "ranks", "code in a zip", "code in a pickle", "empty", "torn"],
)
def test_refuses_files_that_are_no_predictors(tmp_path, capsys, content, message):
    write(tmp_path / "model_0.pt", content)
    with pytest.raises(ConfigError, match=rf"model_0\.pt.*{message}"):
        predictors.load(tmp_path)
    assert "planted" not in capsys.readouterr().out


def test_refuses_a_directory_without_predictors_or_with_a_gap(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no predictors: model_0\.pt"):
        predictors.load(tmp_path)
    predictors.save(some_predictors(), tmp_path)
    (tmp_path / "model_1.pt").unlink()
    with pytest.raises(ConfigError, match=r"model_1\.pt is missing"):
        predictors.load(tmp_path)


# ---------------------------------------------------------------------------------- in a model


@pytest.mark.parametrize("name", CONFIGS)
def test_observes_the_residual_before_the_norm_that_feeds_the_ffn(name):
    model = tiny(name)
    found = {}
    with torch.no_grad(), observing(model, lambda layer, residual, x1: found.update({layer: (residual, x1)})):
        logits = model(ROWS).logits
    residual, x1, ffn_input, expected = seen_by(model, ROWS)
    assert torch.equal(logits, expected), "observing alone changes nothing"
    for layer, (norm, ffn) in enumerate(zip(feeding_norms(model), gated_ffns(model), strict=True)):
        seen, seen_x1 = found[layer]
        assert torch.equal(seen, residual[layer])
        assert torch.equal(seen_x1, x1[layer])
        # Eq. 2 by hand, from what was seen: the norm, the two projections, the ReLU
        normed = seen / (seen.square().mean(-1, keepdim=True) + model.config.rms_norm_eps).sqrt() * norm.weight
        torch.testing.assert_close(normed.detach(), ffn_input[layer], rtol=1e-4, atol=1e-5)
        gate, up = gate_and_up(ffn)
        torch.testing.assert_close(
            (torch.relu(normed @ gate.T) * (normed @ up.T)).detach(), seen_x1, rtol=1e-3, atol=1e-4
        )


def test_hooks_go_even_after_a_failure():
    model = tiny()
    before = model(ROWS).logits

    def fail(layer, residual, x1):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), observing(model, fail):
        model(ROWS)
    assert torch.equal(model(ROWS).logits, before)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("config", [Gemma2Config, Olmo2Config])
def test_refuses_a_norm_of_that_name_that_does_not_feed_the_ffn(config):
    model = AutoModelForCausalLM.from_config(config(**SIZES))
    with pytest.raises(UnsupportedArchitecture, match="a norm post_attention_layernorm that feeds the FFN"):
        feeding_norms(model)


@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.97])
@pytest.mark.parametrize("name", ["llama", "granite"])
def test_predicted_mode_zeroes_what_is_predicted_inactive(name, threshold):
    model, given = tiny(name), some_predictors()
    exact = seen_by(model, ROWS)[3]
    with predicting(model, given, threshold):
        residual, x1, ffn_input, logits = seen_by(model, ROWS)
    for layer, ffn in enumerate(gated_ffns(model)):
        probability = 1 / (1 + np.exp(-given[layer](residual[layer]).double().numpy()))
        gate, up = gate_and_up(ffn)
        full = torch.relu(ffn_input[layer] @ gate.T) * (ffn_input[layer] @ up.T)
        expected = np.where(probability >= threshold, full.numpy(), 0)
        np.testing.assert_allclose(x1[layer].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits, exact, atol=1e-2), "a mask that changes nothing would show nothing"
    assert torch.equal(seen_by(model, ROWS)[3], exact), "after the block the model is exact again"


def test_predicted_mode_lasts_through_cached_generation():
    model = tiny()
    with predicting(model, some_predictors(), 0.5):
        arguments = {"max_new_tokens": 20, "do_sample": False}
        cached = model.generate(ROWS[:1, :5], use_cache=True, **arguments)
        assert torch.equal(cached, model.generate(ROWS[:1, :5], use_cache=False, **arguments))
    assert not torch.equal(cached, model.generate(ROWS[:1, :5], **arguments))


def test_refuses_predictors_of_another_model():
    model = tiny()
    with pytest.raises(UserError, match="2 predictors for a model of 3 layers"), predicting(model, [None] * 2, 0.5):
        pass
    wrong = [*some_predictors()[:2], Predictor(32, 6, 73)]
    with pytest.raises(UserError, match="layer 2 maps 32 to 73 values"), predicting(model, wrong, 0.5):
        pass


# ------------------------------------------------------------------------------- training-free


@pytest.mark.parametrize("name", CONFIGS)
def test_svd_of_full_rank_predicts_a_relu_model_exactly(name):
    model = tiny(name)
    exact = seen_by(model, ROWS)[3]
    given = svd(model, 64, ROWS)
    hits, active = 0, 0

    def compare(layer, residual, x1):
        nonlocal hits, active
        chosen = given[layer](residual) >= 0
        hits, active = hits + int((chosen & (x1 != 0)).sum()), active + int((x1 != 0).sum())
        # gates within rounding of 0 may go either way
        assert (chosen != (x1 != 0)).float().mean() < 1e-3

    with torch.no_grad(), observing(model, compare):
        model(ROWS)
    assert hits / active > 0.999
    with predicting(model, given, 0.5):
        torch.testing.assert_close(seen_by(model, ROWS)[3], exact, rtol=1e-3, atol=1e-3)


def test_svd_is_the_best_approximation_of_its_rank_on_one_scale():
    model = tiny("phi3")
    residual = seen_by(model, ROWS)[0]
    for layer, (predictor, norm, ffn) in enumerate(
        zip(svd(model, 12, ROWS), feeding_norms(model), gated_ffns(model), strict=True)
    ):
        assert predictor.rank == 12
        gate = (gate_and_up(ffn)[0] * norm.weight.detach()).double()
        left, values, right = torch.linalg.svd(gate, full_matrices=False)
        best = left[:, :6] * values[:6] @ right[:6]
        expected = residual[layer].double() @ best.T
        found = predictor(residual[layer]).double()
        scale = (found * expected).sum() / expected.square().sum()
        assert scale > 0
        torch.testing.assert_close(found, scale * expected, rtol=1e-3, atol=1e-4)
        assert found.square().mean().sqrt() == pytest.approx(predictors.SVD_LOGIT_SCALE, rel=1e-4)


@pytest.mark.parametrize("rank", [7, 66])
def test_svd_refuses_ranks_it_cannot_have(rank):
    with pytest.raises(ConfigError, match=rf"predictors\.rank is {rank}: .* even number, at most 64"):
        svd(tiny(), rank, ROWS)
