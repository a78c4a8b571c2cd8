"""The L1 gradient against autograd on the written-out objective, in float64."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from prosparse.experiment.activation import Activation
from prosparse.method.activations import gated_ffns, substitute
from prosparse.method.regularization import SparsityRegularization, _L1Gradient

FACTOR = 0.3
TOKENS = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(1))


def relu_model(tiny_llama, activation="relu"):
    model = tiny_llama("silu", dtype=torch.float64)
    substitute(model, Activation(name=activation))
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


X1 = {
    "relu2": lambda gate, up: gate.clamp(min=0) ** 2 * up,
    "drelu": lambda gate, up: gate.clamp(min=0) * up.clamp(min=0),
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("activation", X1)
def test_gradient_of_other_activations(tiny_llama, activation, checkpointing):
    """Against the FFN written out, in a model that was never substituted."""
    model, plain, x1 = tiny_llama(dtype=torch.float64), tiny_llama(dtype=torch.float64), []

    def written_out_ffn(mlp):
        def forward(x):
            x1.append(X1[activation](x @ mlp.gate_proj.weight.T, x @ mlp.up_proj.weight.T))
            return x1[-1] @ mlp.down_proj.weight.T

        return forward

    for layer in plain.model.layers:
        layer.mlp.forward = written_out_ffn(layer.mlp)
    (plain(input_ids=TOKENS, labels=TOKENS).loss + FACTOR * sum(x.abs().mean() for x in x1)).backward()
    substitute(model, Activation(name=activation))
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
        model.train()
    regularization = SparsityRegularization(model)
    regularization.factor, regularization.measuring = FACTOR, True
    model(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss.backward()
    assert_equal_gradients(gradients(model), gradients(plain))
    found_l1, found_sparsity = regularization.measured()
    assert found_l1 == pytest.approx([x.abs().mean().item() for x in x1], rel=1e-6)
    assert found_sparsity == pytest.approx([(x == 0).double().mean().item() for x in x1], abs=1e-7)


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


@pytest.mark.parametrize("activation", ["relu", "relu2", "drelu"])
def test_under_torch_compile_with_a_changing_factor(tiny_llama, activation):
    model = relu_model(tiny_llama, activation)
    expected, l1, _ = written_out(copy.deepcopy(model), TOKENS)
    regularization = SparsityRegularization(model)
    regularization.measuring = True
    compiled = torch.compile(model, backend="aot_eager")  # the tracing, without a C++ compiler
    for value in (0.1, FACTOR):
        model.zero_grad()
        regularization.step, regularization.factor = 2, value  # a new step forgets the last one's measurement
        compiled(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss.backward()
    assert_equal_gradients(gradients(model), expected)
    assert regularization.measured()[0] == pytest.approx(l1, rel=1e-6)


# ------------------------------------------------------------------------------------------------ 16 bits


class Block(torch.nn.Module):
    """A gated FFN whose input ``x1`` of down_proj is kept, so that its gradient can be read."""

    def __init__(self, features=8, neurons=256, dtype=torch.bfloat16):
        super().__init__()
        self.gate_proj, self.up_proj = (torch.nn.Linear(features, neurons, dtype=dtype) for _ in range(2))
        self.down_proj = torch.nn.Linear(neurons, features, dtype=dtype)
        self.act_fn = torch.nn.ReLU()

    def forward(self, x):
        self.x1 = self.act_fn(self.gate_proj(x)) * self.up_proj(x)
        if not torch.compiler.is_compiling():
            self.x1.retain_grad()
        return self.down_proj(self.x1)


def increments(dtype, steps=1, micro_batches=1, rank=0, world_size=1, seed=0, tokens=64, first_token=0):
    """The change of x1's gradient (a normal variable times 1e-5) at each step and micro-batch, and sign(x1)."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(Block(dtype=dtype))
    inputs = torch.randn(128, 8).to(dtype)[first_token : first_token + tokens]
    outward = (1e-5 * torch.randn(128, 8)).to(dtype)[first_token : first_token + tokens]
    (model(inputs) * outward).sum().backward()
    plain = model[0].x1.grad.double()
    regularization = SparsityRegularization(model, micro_batches, seed=seed, rank=rank, world_size=world_size)
    found = []
    for step in range(1, steps + 1):
        regularization.step, regularization.factor = step, 4.5e-7 * plain.numel() * micro_batches
        for _ in range(micro_batches):
            (model(inputs) * outward).sum().backward()
            found.append(model[0].x1.grad.double() - plain)
    return torch.stack(found), model[0].x1.detach().sign().double()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_the_increment_has_the_right_mean(dtype):
    found, signs = increments(dtype, steps=40, micro_batches=2)
    active = signs != 0
    mean = (found * signs)[:, active].mean().item()
    assert mean == pytest.approx(4.5e-7, rel=0.02)
    assert (found[:, ~active] == 0).all()
    # no step and no micro-batch repeats the draws of another
    assert len({tuple(each[active].tolist()) for each in found}) == len(found)


def test_in_float32_the_increment_is_what_it_always_was():
    torch.manual_seed(0)
    x1, gradient, scale = torch.randn(32, 64, requires_grad=True), torch.randn(32, 64), torch.tensor(1e-3).double()
    key = torch.tensor(0)
    _L1Gradient.apply(x1, scale, key, key, None).backward(gradient)
    assert torch.equal(x1.grad, torch.addcmul(gradient, x1.sign(), scale.float()))


def test_a_token_keeps_its_draws_whoever_has_it():
    """One process with two micro-batches, two processes with one each, one process with both at once."""
    both, _ = increments(torch.bfloat16, tokens=128)
    parts = [increments(torch.bfloat16, rank=rank, world_size=2, first_token=64 * rank)[0][0] for rank in range(2)]
    assert torch.equal(torch.cat(parts), both[0])
    again, _ = increments(torch.bfloat16, rank=1, world_size=2, first_token=64)
    assert torch.equal(again[0], parts[1])  # reproducible
    assert not torch.equal(increments(torch.bfloat16, rank=1, world_size=2)[0][0], parts[0])  # same tokens, other place
    assert not torch.equal(increments(torch.bfloat16, seed=1, tokens=128)[0], both)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_in_16_bits_under_activation_checkpointing(tiny_llama, use_reentrant):
    plain = relu_model(tiny_llama).bfloat16()
    again = copy.deepcopy(plain)
    again.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    again.enable_input_require_grads()
    for model in (plain, again):
        model.train()
        regularization = SparsityRegularization(model)
        for regularization.step in (1, 2):
            regularization.factor = FACTOR
            for half in TOKENS.split(2):
                model(input_ids=half, labels=half, use_cache=False).loss.backward()
    assert_equal_gradients(gradients(again), gradients(plain), 0)


def test_in_16_bits_under_torch_compile():
    torch.manual_seed(0)
    plain = torch.nn.Sequential(Block(), Block())
    compiled, inputs = copy.deepcopy(plain), torch.randn(64, 8).bfloat16()
    for model in (plain, compiled):
        if model is compiled:
            for block in model:
                block.compile(backend="aot_eager")
        regularization = SparsityRegularization(model, accumulation_steps=2)
        for regularization.step in (1, 2):
            regularization.factor = 0.1 * regularization.step
            for half in inputs.split(32):
                (1e-3 * model(half)).sum().backward()
    assert_equal_gradients(gradients(compiled), gradients(plain), 0)


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
    context = mp.get_context("fork")  # everything is imported already
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
