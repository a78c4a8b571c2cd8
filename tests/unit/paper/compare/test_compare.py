"""A run against its committed copy: differences within and beyond the spread, other seeds, other configs, no copy."""

from __future__ import annotations

import copy
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.claims import registry as claims
from prosparse.paper.compare import page
from prosparse.paper.compare.spread import between_processors, by_seed
from prosparse.paper.publish import publish
from prosparse.plan.targets import target_refusals
from prosparse.system.errors import ConfigError

RUN = "vanilla"


def published(tmp_path: Path, raw: dict[str, Any] | None = None, seeds: tuple[int, ...] = (1,)) -> Synthetic:
    """Write results, judge their claims, and commit a copy of them."""
    made = Synthetic(tmp_path / "synthetic", {**(raw or CONFIG), "seeds": list(seeds), "seed_deviation": None}).write()
    made.json(made.layout.config(), made.experiment.model_dump(mode="json"))
    claims.write(made.layout)
    publish(made.layout)
    return made


@pytest.fixture
def run(tmp_path: Path) -> Synthetic:
    return published(tmp_path)


def shift(run: Synthetic, quantity: str, amount: float, seed: int = 1) -> None:
    def change(value: dict[str, Any]) -> None:
        value["measurements"][0][quantity] += amount

    run.edit(run.layout.sparsity(RUN, seed), change)


def compared(run: Synthetic) -> tuple[str, dict[str, Any], str]:
    """(what the terminal shows, compare.json, compare.md)"""
    said = page.write(run.layout)
    files = (run.layout.compare(suffix).read_text(encoding="utf-8") for suffix in ("json", "md"))
    return said, json.loads(next(files)), next(files)


def of(data: dict[str, Any], quantity: str, pair: str = f"{RUN}@relu") -> dict[str, Any]:
    return next(each for each in data["differences"] if (each["pair"], each["quantity"]) == (pair, quantity))


def test_a_run_agrees_with_its_own_copy(run):
    said, data, text = compared(run)
    count = len(data["differences"])
    assert f"All {count} differences are within the expected spread." in said
    assert said.splitlines()[-1] == str(run.layout.compare("md"))
    assert data["all_within"]
    assert {each["difference"] for each in data["differences"]} == {0}
    assert f"{count} numbers are equal to the last digit" in text
    assert "the seeds are equal, so only the spread by processor is used" in text
    assert {each["quantity"] for each in data["differences"]} == {"sparsity", "loss", "average performance"}
    assert "operators" not in json.dumps(data["differences"])  # times stay out


@pytest.mark.parametrize(("quantity", "scale"), [("sparsity", 100), ("loss", 1)])
def test_a_difference_is_held_against_the_measured_spread_between_processors(run, quantity, scale):
    largest = between_processors()[quantity].largest
    shift(run, quantity, -0.9 * largest / scale)
    said, data, _ = compared(run)
    found = of(data, quantity)
    assert found["within"]
    assert math.isclose(found["difference"], -0.9 * largest)
    assert found["expected"] == largest
    assert "within the expected spread" in said
    shift(run, quantity, -0.2 * largest / scale)
    said, data, text = compared(run)
    assert not of(data, quantity)["within"]
    assert not data["all_within"]
    assert f"1 of {len(data['differences'])} differences are beyond the expected spread, worst first:" in said
    assert f"- {RUN}@relu, {quantity}: " in said
    assert "## Beyond the expected spread" in text


def test_the_worst_difference_comes_first(run):
    shift(run, "sparsity", 0.02)  # twice what is expected
    shift(run, "loss", 0.23)  # ten times
    said, _, _ = compared(run)
    listed = [line.split(":")[0] for line in said.splitlines() if line.startswith("- ")]
    assert listed == [f"- {RUN}@relu, loss", f"- {RUN}@relu, sparsity"]


def test_benchmark_averages_may_differ_by_their_sampling_error(run):
    path = run.layout.benchmarks(RUN, "relu", 1)

    def add(amount: float) -> None:
        run.edit(path, lambda value: [row.update(score=row["score"] + amount) for row in value["benchmarks"].values()])

    error = run.results.benchmarks(RUN, "relu").average().value.standard_error
    expected = 2 * math.sqrt(2) * error
    add(0.9 * expected / 100)
    assert math.isclose(of(compared(run)[1], "average performance")["expected"], expected)
    assert of(compared(run)[1], "average performance")["within"]
    add(0.2 * expected / 100)
    assert not of(compared(run)[1], "average performance")["within"]


def test_verdicts_are_compared_in_the_words_of_each_side(run):
    def change(value: dict[str, Any]) -> None:
        value["claims"][1]["verdict"] = "anything at all"
        value["claims"][2]["tolerance"] = {"loss": 1.0}

    before = json.loads(run.layout.claims("json").read_text())["claims"]
    run.edit(run.layout.claims("json"), change)
    said, data, text = compared(run)
    number, other = before[1]["number"], before[2]["number"]
    assert f"{len(before) - 1} of {len(before)} claims have the same verdict" in said
    assert f"{number} ({before[1]['verdict']} → anything at all)" in said
    assert [each["number"] for each in data["claims"] if not each["same"]] == [number]
    assert [each["number"] for each in data["claims"] if not each["same_test"]] == [other]
    assert "judged by another test" in text
    assert data["all_within"]  # a verdict is no number


def test_the_machines_that_made_both_are_named(run):
    def change(value: dict[str, Any]) -> None:
        value["provenance"]["processor"] = "Another CPU"

    for path in run.directory.rglob("*.json"):
        if "provenance" in json.loads(path.read_text()):
            run.edit(path, change)
    said, _, text = compared(run)
    assert "this run:  Another CPU; " in said
    assert "published: Imaginary CPU, 2 cores; " in said
    assert "| Processor | Imaginary CPU, 2 cores | Another CPU |" in text


def test_a_number_of_one_side_only_is_named_and_not_judged(run):
    (run.layout.published() / run.layout.relative(run.layout.sparsity(RUN, 1))).unlink()
    said, data, text = compared(run)
    assert [RUN + "@relu", "loss"] in data["only_this_run"]
    assert not data["only_published"]
    assert f"loss of {RUN}@relu" in said
    assert f"loss of {RUN}@relu" in text
    assert data["all_within"]


def test_several_seeds_on_one_side_add_their_spread(tmp_path):
    published(tmp_path, seeds=(1, 2, 3))
    ours = Synthetic(tmp_path / "synthetic", {**CONFIG, "seeds": [4], "seed_deviation": None}).write()
    _, data, text = compared(ours)
    found = of(data, "loss")
    values = [ours.plan(RUN)[1] + 0.002 * seed for seed in (1, 2, 3, 4)]
    assert math.isclose(found["published"], statistics.fmean(values[:3]))
    assert math.isclose(found["ours"], values[3])
    deviation = statistics.stdev(values[:3]) * math.sqrt(1 + 1 / 3)
    assert math.isclose(found["by_seed"], deviation)
    assert math.isclose(found["expected"], between_processors()["loss"].largest + 2 * deviation)
    assert "unknown" not in text
    assert "the seeds are equal" not in text


def test_one_seed_each_that_differ_leave_the_spread_by_seed_unknown(tmp_path):
    published(tmp_path, seeds=(1,))
    ours = Synthetic(tmp_path / "synthetic", {**CONFIG, "seeds": [2], "seed_deviation": None}).write()
    _, data, text = compared(ours)
    assert of(data, "loss")["by_seed"] is None
    assert of(data, "loss")["expected"] == between_processors()["loss"].largest
    assert "the spread by seed is unknown" in text


@pytest.mark.parametrize(
    ("ours", "others"), [((1, 2), (1, 2)), ((1, 2, 3), (4, 5)), ((1,), (1, 2, 3)), ((1, 2, 3), (2, 3, 4, 5))]
)
def test_spread_by_seed_is_that_of_simulated_experiments(ours, others):
    """Values that only depend on the seed, drawn anew many times: the deviation of the difference of both means."""
    import random

    draw = random.Random(0)
    differences, estimates = [], []
    for _ in range(20_000):
        values = {seed: draw.gauss(0, 3) for seed in {*ours, *others}}
        one, other = ({seed: values[seed] for seed in side} for side in (ours, others))
        differences.append(statistics.fmean(one.values()) - statistics.fmean(other.values()))
        estimates.append(by_seed(one, other))
    simulated = math.sqrt(statistics.fmean(d * d for d in differences))
    assert math.sqrt(statistics.fmean(e * e for e in estimates)) == pytest.approx(simulated, rel=0.03, abs=1e-12)


def test_no_committed_copy_is_one_line_before_any_work(run, monkeypatch):
    run.layout.published().rename(run.layout.published().with_name("another"))
    with pytest.raises(ConfigError) as error:
        page.write(run.layout)
    said = str(error.value)
    assert "nothing to compare with" in said
    assert "(another)" in said
    assert "\n" not in said


def test_another_config_names_its_keys(tmp_path):
    raw = copy.deepcopy(CONFIG)
    raw["training"]["learning_rate"] = 2e-3
    raw["data"]["heldout_sequences"] = 16
    published(tmp_path, raw)
    ours = Synthetic(tmp_path / "synthetic", {**CONFIG, "description": "Other words.", "seeds": [7]})
    with pytest.raises(ConfigError) as error:
        page.write(ours.layout)
    said = str(error.value)
    assert "data.heldout_sequences (16 there, 8 here)" in said
    assert "runs.base.training.learning_rate (0.002 there, 0.001 here)" in said
    assert "description (" not in said
    assert "seeds (" not in said
    assert "\n" not in said


def test_a_config_of_another_version_says_so(run):
    config = run.layout.published() / "config.json"
    run.edit(config, lambda value: value.update(sections_of_old=1))
    with pytest.raises(ConfigError, match=r"not a config of this version.*sections_of_old"):
        page.write(run.layout)


def test_the_target_is_refused_before_its_first_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Synthetic(Path("results/synthetic")).write()
    assert any("nothing to compare with" in each for each in target_refusals(made.experiment, ["compare"], local=True))
    assert not any("compare" in each for each in target_refusals(made.experiment, ["all"], local=True))
