"""What the plan says of every experiment's training, against a count by hand of its steps and its models' matrices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from helpers.repository import CONFIGS, ROOT, shipped

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.experiment.loading import load
from prosparse.plan import costs, targets
from prosparse.plan.jobs import Job, Total


class Model(NamedTuple):
    """A decoder, as its source gives it. ``queries`` and ``keys`` are widths: heads times their dimension."""

    hidden: int
    intermediate: int
    layers: int
    queries: int
    keys: int
    vocabulary: int

    def forward(self, context: int) -> int:
        """FLOPs per token: two per weight that multiplies, four per key and dimension of a query."""
        attention = 2 * self.hidden * self.queries + 2 * self.hidden * self.keys
        weights = self.layers * (attention + 3 * self.hidden * self.intermediate) + self.vocabulary * self.hidden
        return 2 * weights + 4 * self.layers * self.queries * context


class Trained(NamedTuple):
    """Steps of a model; a backward pass costs two forward passes, a teacher of the same shape one."""

    model: Model
    steps: int
    batch: int
    distilled_steps: int = 0


LLAMA2_7B, LLAMA2_13B = Model(4096, 11008, 32, 4096, 4096, 32000), Model(5120, 13824, 40, 5120, 5120, 32000)
MINICPM_1B = Model(1536, 3840, 52, 1536, 512, 73440)
SMOLLM2_360M = Model(960, 2560, 32, 960, 320, 49152)
SMOLLM2_135M = Model(576, 1536, 30, 576, 192, 49152)
SMALL, MEDIUM = Model(128, 344, 4, 128, 128, 2048), Model(144, 384, 5, 144, 144, 2048)
MINICPM = Model(96, 240, 8, 96, 32, 2048)

KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size",
)  # fmt: skip

#: Context length, and what is trained per seed. Runs of one length share the steps before λ first rises.
EXPERIMENTS: dict[str, tuple[int, list[Trained]]] = {
    "laptop": (256, [
        # ProSparse, vanilla, shifted; constant factors; the longer runs; final factors
        Trained(SMALL, 480 + 334 + 480 + 3 * 334 + 768 + 534 + 768 + 6 * 120, 2),
        Trained(MEDIUM, 400 + 4 * 262, 2),
        # two stages and three times SFT; vanilla ReLU's own
        Trained(MINICPM, 320 + 320 + 3 * 100 + 228 + 320 + 100, 2),
    ]),
    "overnight": (256, [  # five times the steps, twice the batch
        Trained(SMALL, 2400 + 1670 + 2400 + 3 * 1670 + 3840 + 2670 + 3840 + 6 * 600, 4),
        Trained(MEDIUM, 2000 + 4 * 1310, 4),
        Trained(MINICPM, 1600 + 1600 + 3 * 500 + 1140 + 1600 + 500, 4),
        # a constant factor from the first step
        Trained(SMALL, 2 * 2400, 4),
        Trained(MEDIUM, 2 * 2000, 4),
        Trained(MINICPM, 1600 + 1600 + 500, 4),
    ]),
    "recipes": (256, [
        Trained(SMALL, 3 * 480 + 480 + 2 * 334, 2),
        Trained(MEDIUM, 400 + 262, 2),
        Trained(MINICPM, 320 + 228 + 2 * 320, 2),
        Trained(SMALL, 3 * 2400, 4),
        Trained(MEDIUM, 2000, 4),
        Trained(MINICPM, 2 * 1600, 4),
    ]),
    "bases": (256, [Trained(model, 12500, 16) for model in (SMALL, MEDIUM, MINICPM)]),
    "schedules": (256, [
        # three shapes and three learning rates at four scales from the first step; the paper's after 146 steps; three
        # holds and nine targets; in float32, three constants from the first step and three after 146 steps
        Trained(SMALL, 9 * 4 * 480 + 146 + 4 * 334 + 3 * 4 * 480 + 9 * 480 + 3 * 480 + 146 + 3 * 334, 4),
        # three targets; five methods from the first step, and the paper's
        Trained(MINICPM, 3 * 480 + 5 * 3 * 480 + 146 + 4 * 334, 4),
        # two learning rates at three scales
        Trained(MEDIUM, 2 * 3 * 480, 4),
        # a less trained base; sixteen times the tokens
        Trained(SMALL, 1560, 16),
        Trained(SMALL, 3 * 480 + 146 + 3 * 334, 4),
        Trained(SMALL, 2 * 7680 + 2336 + 2 * 5344, 4),
    ]),
    "smollm2": (512, [
        Trained(SMOLLM2_135M, 2 * 270 + 2 * 202 + 9 * 50, 4, distilled_steps=50),
        Trained(SMOLLM2_135M, 100, 2),
    ]),
    "node": (2048, [Trained(SMOLLM2_360M, 3 * 4000 + 4 * 2788 + 4 * 400, 256, distilled_steps=4000)]),
    "paper": (4096, [
        Trained(LLAMA2_7B, 16500 + 11500 + 16500 + 3 * 11500 + 42500 + 29621 + 42500 + 5 * 4000, 512),
        Trained(LLAMA2_13B, 16000 + 3 * 10500, 2048),
        Trained(MINICPM_1B, 35000 + 60000, 1200),
        Trained(MINICPM_1B, 3 * 6000, 248),
    ]),
    "released": (4096, []),
}  # fmt: skip


def read(name: str) -> Experiment:
    return load(shipped(ROOT / ("config.yaml" if name == "laptop" else f"workflow/experiments/{name}.yaml")))


def stages(experiment: Experiment, directory: Path) -> list[Job]:
    behind = targets.jobs_behind(Layout(experiment, directory), targets.targets(experiment)["all"])
    return [job for job in behind if job.stage is not None]


def test_every_experiment_that_trains_is_here():
    configs = [yaml.safe_load(path.read_text()) for path in CONFIGS]
    # true_shapes times models with random weights
    assert {config["experiment"] for config in configs if config.get("runs")} == EXPERIMENTS.keys()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_training_costs_what_a_count_by_hand_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    experiment = read(name)
    context, trained = EXPERIMENTS[name]
    seeds = len(experiment.seeds)
    whole = Total.of(stages(experiment, tmp_path))
    assert whole.tokens == seeds * context * sum(each.steps * each.batch for each in trained)
    flops = seeds * context * sum(
        (3 * each.steps + each.distilled_steps) * each.batch * each.model.forward(context) for each in trained
    )  # fmt: skip
    if name == "smollm2":  # unknown, and said so, until the model has been taken from its package
        assert "flops" in whole.unknown
        config = {"tie_word_embeddings": True, **dict(zip(KEYS, (576, 1536, 30, 9, 3, 49152), strict=True))}
        file = tmp_path / "checkpoints/smollm2/seed0/stage0/config.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(config))
        whole = Total.of(stages(experiment, tmp_path))
    assert (whole.flops, whole.unknown) == (flops, frozenset())
    if experiment.hardware is not None:
        rate = experiment.hardware.teraflops * 1e12 * experiment.hardware.utilization
        assert costs.gpu_hours(experiment, whole.flops) == pytest.approx(flops / rate / 3600)


def test_the_papers_experiment_and_the_first_run_on_a_node_take_the_documented_hours(tmp_path):
    """docs/cluster.md: 137,000 GPU-hours at 40 % of an A100's 312 TFLOP/s, 134 at 30 %; training is nearly all."""
    for name, documented in (("paper", 137_000), ("node", 134)):
        experiment = read(name)
        hours = costs.gpu_hours(experiment, Total.of(stages(experiment, tmp_path)).flops)
        assert 0.85 * documented < hours <= documented
