"""Stages, resumption and the ledger, on a tiny model and repetitive text."""

import json
import math

import pytest
import torch
from helpers.faults import kill_once
from helpers.repository import ROOT
from helpers.tiny_training import CONTEXT, STAGES, ledger, specification, weights
from torch._dynamo.utils import counters
from transformers import LlamaForCausalLM

from prosparse.experiment.training import Draw, Stage
from prosparse.models.load import load
from prosparse.system import devices
from prosparse.system.locking import Refused
from prosparse.training.callbacks import Diverged
from prosparse.training.job import StageJob
from prosparse.training.stage import OutOfTime, train_stage


def run(data, spec, output, previous=None, **kwargs):
    train_stage(StageJob(spec, data / "tokens", data / "tokenizer", previous, output, **kwargs))
    return output


def assert_same_weights(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def staged(data, tmp_path_factory):
    """The three stages, each a call of its own."""
    root = tmp_path_factory.mktemp("staged")
    previous = None
    for index in range(len(STAGES)):
        previous = run(data, specification(STAGES[: index + 1]), root / f"stage{index}", previous)
    return root


def test_staged_equals_unstaged_bit_for_bit(data, staged, tmp_path):
    whole = specification(STAGES)
    assert_same_weights(run(data, whole, tmp_path / "whole"), staged / "stage2")


def test_an_optimizer_state_goes_when_every_stage_that_continues_it_is_finished(data, staged, tmp_path):
    first = run(data, specification(STAGES[:1]), tmp_path / "first")
    other = [STAGES[0], Stage(until=12), STAGES[2]]
    second, third = tmp_path / "second", tmp_path / "third"
    ends = {"continuations": (second / "provenance.json", third / "provenance.json")}
    run(data, specification(STAGES[:2]), second, first, **ends)
    assert (first / "optimizer.pt").exists()  # the other stage needs it
    run(data, specification(other[:2]), third, first, **ends)
    assert not (first / "optimizer.pt").exists()
    assert_same_weights(second, staged / "stage1")
    assert_same_weights(first, staged / "stage0")
    # finished stages stay finished, and no stage goes on without the state
    run(data, specification(STAGES[:2]), second, first, **ends)
    with pytest.raises(Refused, match=r"first has no optimizer state to continue from.*delete the folder"):
        run(data, specification(STAGES[:2]), tmp_path / "again", first)


FAST = {"precision": "bfloat16", "compile": True, "attention": "eager"}


@pytest.mark.slow
@pytest.mark.commands("c++")
def test_bfloat16_compiled_stages_equal_unstaged_and_stay_near_float32(data, tmp_path):
    stages, total = [Stage(until=4), Stage(until=8, shape="sine", peak=2.0)], 8
    counters.clear()
    first = run(data, specification(stages[:1], total, **FAST), tmp_path / "stage0")
    run(data, specification(stages, total, **FAST), tmp_path / "stage1", first)
    assert_same_weights(run(data, specification(stages, total, **FAST), tmp_path / "whole"), tmp_path / "stage1")
    assert counters["aot_autograd"]["autograd_cache_hit"]
    assert not counters["aot_autograd"]["autograd_cache_bypass"], "every stage would trace its layers anew"
    plain = run(data, specification(stages, total), tmp_path / "plain")
    for fast, slow in zip(ledger(tmp_path / "whole"), ledger(plain), strict=True):
        assert fast["lm_loss"] == pytest.approx(slow["lm_loss"], abs=0.15)
        assert fast["l1"] == pytest.approx(slow["l1"], rel=0.1)
        assert fast["sparsity"] == pytest.approx(slow["sparsity"], abs=0.05)


def test_bfloat16_stopped_at_every_step_equals_uninterrupted(data, tmp_path):
    """The draws that round the L1 term belong to the step, not to the process."""
    spec = specification([Stage(until=5, peak=0.5)], total=5, precision="bfloat16")
    run(data, spec, tmp_path / "whole")
    for step in range(1, 5):
        with pytest.raises(OutOfTime, match=f"step {step} of 5"):
            run(data, spec, tmp_path / "stopped", max_seconds=0)
    assert_same_weights(run(data, spec, tmp_path / "stopped"), tmp_path / "whole")


def test_a_start_that_is_not_trained_is_kept_as_it_is(data, staged, tmp_path):
    spec = specification([Stage(until=0)], total=0).model_copy(update={"start": None})
    untouched = run(data, spec, tmp_path / "untouched", previous=staged / "stage2")
    assert_same_weights(untouched, staged / "stage2")
    assert ledger(untouched) == []
    record = json.loads((untouched / "provenance.json").read_text())
    assert (record["steps"], record["tokens"], record["final"]["lm_loss"]) == (0, 0, None)
    assert load(untouched).config.hidden_act == "relu"


def test_distillation_reports_the_divergence_from_the_teacher(data, staged, tmp_path):
    """Share 1 and frozen weights: the ledger's loss is KL(teacher || student) of transformers' own logits."""
    from prosparse.data.mixture import Mixture

    spec = specification([Stage(until=1)], total=1, learning_rate=1e-30, log_every=1)
    spec = spec.model_copy(update={"distillation_share": 1.0})
    student = run(data, spec, tmp_path / "student", teacher=staged / "stage2")
    batch = Mixture.load(data / "tokens", spec.mixture, 4, 0)
    tokens = torch.stack([batch[i]["input_ids"] for i in range(4)])
    logits = [
        load(path)(input_ids=tokens).logits[:, :-1].double().log_softmax(-1) for path in (student, staged / "stage2")
    ]
    expected = (logits[1].exp() * (logits[1] - logits[0])).sum(-1).mean().item()
    assert ledger(student)[0]["lm_loss"] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(Refused, match="needs a teacher"):
        run(data, spec, tmp_path / "alone")


def test_checkpoint_is_ordinary_and_complete(staged):
    model = LlamaForCausalLM.from_pretrained(staged / "stage2")  # the stock loader
    assert model.config.hidden_act == "relu"
    record = json.loads((staged / "stage2" / "provenance.json").read_text())
    assert (record["stage"], record["steps"], record["tokens"]) == (2, 20, 20 * 4 * CONTEXT)
    assert record["provenance"]["packages"]["torch"].startswith(torch.__version__.split("+")[0])
    assert not (staged / "stage2" / "resume").exists()
    assert not list((staged / "stage2").glob("*.bin"))  # no pickles to trust


def test_ledger_against_a_recomputation(data, staged):
    from prosparse.data.mixture import Mixture

    rows = ledger(staged / "stage1")
    assert [r["step"] for r in rows] == [8, 10]  # its own steps only
    assert [r["lambda"] for r in rows] == [0.5, 0.5]
    # at constant weights (learning rate about 0) every step's statistics are those of the initial model
    spec = specification([Stage(until=2, peak=0.7)], total=2, learning_rate=1e-30, log_every=1)
    frozen = run(data, spec, staged / "frozen")
    batch = Mixture.load(data / "tokens", spec.mixture, 8, 0)
    model, x1 = load(frozen), []
    for layer in model.model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(lambda m, inputs: x1.append(inputs[0]))
    for step, row in enumerate(ledger(frozen)):
        tokens = torch.stack([batch[4 * step + i]["input_ids"] for i in range(4)])
        x1.clear()
        loss = model(input_ids=tokens, labels=tokens).loss.item()
        assert row["lm_loss"] == pytest.approx(loss, rel=1e-5)
        assert row["l1"] == pytest.approx(sum(x.abs().mean().item() for x in x1), rel=1e-5)
        assert row["sparsity"] == pytest.approx(sum((x == 0).float().mean().item() for x in x1) / len(x1), abs=1e-6)
        assert row["l_reg_ratio"] == pytest.approx(0.7 * row["l1"] / row["lm_loss"], rel=1e-5)


def test_a_later_run_sees_later_samples(data, tmp_path):
    """Two steps from the start, then two more as a run of its own, see the four steps' samples in order."""
    still = {"learning_rate": 1e-30, "log_every": 1}
    whole = run(data, specification([Stage(until=4)], total=4, **still), tmp_path / "whole")
    later = specification([Stage(until=2)], total=2, **still)
    later = later.model_copy(update={"earlier": (Draw(mixture=later.mixture, samples=2 * 4),)})
    losses = [row["lm_loss"] for row in ledger(whole)][2:]
    assert [row["lm_loss"] for row in ledger(run(data, later, tmp_path / "later"))] == pytest.approx(losses, rel=1e-6)


def test_a_second_epoch_is_announced_and_in_the_ledger(data, tmp_path, capfd):
    """40 samples of a corpus of 64 rows, 50 of which earlier runs have read."""
    spec = specification([Stage(until=10)], total=10, log_every=1)
    earlier = Draw(mixture={"a": 1.0}, samples=50), Draw(mixture={"b": 1.0}, samples=90)
    spec = spec.model_copy(update={"mixture": {"a": 1.0}, "earlier": earlier})
    directory = run(data, spec, tmp_path / "stage")
    assert "warning: corpus a is exhausted: 26 samples of this run repeat" in capfd.readouterr().out
    rows = ledger(directory)
    assert [row["epoch"] for row in rows] == [1, 1, 1, 2, 2, 2, 2, 2, 2, 2]  # 50 + 4 * step rows of 64
    assert json.loads((directory / "provenance.json").read_text())["final"]["epochs"] == {"a": (50 + 40) / 64}


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_that_is_emulated_is_announced(data, tmp_path, capfd, monkeypatch, fast):
    monkeypatch.setattr(devices, "fast_in_bfloat16", lambda: fast)
    run(data, specification([Stage(until=1)], total=1, precision="bfloat16"), tmp_path / "stage")
    assert ("float32 can be ten times as fast" in capfd.readouterr().out) == (not fast)


def test_fresh_data_is_trained_on_without_a_warning(data, tmp_path, capfd):
    directory = run(data, specification([Stage(until=2)], total=2), tmp_path / "stage")
    assert "warning" not in capfd.readouterr().out
    assert {row["epoch"] for row in ledger(directory)} == {1}


def test_regularization_makes_it_sparser(staged, data, tmp_path):
    plain = run(data, specification([Stage(until=20)]), tmp_path / "plain")
    assert ledger(staged / "stage2")[-1]["sparsity"] > ledger(plain)[-1]["sparsity"] + 0.05


@pytest.mark.parametrize("kill_after", [4, 7, 13])
def test_kill_9_and_rerun_equals_uninterrupted(data, staged, tmp_path, kill_after):
    output = tmp_path / "killed"
    book = output / "resume" / "ledger.csv"
    kill_once(
        lambda: book.exists() and len(book.read_text().splitlines()) > 1 + kill_after // 2,
        lambda: run(data, specification(STAGES), output),
    )
    assert not (output / "provenance.json").exists()
    run(data, specification(STAGES), output)
    assert_same_weights(output, staged / "stage2")
    assert [r["step"] for r in ledger(output)] == [1, *range(2, 21, 2)]


def test_half_written_checkpoint_is_not_trusted(data, staged, tmp_path):
    output = tmp_path / "torn"
    with pytest.raises(OutOfTime):
        run(data, specification(STAGES), output, max_seconds=0)
    torn = output / "resume" / "checkpoint-9"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    (torn / "trainer_state.json").write_text('{"global_step": 9')
    run(data, specification(STAGES), output)
    assert_same_weights(output, staged / "stage2")


def test_time_budget_stops_saves_and_continues(data, tmp_path):
    """One step per call, of three stages."""
    stages, total = [Stage(until=2), Stage(until=5, peak=0.5), Stage(until=8, shape="sine", peak=2.0)], 8
    output = tmp_path / "budget"
    for step in range(1, total):
        with pytest.raises(OutOfTime, match=f"step {step} of {total}"):
            run(data, specification(stages, total), output, max_seconds=0)
    run(data, specification(stages, total), output, max_seconds=0)
    assert_same_weights(output, run(data, specification(stages, total), tmp_path / "whole"))


def test_refuses_another_configs_progress(data, tmp_path):
    with pytest.raises(OutOfTime):
        run(data, specification(STAGES), tmp_path / "x", max_seconds=0)
    with pytest.raises(Refused, match=r"training.learning_rate is 0.001, was 0.01"):
        run(data, specification(STAGES, learning_rate=1e-3), tmp_path / "x")


def test_refuses_a_second_trainer(data, tmp_path):
    import fcntl

    (tmp_path / "x" / "resume").mkdir(parents=True)
    with open(tmp_path / "x" / "resume" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="another process"):
            run(data, specification(STAGES), tmp_path / "x")


def test_refuses_a_full_disk(data, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(Refused, match="GB free"):
        run(data, specification(STAGES), tmp_path / "x")


def test_divergence_is_an_error_not_a_number(data, tmp_path):
    spec = specification([Stage(until=20)], learning_rate=1e30, gradient_clip=1e30, warmup_steps=0)
    with pytest.raises(Diverged, match=r"loss is (nan|inf)"):
        run(data, spec, tmp_path / "x")


def test_golden_losses_of_20_steps(data, tmp_path):
    """Numerics are a contract: a change here is a change of every result."""
    torch.set_num_threads(1)
    rows = ledger(run(data, specification(STAGES, log_every=1), tmp_path / "golden"))
    golden = json.loads((ROOT / "tests" / "helpers" / "golden_losses.json").read_text())
    assert [r["lm_loss"] for r in rows] == pytest.approx(golden["lm_loss"], rel=2e-3)
    assert [r["sparsity"] for r in rows] == pytest.approx(golden["sparsity"], abs=5e-3)


def test_wsd_keeps_the_rate_then_decays_it_across_stages(data, tmp_path):
    """Warm-up over 2 of 12 steps, constant, then 1 - sqrt over the last 6: the formula at the steps that the ledger
    logs; the second stage ends in the middle of the decay."""
    stages, previous = [Stage(until=4), Stage(until=8, peak=0.5), Stage(until=12, peak=0.5)], None
    training = {"schedule": "wsd", "decay_share": 0.5, "log_every": 1, "warmup_steps": 2}
    rates = []
    for index in range(len(stages)):
        previous = run(data, specification(stages[: index + 1], 12, **training), tmp_path / f"{index}", previous)
        rates += [row["learning_rate"] for row in ledger(previous)]
    expected = [0, 0.5, *[1] * 4, *(1 - math.sqrt(step / 6) for step in range(6))]
    assert rates == pytest.approx([1e-2 * share for share in expected])
