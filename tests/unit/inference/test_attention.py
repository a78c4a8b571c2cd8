"""The attention operator against softmax in float64, and the cache against transformers' own."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache, LlamaConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import prosparse.operators  # noqa: F401 - registers the operator
from prosparse.inference import attention as inference_attention
from prosparse.inference.attention import IMPLEMENTATION, LEAST_CAPACITY, GrowingLayer, attend, cache

# a bfloat16 result is rounded once, at the end: half a unit in its last place
TOLERANCE = {torch.bfloat16: 2**-8, torch.float16: 2**-10, torch.float32: 2e-6}

TWO_LAYERS = SimpleNamespace(
    config=LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
)
native = pytest.mark.skipif(
    not hasattr(torch.ops.prosparse, "attention"), reason="the native CPU operators could not be built"
)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def softmax_attention(query, keys, values, scale):
    """In float64, a head at a time."""
    group = len(query) // len(keys)
    found = []
    for head, one in enumerate(query.double()):
        scores = scale * (keys[head // group].double() @ one)
        found.append(scores.softmax(0) @ values[head // group].double())
    return torch.stack(found)


def check(query, keys, values, scale=None):
    scale = query.shape[1] ** -0.5 if scale is None else scale
    ours = torch.ops.prosparse.attention(query, keys, values, scale)
    assert ours.dtype == query.dtype
    expected = softmax_attention(query, keys, values, scale)
    torch.testing.assert_close(ours.double(), expected, rtol=TOLERANCE[query.dtype], atol=TOLERANCE[query.dtype])
    return ours


@native
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "size"), [(4, 4, 64), (8, 2, 16), (6, 1, 33), (3, 3, 7), (2, 1, 1), (4, 2, 128), (1, 1, 65)]
)
def test_operator(dtype, heads, kv_heads, size):
    for length in (1, 2, 7, 8, 9, 31, 64, 100, 255, 300):
        query = normal(heads, size, seed=length, dtype=dtype)
        keys, values = (normal(kv_heads, length, size, seed=length + i, dtype=dtype) for i in (1, 2))
        check(query, keys, values)
        check(query, keys, values, scale=0.3)


@native
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_operator_takes_the_beginning_of_longer_keys_and_rows_of_wider_ones(dtype):
    query = normal(6, 2, 24, dtype=dtype)[:, 1]  # rows with a gap between
    room = normal(2, 90, 24, seed=1, dtype=dtype), normal(90, 2, 30, seed=2, dtype=dtype).transpose(0, 1)
    keys, values = room[0][:, :50], room[1][:, :50, 3:27]
    assert not keys.is_contiguous()
    found = check(query, keys, values)
    assert torch.equal(
        found,
        torch.ops.prosparse.attention(query.contiguous(), keys.contiguous(), values.contiguous(), 24**-0.5),
    )


@native
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_scores_of_any_size(dtype):
    query, keys, values = normal(4, 16, dtype=dtype), normal(2, 60, 16, seed=1, dtype=dtype), normal(2, 60, 16, seed=2)
    values = values.to(dtype)
    check(query, keys, values, scale=0.0)  # the plain mean
    check(query, keys, values, scale=1e-30)
    for scale in (1e4, -1e4, 1e30):  # one key has all the weight
        found = torch.ops.prosparse.attention(query, keys, values, scale)
        for head in range(4):
            scores = keys[head // 2].double() @ query[head].double() * (1 if scale > 0 else -1)
            torch.testing.assert_close(found[head], values[head // 2][scores.argmax()])
    large = torch.full((1, 16), 100.0, dtype=dtype), torch.full((1, 5, 16), -100.0, dtype=dtype)
    check(large[0], large[1], values[:1, :5], scale=1.0)  # every score is -160,000


@native
def test_the_largest_key_may_be_anywhere():
    """The running maximum changes at the first, a middle and the last key."""
    for length in (1, 5, 33, 130):
        for place in {0, length // 2, length - 1}:
            query, keys = torch.ones(1, 20), normal(1, length, 20, seed=3)
            keys[0, place] += 30
            check(query, keys, normal(1, length, 20, seed=4), scale=1.0)


@native
def test_any_number_of_threads_gives_the_same():
    query, keys, values = normal(16, 64), normal(4, 300, 64, seed=1), normal(4, 300, 64, seed=2)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3, 5):
            torch.set_num_threads(number)
            found.append(check(query, keys, values))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, found[0]) for one in found)


@native
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query": normal(1, 4, 8)}, "query must have 2 dimensions"),
        ({"query": normal(8, 4).t()}, "query must have contiguous rows"),
        ({"query": torch.ones(4, 8, dtype=torch.float64)}, "bfloat16, float16 and float32"),
        ({"query": normal(4, 8, dtype=torch.bfloat16)}, "keys and query must have the same dtype"),
        ({"keys": normal(5, 8)}, "keys must have 3 dimensions"),
        ({"keys": normal(2, 8, 5).transpose(1, 2)}, "keys must have 3 dimensions, the last contiguous"),
        ({"values": normal(2, 5, 8, dtype=torch.float16)}, "values and query must have the same dtype"),
        ({"values": normal(2, 5, 7)}, r"values.shape\[2\]"),
        ({"values": normal(1, 5, 8)}, r"values.shape\[0\]"),
        ({"values": normal(2, 6, 8)}, r"values.shape\[1\]"),
        ({"keys": normal(3, 5, 8), "values": normal(3, 5, 8)}, "not a multiple of the keys' 3"),
        ({"keys": normal(2, 0, 8), "values": normal(2, 0, 8)}, "no keys"),
    ],
)
def test_wrong_arguments(changed, message):
    arguments = {"query": normal(4, 8), "keys": normal(2, 5, 8), "values": normal(2, 5, 8), **changed}
    with pytest.raises(ValueError, match=message):
        torch.ops.prosparse.attention(**arguments, scale=1.0)


# --------------------------------------------------------------------- transformers' function

MODULE = SimpleNamespace(num_key_value_groups=2, is_causal=True, training=False)


def states(batch: int = 1, query_length: int = 1, length: int = 20):
    return (
        normal(batch, 4, query_length, 16),
        normal(batch, 2, length, 16, seed=1),
        normal(batch, 2, length, 16, seed=2),
    )


@pytest.fixture
def calls(monkeypatch):
    """How often torch's function computes the attention."""
    counted = []

    def count(*arguments, **options):
        counted.append(None)
        return sdpa_attention_forward(*arguments, **options)

    monkeypatch.setattr(inference_attention, "sdpa_attention_forward", count)
    return counted


@native
def test_one_token_without_a_mask_is_the_operators(calls):
    with torch.no_grad():
        ours, weights = attend(MODULE, *states(), None, scaling=0.3)
        assert weights is None
        torch.testing.assert_close(ours, sdpa_attention_forward(MODULE, *states(), None, scaling=0.3)[0])
        default = attend(MODULE, *states(), None)[0]
        torch.testing.assert_close(default, sdpa_attention_forward(MODULE, *states(), None)[0])
    assert not calls


def test_the_rest_is_torchs(calls):
    mask = torch.zeros(1, 1, 1, 20).masked_fill(torch.arange(20) < 5, float("-inf"))
    with torch.no_grad():
        for given, given_mask in (
            (states(), mask),
            (states(batch=3), None),
            (states(query_length=4), None),
            (states(batch=3), mask.expand(3, 1, 1, 20)),
        ):
            expected = sdpa_attention_forward(MODULE, *given, given_mask, scaling=0.3)[0]
            assert torch.equal(attend(MODULE, *given, given_mask, scaling=0.3)[0], expected)
    query, key, value = states()
    attend(MODULE, query.requires_grad_(), key, value, None, scaling=0.3)[0].sum().backward()
    assert query.grad.norm() > 0
    assert len(calls) == 5


# ---------------------------------------------------------------------------------- the cache


def tiny(tiny_llama, length: int = 64):
    model = tiny_llama().eval().requires_grad_(False)
    model.config.max_position_embeddings = length
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def prompt(batch: int = 1, length: int = 7) -> torch.Tensor:
    return torch.randint(64, (batch, length), generator=torch.Generator().manual_seed(1))


def options(**more):
    return {"do_sample": False, **more}


@pytest.mark.parametrize("implementation", ["sdpa", IMPLEMENTATION])
@pytest.mark.parametrize(
    ("batch", "more"), [(1, {}), (3, {}), (2, {"num_beams": 3}), (1, {"num_beams": 4, "num_return_sequences": 2})]
)
def test_generates_as_with_transformers_cache(tiny_llama, implementation, batch, more):
    model = tiny(tiny_llama)
    expected = model.generate(prompt(batch), **options(max_new_tokens=30, past_key_values=DynamicCache(), **more))
    model.set_attn_implementation(implementation)
    ours = model.generate(prompt(batch), **options(max_new_tokens=30, past_key_values=cache(model), **more))
    assert torch.equal(ours, expected)


def test_grows_past_its_capacity(tiny_llama):
    model = tiny(tiny_llama, 4 * LEAST_CAPACITY)
    ours = cache(model)
    expected = model.generate(prompt(), **options(max_new_tokens=LEAST_CAPACITY + 30))
    assert torch.equal(
        model.generate(prompt(), **options(max_new_tokens=LEAST_CAPACITY + 30, past_key_values=ours)), expected
    )
    assert ours.get_seq_length() == 7 + LEAST_CAPACITY + 30 - 1


def test_several_turns_with_one_cache(tiny_llama):
    model, found = tiny(tiny_llama), []
    for past in (DynamicCache(), cache(model)):
        ids = prompt()
        for turn in range(3):
            ids = model.generate(ids, **options(max_new_tokens=6, past_key_values=past))
            ids = torch.cat([ids, prompt(length=4) + turn], dim=1)  # what the user says next
        found.append(ids)
    assert torch.equal(*found)


def both() -> tuple[GrowingLayer, DynamicCache]:
    return cache(TWO_LAYERS), DynamicCache()


def update(pair, batch: int, length: int, seed: int):
    """All keys and values of ours, checked against transformers'."""
    fresh = normal(batch, 2, length, 8, seed=seed), normal(batch, 2, length, 6, seed=seed + 1)
    ours, theirs = (past.update(*(state.clone() for state in fresh), 0) for past in pair)
    for our, their in zip(ours, theirs, strict=True):
        assert torch.equal(our, their)
    assert pair[0].get_seq_length() == pair[1].get_seq_length() == ours[0].shape[-2]
    return ours


@pytest.mark.parametrize("length", [LEAST_CAPACITY - 1, LEAST_CAPACITY, LEAST_CAPACITY + 1, 3 * LEAST_CAPACITY])
def test_keys_and_values_are_those_of_transformers(length):
    pair = both()
    update(pair, 2, length, 0)
    for step in range(5):
        update(pair, 2, 1, 10 * step)
    update(pair, 2, 2 * LEAST_CAPACITY, 100)


def test_a_token_copies_nothing_but_its_own():
    pair = both()
    keys, _ = update(pair, 1, 10, 0)
    places = {update(pair, 1, 1, step)[0].data_ptr() for step in range(1, 200)}
    assert places == {keys.data_ptr()}


@pytest.mark.parametrize("change", [-3, -11, 0])
def test_crop(change):
    pair = both()
    update(pair, 2, 12, 0)
    for past in pair:
        past.crop(change)
    for step in range(4):
        update(pair, 2, 1, 10 + step)


@pytest.mark.parametrize(
    ("change", "batch"),
    [
        (lambda past: past.reorder_cache(torch.tensor([2, 2, 0])), 3),
        (lambda past: past.batch_select_indices(torch.tensor([1])), 1),
        (lambda past: past.batch_repeat_interleave(2), 6),
    ],
)
def test_selection_of_the_batch(change, batch):
    pair = both()
    update(pair, 3, 12, 0)
    for past in pair:
        change(past)
    for step in range(4):
        update(pair, batch, 1, 10 + step)


def test_a_copy_goes_on_by_itself():
    pair = both()
    update(pair, 1, 12, 0)
    copies = tuple(copy.deepcopy(past) for past in pair)
    update(pair, 1, 1, 10)
    update(copies, 1, 2, 20)
    update(pair, 1, 3, 30)
    update(copies, 1, 1, 40)


def test_layers_are_apart():
    past = cache(TWO_LAYERS)
    first = past.update(normal(1, 2, 3, 8), normal(1, 2, 3, 8), 0)
    second = past.update(normal(1, 2, 3, 8, seed=1), normal(1, 2, 3, 8, seed=1), 1)
    assert not torch.equal(first[0], second[0])
    assert [type(layer) for layer in past.layers] == [GrowingLayer] * 2
