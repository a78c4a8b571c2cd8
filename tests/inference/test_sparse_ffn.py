"""Generation with the sparse operators against the same Hugging Face model without them."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GraniteConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedModel,
)

from prosparse.config import Activation, UserError
from prosparse.inference.sparse_ffn import SparseFFN, use_sparse_ffns
from prosparse.method.activations import gated_ffns, substitute

SIZES = {
    "vocab_size": 199, "hidden_size": 96, "intermediate_size": 250, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {"llama": LlamaConfig, "granite": GraniteConfig, "phi3": Phi3Config}


def tiny(name: str, activation: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name](**SIZES), dtype=torch.float32).eval()
    substitute(model, Activation.parse(activation))
    return model


@pytest.mark.parametrize("activation", ["relu", "fatrelu-0.2", "shiftrelu-0.1"])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("batch", [1, 3])
def test_generates_the_tokens_of_the_dense_model(name, activation, batch):
    dense = tiny(name, activation)
    sparse = copy.deepcopy(dense)
    use_sparse_ffns(sparse)
    prompts = torch.randint(2, 199, (batch, 12), generator=torch.Generator().manual_seed(1))
    arguments = {"max_new_tokens": 60, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    expected = dense.generate(prompts, **arguments)
    generated = sparse.generate(prompts, **arguments)
    assert torch.equal(generated.sequences, expected.sequences)
    assert len(set(generated.sequences[0, 12:].tolist())) > 5, "a model that repeats itself would show little"
    for ours, theirs in zip(generated.logits, expected.logits, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_decoding_skips_inactive_rows_and_prompts_are_dense():
    """W_1 and W_2 rows of neurons that are never active may hold anything while decoding."""
    model = tiny("llama", "relu")
    ffn = gated_ffns(model)[0].module
    ffn.gate_proj.weight.data[:100] = 0  # a gate of exactly 0
    x = torch.randn(1, 1, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = ffn(x)
        use_sparse_ffns(model)
        sparse = model.get_submodule("model.layers.0.mlp")
        assert isinstance(sparse, SparseFFN)
        ffn.up_proj.weight.data[:100] = float("nan")
        ffn.down_proj.weight_transposed.data[:100] = float("nan")
        torch.testing.assert_close(sparse(x), expected)
        assert sparse(x.expand(1, 9, 96)).isnan().all()


def bytes_held(model):
    """By all tensors that its modules hold, as parameters or otherwise; shared memory counts once."""
    storages = {}
    for module in model.modules():
        for value in [*vars(module).values(), *module._parameters.values(), *module._buffers.values()]:
            if isinstance(value, torch.Tensor):
                storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return sum(storages.values())


def test_weights_are_held_once():
    model = tiny("llama", "relu")
    before = bytes_held(model)
    use_sparse_ffns(model)
    assert bytes_held(model) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_prompts_give_what_the_dense_model_gives(dtype):
    dense = tiny("llama", "relu").to(dtype)
    prompt = torch.randint(2, 199, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = dense(prompt).logits
        use_sparse_ffns(dense)
        torch.testing.assert_close(dense(prompt).logits, expected)


def test_refuses_what_has_no_zeros_or_a_bias():
    with pytest.raises(UserError, match="no zeros to skip"):
        use_sparse_ffns(tiny("llama", "silu"))
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES, mlp_bias=True, hidden_act="relu"))
    with pytest.raises(UserError, match=r"model.layers.0.mlp.gate_proj has a bias"):
        use_sparse_ffns(model)


def test_a_refused_model_is_left_as_it_was():
    model = tiny("llama", "relu")
    last = gated_ffns(model)[-1].module
    last.up_proj = torch.nn.Sequential(last.up_proj)  # as an adapter would wrap it
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=r"layers.2.mlp.up_proj is a Sequential: a plain linear layer is needed"):
        use_sparse_ffns(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_takes_what_the_dense_module_takes():
    model = tiny("llama", "relu")
    dense = copy.deepcopy(model.model.layers[0].mlp)
    use_sparse_ffns(model)
    sparse = model.model.layers[0].mlp
    x = torch.randn(1, 96, 4, generator=torch.Generator().manual_seed(3)).transpose(1, 2)  # strided columns
    with torch.no_grad():
        torch.testing.assert_close(sparse(x), dense(x), rtol=1e-4, atol=1e-4)
        assert sparse(x[:, :0]).shape == (1, 0, 96)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(sparse(x), dense(x))
