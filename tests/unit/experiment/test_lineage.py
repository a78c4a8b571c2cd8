"""Which stage is kept where, and what makes it anew."""

import copy

import pytest
import yaml
from helpers.repository import ROOT

from prosparse.data.mixture import Mixture
from prosparse.experiment import lineage, specifications
from prosparse.experiment.loading import load
from prosparse.experiment.model import RunInit

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
EXPERIMENT = load(CONFIG)


def test_runs_that_share_a_prefix_share_its_checkpoint():
    for run in ("small-vanilla", "small-constant-low", "small-constant-high", "small-prosparse"):
        assert lineage.owner(EXPERIMENT, run, 0) == "small-prosparse"
    assert lineage.owner(EXPERIMENT, "small-vanilla", 1) == "small-vanilla"
    # another activation, another length of the learning-rate schedule: another stage 0
    assert lineage.owner(EXPERIMENT, "small-shifted", 0) == "small-shifted"
    assert lineage.owner(EXPERIMENT, "small-prosparse-long", 0) == "small-prosparse-long"


def test_runs_of_two_tokenizers_share_no_checkpoint():
    config = copy.deepcopy(CONFIG)
    config["data"]["tokenizers"]["own"] = {"vocabulary_size": 1024}
    for run in config["runs"].values():
        run["tokenizer"] = "bpe"
    config["runs"]["again"] = copy.deepcopy(config["runs"]["small-base"])
    assert lineage.owner(load(config), "again", 0) == "small-base"
    config["runs"]["again"]["tokenizer"] = "own"
    assert lineage.owner(load(config), "again", 0) == "again"


def test_predecessors():
    assert lineage.predecessor(EXPERIMENT, "small-base", 0) is None
    assert lineage.predecessor(EXPERIMENT, "small-prosparse", 0) == ("small-base", 0)
    assert lineage.predecessor(EXPERIMENT, "small-vanilla", 1) == ("small-prosparse", 0)
    assert lineage.predecessor(EXPERIMENT, "minicpm-sft", 0) == ("minicpm-decay", 0)
    assert lineage.predecessor(EXPERIMENT, "small-final-1", 0) == ("small-prosparse", 1)


def test_continuations_are_the_stages_that_need_an_optimizer_state():
    found = lineage.continuations(EXPERIMENT, "small-prosparse", 0)
    assert found == lineage.continuations(EXPERIMENT, "small-vanilla", 0)  # the same checkpoint
    sharing = ["small-prosparse", "small-vanilla", "small-constant-low", "small-constant-middle", "small-constant-high"]
    assert set(found) == {(run, 1) for run in sharing}
    assert lineage.continuations(EXPERIMENT, "small-prosparse", 1) == [("small-prosparse", 2)]
    # what starts from a checkpoint takes its weights and begins an optimizer of its own
    last = len(EXPERIMENT.runs["small-prosparse"].stages) - 1
    assert lineage.continuations(EXPERIMENT, "small-prosparse", last) == []


def test_a_chain_starts_with_the_checkpoint_of_another_run():
    assert lineage.chain(EXPERIMENT, "small-base") == [(0, ("small-base", 0))]
    assert lineage.chain(EXPERIMENT, "small-vanilla") == [
        (None, ("small-base", 0)), (0, ("small-prosparse", 0)), (1, ("small-vanilla", 1)),
    ]  # fmt: skip
    assert lineage.chain(EXPERIMENT, "small-final-1")[0] == (None, ("small-prosparse", 1))


def changed_stages(edit):
    """(run, stage) whose specification an edit of the config changes."""
    config = copy.deepcopy(CONFIG)
    edit(config)
    other = load(config)
    return {
        (run, stage)
        for run in EXPERIMENT.runs
        for stage in range(len(EXPERIMENT.runs[run].stages))
        if specifications.stage(EXPERIMENT, run, stage, 0) != specifications.stage(other, run, stage, 0)
    }


def test_a_stages_hyperparameter_changes_that_stage_and_later_ones_only():
    def edit(config):
        config["runs"]["small-prosparse"]["stages"][4]["peak"] = 5
        config["runs"]["small-prosparse"]["stages"][5]["peak"] = 5

    assert changed_stages(edit) == {("small-prosparse", 4), ("small-prosparse", 5)}


def test_a_longer_run_changes_every_stage_of_it_since_the_learning_rate_spans_it():
    def edit(config):
        config["runs"]["medium-prosparse"]["stages"][5]["until"] += 10

    assert changed_stages(edit) == {("medium-prosparse", stage) for stage in range(6)}


def test_measured_activations_are_the_runs_own_and_those_of_its_rows():
    assert [str(a) for a in lineage.measured_activations(EXPERIMENT, "small-prosparse")] == [
        "relu", "fatrelu-0.05", "fatrelu-0.025", "fatrelu-0.1", "fatrelu-0.15",
    ]  # fmt: skip
    assert [str(a) for a in lineage.measured_activations(EXPERIMENT, "small-base")] == ["silu"]
    alone = load({**CONFIG, "ours": {"Shifted further": "small-prosparse@fatrelu-0.5"}})
    added = set(lineage.measured_activations(alone, "small-prosparse")) - set(
        lineage.measured_activations(EXPERIMENT, "small-prosparse")
    )
    assert {str(a) for a in added} == {"fatrelu-0.5"}


def test_pairs_of_the_frontier_are_measured():
    lines = {"Vanilla ReLU": ["small-vanilla", "small-vanilla@fatrelu-0.3"]}
    panel = {"original": "small-base@relu", "methods": lines}
    drawn = load({**CONFIG, "figures": {"frontier": {"small": panel}}})
    measured = {
        run: [str(a) for a in lineage.measured_activations(drawn, run)] for run in ("small-vanilla", "small-base")
    }
    assert measured == {"small-vanilla": ["relu", "fatrelu-0.3"], "small-base": ["silu", "relu"]}


def test_an_original_is_measured_without_training_at_the_targets_of_all_its_panels():
    lines = {"Vanilla ReLU": ["small-vanilla"]}
    panels = {
        "one": {"original": "small-base", "methods": lines, "training_free": [0.9, 0.5]},
        "two": {"original": "small-base@silu", "methods": lines, "training_free": [0.7, 0.5]},
        "three": {"original": "medium-base", "methods": lines},
    }
    drawn = load({**CONFIG, "figures": {"frontier": panels}})
    assert lineage.training_free_targets(drawn) == {("small-base", "silu"): [0.5, 0.7, 0.9]}


def test_everything_a_checkpoint_needs():
    assert list(lineage.needed(EXPERIMENT, "small-vanilla")) == [
        ("small-vanilla", 1), ("small-prosparse", 0), ("small-base", 0),
    ]  # fmt: skip


def test_what_made_a_checkpoint_begins_with_its_start():
    made = lineage.lineage(EXPERIMENT, "small-final-2", 0)
    assert made == [("small-base", 0), *(("small-prosparse", stage) for stage in range(4)), ("small-final-2", 0)]
    assert lineage.start(EXPERIMENT, "small-final-2") == ("small-base", EXPERIMENT.runs["small-base"].init)


class Numbered:
    """A corpus whose rows are their numbers."""

    def __init__(self, number, size):
        self.number, self.size = number, size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"input_ids": [self.number, index]}


def rows_read(experiment, run, sizes, stage=None):
    """(corpus, row) of every sample that a run is trained on up to a stage, in order, as the stage before it ends."""
    chosen = experiment.runs[run]
    stage = len(chosen.stages) - 1 if stage is None else stage
    job = specifications.stage(experiment, run, stage, seed=3)
    corpora = {name: Numbered(number, size) for number, (name, size) in enumerate(sizes.items())}
    mixture = Mixture(corpora, job.mixture, job.total_steps * job.training.batch_size, job.seed, job.earlier)
    trained = chosen.stages[stage].until * chosen.training.batch_size
    return [tuple(mixture[index]["input_ids"].tolist()) for index in range(trained)]


def read_before(experiment, run, sizes):
    """What the lineage behind a run is trained on, found without the run's own specification."""
    rows, init = [], experiment.runs[run].init
    while isinstance(init, RunInit):
        rows = rows_read(experiment, init.run, sizes, init.stage) + rows
        init = experiment.runs[init.run].init
    return rows


def lineages():
    for path in ("config.yaml", "workflow/experiments/smollm2.yaml"):
        experiment = load(yaml.safe_load((ROOT / path).read_text()))
        for run, chosen in experiment.runs.items():
            if isinstance(chosen.init, RunInit):
                yield pytest.param(experiment, run, id=f"{experiment.experiment}-{run}")


@pytest.mark.parametrize(("experiment", "run"), lineages())
def test_a_run_trains_on_rows_that_no_run_behind_it_has_seen(experiment, run):
    plenty = dict.fromkeys(experiment.data.corpora, 4000)
    own = rows_read(experiment, run, plenty)
    assert len(set(own)) == len(own) > 0
    assert set(own).isdisjoint(read_before(experiment, run, plenty))


@pytest.mark.parametrize(("experiment", "run"), lineages())
def test_a_second_epoch_begins_where_a_corpus_ends(experiment, run):
    scarce = {name: 20 + 37 * number for number, name in enumerate(experiment.data.corpora)}
    rows = read_before(experiment, run, scarce) + rows_read(experiment, run, scarce)
    for number, size in enumerate(scarce.values()):
        mine = [row for corpus, row in rows if corpus == number]
        for start in range(0, len(mine), size):
            epoch = mine[start : start + size]
            assert len(set(epoch)) == len(epoch)


def test_an_instruction_run_reads_on_behind_the_mixed_runs():
    earlier = specifications.stage(EXPERIMENT, "minicpm-sft", 0, 0).earlier
    mixtures = EXPERIMENT.data.mixtures
    assert [draw.mixture for draw in earlier] == [mixtures["mixed"]] * 2
    assert [draw.samples for draw in earlier] == [320 * 2, 320 * 2]
    # a run from another's stage 3 has seen that run's samples up to it only
    assert [draw.samples for draw in specifications.stage(EXPERIMENT, "small-final-2", 0, 0).earlier] == [350 * 2]
    assert specifications.stage(EXPERIMENT, "small-base", 0, 0).earlier == ()
