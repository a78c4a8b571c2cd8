"""Two processes (gloo, CPUs) against one: the same losses, statistics and optimizer, whoever wrote the checkpoint."""

import functools
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from helpers.tiny_training import CONTEXT, ledger, write_data
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from prosparse.__main__ import main
from prosparse.experiment.activation import Activation
from prosparse.experiment.model import Architecture
from prosparse.experiment.specifications import StageSpecification
from prosparse.experiment.training import Stage, Training
from prosparse.models.load import load
from prosparse.system.errors import ConfigError, UserError
from prosparse.system.locking import Refused
from prosparse.training import distributed, stage
from prosparse.training.band import OutOfBand
from prosparse.training.callbacks import Diverged, LambdaCallback
from prosparse.training.job import StageJob
from prosparse.training.stage import OutOfTime, Stopped, train_stage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.accelerator.is_available(), reason="two processes of one GPU cannot meet by NCCL"),
]

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2, "kv_heads": 2}
LLAMA = Architecture(**SHAPE)
MINICPM = Architecture(
    **SHAPE, type="minicpm", tied_embeddings=False, scale_emb=4.0, scale_depth=1.4, dim_model_base=16
)
STAGES = [Stage(until=2), Stage(until=6, peak=0.5)]
STEERED = [Stage(until=2), Stage(until=6, target_sparsity=0.9)]
STEPS = STAGES[-1].until


def specification(stages=STAGES, start=LLAMA, share=0.0, activation="relu", **settings):
    settings = {
        "learning_rate": 1e-2, "batch_size": 4, "micro_batch_size": 2, "log_every": 1, "checkpoint_every": 2,
        "warmup_steps": 2, **settings,
    }  # fmt: skip
    return StageSpecification(
        seed=0, start=start, activation=Activation(name=activation), mixture={"a": 2.0, "b": 1.0},
        context_length=CONTEXT, stages=stages, total_steps=STEPS, training=Training(**settings),
        distillation_share=share,
    )  # fmt: skip


def run(root, spec, name, previous=None, **options):
    inputs = root / "tokens", root / "tokenizer", previous and root / previous
    train_stage(StageJob(spec, *inputs, root / name, **options))
    return root / name


def expected_error(error, root, spec, name, **options):
    """Run what must fail in this process, by that error; its text."""
    with pytest.raises(error) as caught:
        run(root, spec, name, **options)
    assert type(caught.value) is error
    return str(caught.value)


def untimed(row):
    return {key: value for key, value in row.items() if key != "tokens_per_second"}


def assert_same_course(found, expected):
    """Loss, mean |x1|, sparsity, lambda and learning rate of every step."""
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert untimed(one) == pytest.approx(untimed(other), rel=1e-4), one["step"]


def _process(rank, port, work, root):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    torch.set_num_threads(1)
    work(root)
    distributed.leave()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


@contextmanager
def two_processes(target, *arguments):
    """Two processes of ``target(rank, port, *arguments)``; none outlives the block, since pytest would wait for it."""
    port, context = free_port(), multiprocessing.get_context("fork")  # everything is imported already
    started = [context.Process(target=target, args=(rank, port, *arguments)) for rank in range(2)]
    for process in started:
        process.start()
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.join()


def in_two_processes(work, root):
    """Call ``work(root)`` in two processes that torchrun might have started; fails as soon as one fails."""
    with two_processes(_process, work, root) as started:
        running = {process.sentinel: process for process in started}
        while running:
            ended = multiprocessing.connection.wait(running, timeout=600)
            assert ended, "nothing ended within ten minutes"
            for process in [running.pop(each) for each in ended]:
                process.join()  # its sentinel is ready before its exit code
                if process.exitcode:
                    running.clear()
    assert [process.exitcode for process in started] == [0, 0]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("distributed"))


@pytest.fixture(scope="module")
def alone(root):
    """What one process makes: the reference of all others."""
    run(root, specification(micro_batch_size=4), "alone")
    run(root, specification(start=MINICPM, micro_batch_size=4), "minicpm alone")
    run(root, specification(share=0.5, micro_batch_size=4), "distilled alone", teacher=root / "alone")
    run(root, specification(activation="drelu", micro_batch_size=4), "drelu, one process")
    run(root, specification(STEERED, micro_batch_size=4), "steered, one process")
    with noted_dtypes(root / "bfloat16 alone.json"):
        run(root, specification(precision="bfloat16"), "bfloat16 alone")
    return root


@contextmanager
def noted_dtypes(path):
    """Write down the types of what each layer and norm is given, returns and has as weight, once per place."""
    seen = {}

    def note(module, inputs, output):
        if isinstance(module, (LlamaDecoderLayer, LlamaRMSNorm, torch.nn.Embedding, torch.nn.Linear)):
            kind = next(c.__name__ for c in type(module).__mro__ if not c.__name__.startswith("FSDP"))
            of_layer = isinstance(module, LlamaDecoderLayer)
            dtypes = inputs[0].dtype, output.dtype, None if of_layer else module.weight.dtype
            seen.setdefault(kind, set()).add(str(dtypes))

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        yield
    finally:
        hook.remove()
        path.write_text(json.dumps({kind: sorted(each) for kind, each in seen.items()}))


#: Runs of two processes, the run of one process that they must equal, and how.
EQUAL = {
    "DDP, accumulating": ("alone", {"micro_batch_size": 1}),
    "FSDP, accumulating": ("alone", {"micro_batch_size": 1, "fsdp": True}),
    "DDP, recomputing": ("alone", {"activation_checkpointing": True, "micro_batch_size": 1}),
    "FSDP, recomputing": ("alone", {"activation_checkpointing": True, "micro_batch_size": 1, "fsdp": True}),
    "DDP of MiniCPM": ("minicpm alone", {"start": MINICPM}),
    "FSDP of MiniCPM": ("minicpm alone", {"start": MINICPM, "fsdp": True}),
    "DDP, distilled": ("distilled alone", {"share": 0.5}),
    "FSDP, distilled": ("distilled alone", {"share": 0.5, "fsdp": True}),
    "DDP, steered": ("steered, one process", {"stages": STEERED, "micro_batch_size": 1}),
    "FSDP, steered": ("steered, one process", {"stages": STEERED, "fsdp": True}),
    "FSDP, compiled": ("alone", {"compile": True, "fsdp": True}),
    "FSDP, compiled, recomputing": ("alone", {"compile": True, "activation_checkpointing": True, "fsdp": True}),
    "FSDP, dReLU": (  # compiled and recomputing too
        "drelu, one process",
        {"activation": "drelu", "compile": True, "activation_checkpointing": True, "fsdp": True},
    ),
}


def _equal(root):
    # the tracing, without the minutes of a C++ compiler
    torch.nn.Module.compile = functools.partialmethod(torch.nn.Module.compile, backend="aot_eager")
    torch.compile = functools.partial(torch.compile, backend="aot_eager")
    for name, (_, settings) in EQUAL.items():
        run(root, specification(**settings), name, teacher=root / "alone" if "share" in settings else None)
    for way in ("FSDP", "DDP"):
        with noted_dtypes(root / f"{way}, bfloat16, {distributed.rank()}.json"):
            run(root, specification(precision="bfloat16", fsdp=way == "FSDP"), f"{way}, bfloat16")
    run(root, specification(precision="bfloat16", fsdp=True, activation_checkpointing=True), "FSDP, bfloat16, again")


@pytest.fixture(scope="module")
def together(alone):
    in_two_processes(_equal, alone)
    return alone


@pytest.mark.parametrize("name", EQUAL)
def test_two_processes_equal_one(together, name):
    assert_same_course(ledger(together / name), ledger(together / EQUAL[name][0]))
    record = json.loads((together / name / "provenance.json").read_text())
    assert (record["steps"], record["tokens"]) == (STEPS, STEPS * 4 * CONTEXT)
    parameters = sum(p.numel() for p in load(together / name).parameters())
    assert record["parameters"] == parameters


@pytest.mark.parametrize("name", ["FSDP, recomputing", "FSDP of MiniCPM", "DDP, accumulating", "FSDP, dReLU"])
def test_what_two_processes_write_has_the_form_of_what_one_writes(together, name):
    reference = together / EQUAL[name][0]
    assert (together / name / "config.json").read_text() == (reference / "config.json").read_text()
    weights, expected = (load_file(path / "model.safetensors") for path in (together / name, reference))
    assert weights.keys() == expected.keys()
    for key in expected:
        assert weights[key].dtype == torch.float32
        torch.testing.assert_close(weights[key], expected[key], rtol=1e-3, atol=1e-4)
    optimizer, wanted = (torch.load(path / "optimizer.pt", weights_only=True) for path in (together / name, reference))
    assert [group["params"] for group in optimizer["param_groups"]] == [g["params"] for g in wanted["param_groups"]]
    for index, moments in wanted["state"].items():
        torch.testing.assert_close(optimizer["state"][index], moments, rtol=1e-3, atol=1e-5)
    assert not (together / name / "resume").exists()
    assert not list((together / name).glob("*.bin"))


def test_fsdp_checkpoint_opens_in_stock_transformers(together):
    directory = together / "FSDP, accumulating"
    tokens = torch.arange(2, 2 + CONTEXT)[None] % 16
    logits = LlamaForCausalLM.from_pretrained(directory)(input_ids=tokens).logits
    torch.testing.assert_close(load(directory)(input_ids=tokens).logits, logits)
    assert AutoTokenizer.from_pretrained(directory).bos_token == "t0"


@pytest.mark.parametrize("way", ["FSDP", "DDP"])
@pytest.mark.parametrize("rank", range(2))
def test_bfloat16_is_the_same_arithmetic_on_any_number_of_processes(together, way, rank):
    """The residual stream, norms and embeddings in float32, products in bfloat16; and so the same course."""
    found = json.loads((together / f"{way}, bfloat16, {rank}.json").read_text())
    assert found == json.loads((together / "bfloat16 alone.json").read_text())
    assert found["LlamaDecoderLayer"] == [str((torch.float32, torch.float32, None))]
    assert found["LlamaRMSNorm"] == [str((torch.float32,) * 3)]
    assert_same_course(ledger(together / f"{way}, bfloat16"), ledger(together / "bfloat16 alone"))


def test_bfloat16_recomputing_is_the_same_arithmetic(together):
    assert_same_course(ledger(together / "FSDP, bfloat16, again"), ledger(together / "bfloat16 alone"))


def test_bfloat16_keeps_float32_weights_and_losses(together):
    found, expected = ledger(together / "FSDP, bfloat16"), ledger(together / "alone")
    for one, other in zip(found, expected, strict=True):
        assert one["lm_loss"] == pytest.approx(other["lm_loss"], abs=0.05)
        assert one["sparsity"] == pytest.approx(other["sparsity"], abs=0.03)
    losses = torch.tensor([row["lm_loss"] for row in found])
    assert not torch.equal(losses, losses.bfloat16().float())
    weights = load_file(together / "FSDP, bfloat16" / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert weights.dtype == torch.float32
    # updates far below bfloat16's resolution are kept
    assert not torch.equal(weights, weights.bfloat16().float())


# ------------------------------------------------------------------------ from one world to another

WAYS = {"DDP": {"micro_batch_size": 1}, "FSDP": {"micro_batch_size": 1, "fsdp": True}}


def _first_step(root):
    for way, settings in WAYS.items():
        text = expected_error(OutOfTime, root, specification(STAGES[:1], **settings), f"{way} 0", max_seconds=0)
        assert text == "saved at step 1 of 2: run the same command again to continue"


def _last_steps(root):
    for way, settings in WAYS.items():
        run(root, specification(**settings), f"{way} 1", previous=f"{way} 0")


@pytest.fixture(scope="module")
def handed_over(alone):
    """Stage 0: one step by two processes, the rest by one; stage 1: one step by one process, the rest by two."""
    in_two_processes(_first_step, alone)
    for way, settings in WAYS.items():
        run(alone, specification(STAGES[:1], **settings), f"{way} 0")
        with pytest.raises(OutOfTime, match="step 3 of 6"):
            run(alone, specification(**settings), f"{way} 1", previous=f"{way} 0", max_seconds=0)
        torn = alone / f"{way} 1" / "resume" / "checkpoint-4"  # its state file is missing: half written
        torn.mkdir()
        (torn / "model.safetensors").write_bytes(b"half")
    in_two_processes(_last_steps, alone)
    return alone


@pytest.mark.parametrize("way", WAYS)
def test_any_number_of_processes_continues(handed_over, way):
    course = ledger(handed_over / f"{way} 0") + ledger(handed_over / f"{way} 1")
    assert_same_course(course, ledger(handed_over / "alone"))


# ----------------------------------------------------------------------------------- what goes wrong


def _goes_wrong(root):
    first = distributed.is_first()
    text = expected_error(ConfigError, root, specification(micro_batch_size=4), "refused")
    assert text == "training.batch_size 4 is not a multiple of micro_batch_size 4 x 2 processes"

    # the folder is the first process's, its refusal everyone's
    expected_error(OutOfTime, root, specification(), "claimed", max_seconds=0)
    text = expected_error(Refused, root, specification(learning_rate=1.0), "claimed")
    assert "made from different inputs (specification.training." in text

    # one process cannot start
    def fail(*_):
        raise OSError("disk on fire")

    starting_model = stage._starting_model
    if not first:
        stage._starting_model = fail
    text = expected_error(UserError if first else OSError, root, specification(), "one fails")
    assert text == ("process 1 failed: OSError('disk on fire')" if first else "disk on fire")
    stage._starting_model = starting_model

    # SIGTERM reaches one process: both stop at the end of the same step
    begin = LambdaCallback.on_step_begin

    def interrupted(self, args, state, control, **given):
        begin(self, args, state, control, **given)
        if state.global_step == 2 and not distributed.is_first():
            os.kill(os.getpid(), signal.SIGTERM)

    LambdaCallback.on_step_begin = interrupted
    text = expected_error(Stopped, root, specification(), "interrupted")
    assert text == "saved at step 3 of 6: run the same command again to continue"
    LambdaCallback.on_step_begin = begin
    run(root, specification(), "interrupted")

    # the first process reads the ledger: sparsity has left its band in the middle, and both stop at the next step
    steady = specification([Stage(until=6, peak=0.5)])
    text = expected_error(OutOfBand, root, steady, "out of band", expected_sparsity=(0.0, 0.01))
    assert " in step 4, outside the stage's expected_sparsity, 0% to 1%" in text
    assert (root / "out of band/resume/checkpoint-5").exists()
    run(root, steady, "out of band", expected_sparsity=(0.0, 1.0))

    wild = specification(learning_rate=1e30, gradient_clip=1e30, warmup_steps=0)
    expected_error(Diverged, root, wild, "diverged")


def test_processes_fail_and_stop_together(alone):
    in_two_processes(_goes_wrong, alone)
    assert_same_course(ledger(alone / "interrupted"), ledger(alone / "alone"))


def _stopped(rank, port, arguments, texts):
    with open(texts[rank], "w") as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": "test",  # as torchrun sets it
    }  # fmt: skip
    sys.exit(main(arguments))


def test_command_line_says_once_why_it_stopped(root):
    """SIGTERM to both processes of a job, as a scheduler sends it: saved, exit status 143, one message."""
    spec = specification(checkpoint_every=1000).model_copy(update={"stages": [Stage(until=10**6)]})
    spec = spec.model_copy(update={"total_steps": 10**6, "mixture": {"a": 1.0}})
    arguments = [
        "step", "train-stage", "--specification", spec.model_dump_json(), "--tokens", str(root / "tokens"),
        "--tokenizer", str(root / "tokenizer" / "tokenizer.json"), "--output",
        str(root / "preempted" / "provenance.json"),
    ]  # fmt: skip
    texts = [root / f"said by {rank}" for rank in range(2)]
    book = root / "preempted" / "resume" / "ledger.csv"
    with two_processes(_stopped, arguments, texts) as started:
        deadline = time.time() + 300
        while time.time() < deadline and not (book.exists() and len(book.read_text().splitlines()) > 2):
            assert [process.exitcode for process in started] == [None, None]
            time.sleep(0.05)
        for process in started:
            process.terminate()
        for process in started:
            process.join(timeout=120)
    said = [text.read_text() for text in texts]
    assert [process.exitcode for process in started] == [143, 143], said
    assert "prosparse: error: saved at step" in said[0]
    assert "prosparse: error" not in said[1]
    (checkpoint,) = (Path(book.parent)).glob("checkpoint-*")
    assert f"saved at step {checkpoint.name.split('-')[1]} of" in said[0]
