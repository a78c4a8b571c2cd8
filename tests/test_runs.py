"""Which stage is kept where, and what makes it anew."""

import copy
from pathlib import Path

import yaml

from prosparse import runs
from prosparse.config import load

CONFIG = yaml.safe_load((Path(__file__).parents[1] / "config.yaml").read_text())
EXPERIMENT = load(CONFIG)


def test_runs_that_share_a_prefix_share_its_checkpoint():
    for run in ("small-vanilla", "small-constant-low", "small-constant-high", "small-prosparse"):
        assert runs.owner(EXPERIMENT, run, 0) == "small-prosparse"
    assert runs.owner(EXPERIMENT, "small-vanilla", 1) == "small-vanilla"
    # another activation, another length of the learning-rate schedule: another stage 0
    assert runs.owner(EXPERIMENT, "small-shifted", 0) == "small-shifted"
    assert runs.owner(EXPERIMENT, "small-prosparse-long", 0) == "small-prosparse-long"


def test_runs_of_two_tokenizers_share_no_checkpoint():
    config = copy.deepcopy(CONFIG)
    config["data"]["tokenizers"]["own"] = {"vocabulary_size": 1024}
    for run in config["runs"].values():
        run["tokenizer"] = "bpe"
    config["runs"]["again"] = copy.deepcopy(config["runs"]["small-base"])
    assert runs.owner(load(config), "again", 0) == "small-base"
    config["runs"]["again"]["tokenizer"] = "own"
    assert runs.owner(load(config), "again", 0) == "again"


def test_predecessors():
    assert runs.predecessor(EXPERIMENT, "small-base", 0) is None
    assert runs.predecessor(EXPERIMENT, "small-prosparse", 0) == "small-base/seed{seed}/stage0"
    assert runs.predecessor(EXPERIMENT, "small-vanilla", 1) == "small-prosparse/seed{seed}/stage0"
    assert runs.predecessor(EXPERIMENT, "minicpm-sft", 0) == "minicpm-decay/seed{seed}/stage0"
    assert runs.predecessor(EXPERIMENT, "small-final-1", 0) == "small-prosparse/seed{seed}/stage1"


def changed_stages(edit):
    """(run, stage) whose specification an edit of the config changes."""
    config = copy.deepcopy(CONFIG)
    edit(config)
    other = load(config)
    return {
        (run, stage)
        for run in EXPERIMENT.runs
        for stage in range(len(EXPERIMENT.runs[run].stages))
        if runs.specification(EXPERIMENT, run, stage, 0) != runs.specification(other, run, stage, 0)
    }


def test_a_stages_hyperparameter_changes_that_stage_and_later_ones_only():
    def edit(config):
        config["runs"]["small-prosparse"]["stages"][4]["peak"] = 1.5
        config["runs"]["small-prosparse"]["stages"][5]["peak"] = 1.5

    assert changed_stages(edit) == {("small-prosparse", 4), ("small-prosparse", 5)}


def test_a_longer_run_changes_every_stage_of_it_since_the_learning_rate_spans_it():
    def edit(config):
        config["runs"]["medium-prosparse"]["stages"][5]["until"] += 10

    assert changed_stages(edit) == {("medium-prosparse", stage) for stage in range(6)}


def test_measured_activations_are_the_runs_own_and_those_of_its_rows():
    assert [str(a) for a in runs.measured_activations(EXPERIMENT, "small-prosparse")] == [
        "relu", "fatrelu-0.05", "fatrelu-0.025", "fatrelu-0.1", "fatrelu-0.15",
    ]  # fmt: skip
    assert [str(a) for a in runs.measured_activations(EXPERIMENT, "small-base")] == ["silu"]
    alone = load({**CONFIG, "ours": {"Shifted further": "small-prosparse@fatrelu-0.5"}})
    added = set(runs.measured_activations(alone, "small-prosparse")) - set(
        runs.measured_activations(EXPERIMENT, "small-prosparse")
    )
    assert {str(a) for a in added} == {"fatrelu-0.5"}


def test_everything_a_checkpoint_needs():
    assert list(runs.needed(EXPERIMENT, "small-vanilla")) == [
        ("small-vanilla", 1), ("small-prosparse", 0), ("small-base", 0),
    ]  # fmt: skip


def test_what_made_a_checkpoint_begins_with_its_start():
    made = runs.lineage(EXPERIMENT, "small-final-2", 0)
    assert made == [("small-base", 0), *(("small-prosparse", stage) for stage in range(4)), ("small-final-2", 0)]
    assert runs.start(EXPERIMENT, "small-final-2") == ("small-base", EXPERIMENT.runs["small-base"].init)


def test_a_run_goes_on_in_the_data_where_the_runs_before_it_stopped():
    base = EXPERIMENT.runs["small-base"]
    seen = base.stages[-1].until * base.training.batch_size
    first = {run: runs.specification(EXPERIMENT, run, 0, 0).first_sample for run in EXPERIMENT.runs}
    assert first["small-base"] == 0
    assert first["small-prosparse"] == first["small-shifted"] == first["small-vanilla-long"] == seen
    # a run from another's stage 3 has seen that run's samples up to it, too
    prosparse = EXPERIMENT.runs["small-prosparse"]
    assert first["small-final-2"] == seen + prosparse.stages[3].until * prosparse.training.batch_size
    assert first["minicpm-sft"] == 0  # the first to see the instruction mixture
