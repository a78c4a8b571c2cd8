"""The L1 gradient against autograd on the written-out objective, in float64."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from prosparse.config import Activation
from prosparse.method.activations import gated_ffns, substitute
from prosparse.method.regularization import SparsityRegularization

FACTOR = 0.3
TOKENS = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(1))


def relu_model(tiny_llama):
    model = tiny_llama("silu", dtype=torch.float64)
    substitute(model, Activation(name="relu"))
    return model


def written_out(model, tokens):
    """LM loss + lambda * sum over layers of mean |x1|, with x1 kept by hooks and plain autograd."""
    x1 = []
    hooks = [f.down_proj.register_forward_pre_hook(lambda m, i: x1.append(i[0])) for f in gated_ffns(model)]
    lm_loss = model(input_ids=tokens, labels=tokens).loss
    (lm_loss + FACTOR * sum(x.abs().mean() for x in x1)).backward()
    for hook in hooks:
        hook.remove()
    l1 = [x.abs().mean().item() for x in x1]
    sparsity = [(x == 0).double().mean().item() for x in x1]
    return {name: p.grad.clone() for name, p in model.named_parameters()}, l1, sparsity


def assert_equal_gradients(found, expected, tolerance=1e-12):
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-9, atol=tolerance), name


def gradients(model):
    return {name.removeprefix("_orig_mod."): p.grad for name, p in model.named_parameters()}


def test_gradient_and_statistics(tiny_llama):
    model = relu_model(tiny_llama)
    expected, l1, sparsity = written_out(copy.deepcopy(model), TOKENS)
    regularization = SparsityRegularization(model)
    regularization.factor, regularization.measuring = FACTOR, True
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    assert_equal_gradients(gradients(model), expected)
    found_l1, found_sparsity = regularization.measured()
    assert found_l1 == pytest.approx(l1, rel=1e-6)
    assert found_sparsity == pytest.approx(sparsity, abs=1e-7)


def test_loss_and_logits_are_untouched(tiny_llama):
    model = relu_model(tiny_llama)
    before = model(input_ids=TOKENS, labels=TOKENS)
    SparsityRegularization(model).factor = FACTOR
    after = model(input_ids=TOKENS, labels=TOKENS)
    assert torch.equal(before.logits, after.logits)
    assert before.loss == after.loss


def test_factor_zero_is_the_plain_gradient_and_detach_restores_it(tiny_llama):
    model = relu_model(tiny_llama)
    plain = copy.deepcopy(model)
    plain(input_ids=TOKENS, labels=TOKENS).loss.backward()
    regularization = SparsityRegularization(model)
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    assert_equal_gradients(gradients(model), gradients(plain), 0)
    regularization.factor = FACTOR
    regularization.detach()
    model.zero_grad()
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    assert_equal_gradients(gradients(model), gradients(plain), 0)


def test_under_gradient_accumulation(tiny_llama):
    model = relu_model(tiny_llama)
    expected, l1, sparsity = written_out(copy.deepcopy(model), TOKENS)
    regularization = SparsityRegularization(model, accumulation_steps=2)
    regularization.factor, regularization.measuring = FACTOR, True
    for half in TOKENS.split(2):
        (model(input_ids=half, labels=half).loss / 2).backward()
    assert_equal_gradients(gradients(model), expected)
    found_l1, found_sparsity = regularization.measured()
    assert found_l1 == pytest.approx(l1, rel=1e-6)
    assert found_sparsity == pytest.approx(sparsity, abs=1e-7)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_under_activation_checkpointing(tiny_llama, use_reentrant):
    model = relu_model(tiny_llama)
    expected, l1, sparsity = written_out(copy.deepcopy(model), TOKENS)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    model.train()
    regularization = SparsityRegularization(model)
    regularization.factor, regularization.measuring = FACTOR, True
    model(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss.backward()
    assert_equal_gradients(gradients(model), expected)
    found_l1, found_sparsity = regularization.measured()
    assert found_l1 == pytest.approx(l1, rel=1e-6)  # counted once, although run twice
    assert found_sparsity == pytest.approx(sparsity, abs=1e-7)


def test_under_torch_compile_with_a_changing_factor(tiny_llama):
    model = relu_model(tiny_llama)
    expected, l1, _ = written_out(copy.deepcopy(model), TOKENS)
    regularization = SparsityRegularization(model)
    regularization.measuring = True
    compiled = torch.compile(model, backend="aot_eager")  # the tracing, without a C++ compiler
    for value in (0.1, FACTOR):
        model.zero_grad()
        regularization.measured()
        regularization.factor = value
        compiled(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss.backward()
    assert_equal_gradients(gradients(model), expected)
    assert regularization.measured()[0] == pytest.approx(l1, rel=1e-6)


def _distributed(rank, path, model, queue):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    regularization = SparsityRegularization(model)
    regularization.factor = FACTOR
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    mine = TOKENS[2 * rank : 2 * rank + 2]
    wrapped(input_ids=mine, labels=mine).loss.backward()
    if rank == 0:
        queue.put({name: p.grad.numpy() for name, p in model.named_parameters()})
    dist.barrier()
    dist.destroy_process_group()


def test_under_two_process_ddp(tiny_llama, tmp_path):
    model = relu_model(tiny_llama)
    expected, _, _ = written_out(copy.deepcopy(model), TOKENS)
    context = mp.get_context("spawn")
    queue = context.Queue()
    processes = [
        context.Process(target=_distributed, args=(rank, tmp_path / "store", model, queue)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    found = {name: torch.from_numpy(g) for name, g in queue.get(timeout=120).items()}
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0]
    assert_equal_gradients(found, expected)
