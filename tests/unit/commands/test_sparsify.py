"""``prosparse sparsify`` from start to end on a toy corpus, and the rules behind its defaults."""

import dataclasses
import json
import re
import shutil
from itertools import pairwise

import pytest
import torch
from helpers.checkpoint import make_checkpoint
from safetensors.torch import load_file
from scipy import stats
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from prosparse.__main__ import main
from prosparse.commands import defaults, sparsify_report
from prosparse.commands import train as commands_train
from prosparse.commands.defaults import Settings
from prosparse.commands.text import hold_out
from prosparse.experiment.activation import Activation
from prosparse.experiment.recipe import read as read_recipe
from prosparse.measure.threshold_shifting import THRESHOLDS, largest_threshold
from prosparse.method.activations import substitute
from prosparse.system.errors import ConfigError
from prosparse.training.stage import OutOfTime

LENGTH = 32
OPTIONS = ["--context-length", str(LENGTH), "--learning-rate", "3e-3", "--batch-size", "4", "--tokens", "15360"]


def write_inputs(root):
    make_checkpoint(root / "model", positions=64)
    for name in ("one", "two"):
        text = "".join(f"{name}, sentence {index}: not one before. " for index in range(300))
        (root / f"{name}.txt").write_text(text)
    return root


def sparsify(root, *more, output="sparse", target="0.9"):
    command = ["sparsify", str(root / "model"), "--target-sparsity", target, "--text", str(root / "*.txt")]
    return main([*command, "--output", str(root / output), *OPTIONS, *more])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = write_inputs(tmp_path_factory.mktemp("sparsify"))
    assert sparsify(root) == 0
    return root


@pytest.fixture
def own(made, tmp_path):
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def snapshot(directory):
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file() and path.name != "lock"}


def test_the_target_is_met_on_text_that_training_did_not_see(made):
    found = summary(made / "sparse")
    assert found["sparse"]["sparsity"] == pytest.approx(0.9, abs=0.02)
    assert found["original"]["sparsity"] == 0
    assert found["control"]["sparsity"] < 0.8
    assert found["steps"] == 120
    heldout = [json.loads(line)["text"] for line in (made / "sparse" / "heldout.jsonl").read_text().splitlines()]
    texts = [(made / f"{name}.txt").read_text().strip() for name in ("one", "two")]
    assert len(heldout) == 2
    assert all(text.endswith(held) for text, held in zip(texts, heldout, strict=True))
    assert 0.04 < sum(map(len, heldout)) / sum(map(len, texts)) < 0.06


def test_the_folder_is_a_checkpoint_and_so_is_the_control(made):
    for folder in (made / "sparse", made / "sparse" / "control"):
        assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_act == "relu"
        assert main(["generate", str(folder), "--prompt", "one", "--new-tokens", "2"]) == 0
    lambdas = {row.split(",")[2] for row in (made / "sparse/control/ledger.csv").read_text().splitlines()[1:]}
    assert lambdas == {"0.0"}
    tokens = [json.loads((made / "sparse" / path / "provenance.json").read_text())["inputs"]["tokens"]
              for path in (".", "control")]  # fmt: skip
    assert tokens[0] == tokens[1]


def test_the_summary_agrees_with_prosparse_sparsity(made, capsys):
    """Each row, to the digits that are printed."""
    found, out = summary(made / "sparse"), made / "sparse"
    heldout = ["--text", str(out / "heldout.jsonl"), "--context-length", str(LENGTH)]
    checkpoints = {"original": made / "model", "control": out / "control", "sparse": out, "shifted": out}
    assert checkpoints.keys() >= {name for name in found if isinstance(found[name], dict)} - {"decoding", "provenance"}
    readme = (out / "README.md").read_text()
    for name in {"original", "control", "sparse"} | ({"shifted"} & found.keys()):
        capsys.readouterr()
        activation = found[name]["activation"]
        assert main(["sparsity", str(checkpoints[name]), *heldout, "--activation", activation]) == 0
        said = capsys.readouterr().out
        share, loss = re.search(r"sparsity ([\d.]+)% \| loss ([\d.]+)", said).groups()
        assert "not a held-out loss" not in said
        assert f"{100 * found[name]['sparsity']:.2f}" == share
        assert f"{found[name]['loss']:.4f}" == loss
        assert re.search(rf"\| +{activation} \| +{100 * found[name]['sparsity']:.1f}% \| +{loss} \|", readme), name
        dead = [float(each) for each in re.findall(r"([\d.]+)% dead", said)]
        assert [100 * each for each in found[name]["dead_neurons"]] == pytest.approx(dead, abs=0.05)


def test_differences_are_paired(made):
    """As scipy's t-test of related samples has it."""
    found = summary(made / "sparse")
    losses = [found[name]["sequences"]["loss"] for name in ("sparse", "control")]
    interval = stats.ttest_rel(*losses).confidence_interval()
    shown = f"{found['sparse']['loss'] - found['control']['loss']:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
    assert shown in (made / "sparse" / "README.md").read_text()


def test_a_stopped_run_resumes_to_the_same_model(own, made, monkeypatch):
    """Stopped twice within the sparse model's training and once within the control's."""
    train, stops = commands_train.train_stage, iter([True, True, False, True])

    def stopped(job):
        train(dataclasses.replace(job, max_seconds=0) if next(stops, False) else job)

    monkeypatch.setattr(commands_train, "train_stage", stopped)
    shutil.rmtree(own / "sparse")
    for _ in range(3):
        assert sparsify(own) == OutOfTime.exit_status
    assert sparsify(own) == 0
    for path in (".", "control"):
        weights = [load_file(root / "sparse" / path / "model.safetensors") for root in (own, made)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0] | weights[1])
    again, once = (summary(root / "sparse") for root in (own, made))
    assert {**again, "decoding": 0, "provenance": 0} == {**once, "decoding": 0, "provenance": 0}


def test_a_finished_run_is_left_as_it_is(own, capsys):
    before = snapshot(own)
    for more in ([], ["--no-control"]):
        assert sparsify(own, *more) == 0
        assert "already sparse, nothing to do" in capsys.readouterr().out
    assert snapshot(own) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "0.8"}, "target_sparsity is 0.8, was 0.9"),
        ({"more": ["--seed", "1"]}, "seed is 1, was 0"),
        ({"more": ["--heldout-text", "{own}/new.jsonl"]}, "heldout.new.jsonl is new"),
        ({"output": "model"}, "no record of its inputs"),
        ({"output": "new", "more": ["--context-length", "100"]}, "positions for only 64 tokens"),
        ({"output": "new", "more": ["--tokens", "512"]}, "16 training sequences of 32 tokens make 4 steps of 4"),
        ({"output": "new", "more": ["--heldout-text", "{own}/one.txt"]}, "one.txt is also trained on"),
        ({"output": "new", "more": ["--heldout-text", "{own}/new.jsonl"]}, "fills 1 sequences of 32 tokens"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(own, capsys, monkeypatch, options, message):
    def trained(*_):
        raise AssertionError("training has begun")

    monkeypatch.setattr(commands_train, "train_stage", trained)
    (own / "new.jsonl").write_text(json.dumps({"text": "Another text, which is not long enough."}) + "\n")
    before = snapshot(own / "sparse")
    more = [word.format(own=own) for word in options.get("more", [])]
    assert sparsify(own, *more, **{key: value for key, value in options.items() if key != "more"}) == 1
    assert message in capsys.readouterr().err
    assert snapshot(own / "sparse") == before
    if options.get("output") == "new" and (own / "new").exists():  # the folder is free for the corrected call
        left = {path.name for path in (own / "new").rglob("*") if path.is_file()}
        assert left == {"identity.json", "lock"}


def test_a_model_without_gated_ffns_and_a_target_that_is_no_share(own, capsys):
    GPT2LMHeadModel(GPT2Config(vocab_size=258, n_embd=8, n_layer=1, n_head=1, n_positions=64)).save_pretrained(
        own / "gpt2"
    )
    for path in (own / "model").glob("tokenizer*"):
        shutil.copy(path, own / "gpt2")
    command = ["sparsify", str(own / "gpt2"), "--text", str(own / "*.txt"), "--output", str(own / "new")]
    assert main([*command, *OPTIONS, "--target-sparsity", "0.9"]) == 1
    assert "prosparse: error: " in capsys.readouterr().err
    assert main([*command, *OPTIONS, "--target-sparsity", "90"]) == 2
    assert "a number above 0 and below 1 is needed" in capsys.readouterr().err


def test_a_target_that_was_missed(made):
    found = summary(made / "sparse")
    missed = {**found, "target_sparsity": 0.99}
    missed.pop("shifted", None)
    said = "\n".join(sparsify_report.lines(missed, "sparse"))
    assert f"The target of 99% was not reached: {100 * found['sparse']['sparsity']:.1f}%" in said
    assert "use more tokens or a higher --learning-rate" in said
    missed["shifted"] = {**found["sparse"], "activation": "fatrelu-0.5", "sparsity": 0.991}
    assert "With --activation fatrelu-0.5 it is reached, at 99.1%" in sparsify_report.lines(missed, "sparse")[0]
    del missed["control"]
    assert "control" not in "\n".join(sparsify_report.lines(missed, "sparse"))


# ------------------------------------------------------------------------------------- defaults


def settings(**changed):
    return Settings(**{"target_sparsity": 0.9, "tokens": None, "context_length": 512, "learning_rate": None,
                       "batch_size": None, "seed": 0, **changed})  # fmt: skip


def test_the_recipe_is_one_that_train_takes(made):
    recipe = read_recipe(made / "sparse" / "recipe.yaml")
    assert [stage.target_sparsity for stage in recipe.stages] == [0.9]
    assert recipe.stages[0].until == 120
    assert recipe.training.schedule == "linear"


@pytest.mark.parametrize(
    ("rows", "changed", "steps", "batch"),
    [
        (195, {}, 195, 1),
        (800, {}, 400, 2),
        (20_000, {}, 400, 50),
        (1_000_000, {}, 7812, 128),
        (1_000, {"tokens": 100_000}, 195, 1),
        (1_000, {"batch_size": 10}, 100, 10),
    ],
)
def test_steps_and_batch(rows, changed, steps, batch):
    found = defaults.recipe(settings(**changed), Activation(name="relu"), 10**6, rows)
    assert (found.stages[0].until, found.training.batch_size) == (steps, batch)
    assert batch % found.training.micro_batch_size == 0


def test_too_few_steps():
    with pytest.raises(ConfigError, match="19 training sequences of 512 tokens make 19 steps of 1, but at least 20"):
        defaults.recipe(settings(), Activation(name="relu"), 10**6, 19)


def test_learning_rate_falls_from_ours_to_the_papers():
    rates = [defaults.learning_rate(size) for size in (10**6, 135 * 10**6, 10**9, 7 * 10**9, 10**11)]
    assert rates[0] == rates[1] == 1e-3
    assert rates[3] == rates[4] == 3e-5
    assert rates[2] == pytest.approx((1e-3 * 3e-5) ** 0.5, rel=0.1)  # 1B is halfway between, on logarithmic axes


def test_a_twentieth_is_held_out_of_short_and_of_long_documents():
    short = [f"document {index} " * 9 for index in range(200)]
    trained, held = hold_out(short, 64)
    assert sorted(trained + held) == sorted(short)
    assert 9 <= len(held) <= 10
    gaps = [short.index(later) - short.index(earlier) for earlier, later in pairwise(held)]
    assert all(18 <= gap <= 22 for gap in gaps)
    one = " ".join(f"word{index}" for index in range(2000))
    (trained,), (held,) = hold_out([one], 64)
    assert f"{trained} {held}" == one
    assert len(held) == pytest.approx(len(one) / 20, abs=10)
    # 64 sequences of six characters per token are enough
    (_,), (held,) = hold_out(["w " * 10**6], 64)
    assert len(held) == pytest.approx(64 * 64 * 6, rel=0.01)


def test_many_long_documents_are_measured_by_pieces_of_a_sequence():
    long = [" ".join(f"{document}-{word}" for word in range(8000)) for document in range(500)]
    trained, held = hold_out(long, 512)
    assert sum(map(len, held)) == pytest.approx(64 * 512 * 6, rel=0.05)
    assert min(map(len, held)) > 0.9 * 512 * 6
    assert sum(map(len, trained)) + sum(map(len, held)) == pytest.approx(sum(map(len, long)), abs=len(held))


def test_one_long_document_among_short_ones_is_not_held_out_whole():
    book, notes = "word " * 60_000, [f"note {index} of a line" for index in range(300)]
    for texts in ([book, *notes], [*notes, book]):
        trained, held = hold_out(texts, 32)
        assert sum(map(len, held)) <= 64 * 32 * 6 + 32 * 6
        assert sum(map(len, trained)) > 0.94 * sum(map(len, texts))
        assert sum(text in held for text in notes) < 30


def test_an_empty_document_is_not_held_out():
    trained, held = hold_out(["", "word " * 10_000, ""], 64)
    assert "" not in held
    assert trained.count("") == 2


def test_text_without_spaces_is_cut_where_it_must_be():
    text = "Title " + "\u7a00\u758f" * 50_000
    (trained,), (held,) = hold_out([text], 512)
    assert trained + held == text
    assert len(held) == pytest.approx(len(text) / 20, abs=1)


def test_threshold_is_the_largest_that_costs_no_more(tiny_llama):
    """Against the losses that transformers computes, of text that the model writes itself, which FFNs less raise."""
    model, losses = tiny_llama("relu").eval(), {}
    rows = model.generate(torch.arange(4)[:, None], max_new_tokens=31, min_new_tokens=31, do_sample=False)
    with torch.no_grad():
        for threshold in (0.0, *THRESHOLDS):
            substitute(model, Activation.parse(f"fatrelu-{threshold:g}"))
            losses[threshold] = model(input_ids=rows, labels=rows).loss.item()
    substitute(model, Activation.parse("relu"))
    rises = [losses[threshold] - losses[0.0] for threshold in THRESHOLDS]
    cost = 0.01
    over = next(index for index, rise in enumerate(rises) if rise > cost)
    assert over > 0
    assert largest_threshold(model, rows, cost).parameter == pytest.approx(THRESHOLDS[over - 1])
    assert type(model.model.layers[0].mlp.act_fn) is torch.nn.ReLU
    assert largest_threshold(model, rows, -1.0) is None
