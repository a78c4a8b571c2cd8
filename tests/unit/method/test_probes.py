"""What short runs tell of full ones: against curves of known form, and against the published runs."""

from __future__ import annotations

import csv
import json
import math
import statistics

import pytest
from helpers.repository import ROOT, shipped

from prosparse.experiment.loading import load
from prosparse.method import probes

PUBLISHED = ROOT / "results/published/overnight"


def test_a_power_law_is_continued():
    times = [float(time) for time in range(1, 101)]
    law = [100 - 40 * time**-0.3 for time in times]
    assert probes.settled(times, law, 1000.0) == pytest.approx(100 - 40 * 1000**-0.3)
    # what the first quarter measures does not matter
    disturbed = [50.0 if time < 25 else sparsity for time, sparsity in zip(times, law, strict=True)]
    assert probes.settled(times, disturbed, 1000.0) == pytest.approx(100 - 40 * 1000**-0.3)
    # nor does it end below 0
    assert probes.settled([1.0, 2.0, 3.0, 4.0], [40.0, 30.0, 20.0, 10.0], 1e6) == 0


@pytest.mark.parametrize(
    ("sparsities", "said"), [([80.0, 81.0], "2 measurements"), ([80.0, 90.0, 100.0, 100.0], "no neuron is active")]
)
def test_what_shows_no_course_is_refused(sparsities, said):
    with pytest.raises(ValueError, match=said):
        probes.settled([float(step + 1) for step in range(len(sparsities))], sparsities, 100.0)


def ledger(run: str, seed: int) -> list[dict[str, str]]:
    with open(PUBLISHED / f"checkpoints/{run}/seed{seed}/stage1/ledger.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("size", ["small", "medium"])
@pytest.mark.parametrize("level", ["low", "middle", "high"])
def test_the_first_part_of_a_published_run_tells_where_it_ends(size, level):
    """Constant λ after stage 0, three seeds: what was measured on held-out text at the end, within a point."""
    experiment = load(shipped(ROOT / "workflow/experiments/overnight.yaml"))
    run = experiment.runs[name := f"{size}-constant-{level}"]
    begin, total = (stage.until for stage in run.stages)
    full = run.training.time(total, after=begin)
    predicted, reached, ended = [], [], []
    for seed in range(3):
        rows = [(int(row["step"]), 100 * float(row["sparsity"])) for row in ledger(name, seed)]
        points = [(sum(run.training.rate(s, total) for s in range(begin + 1, step + 1)), s) for step, s in rows]
        times, sparsities = zip(*(point for point in points if point[0] < 0.65 * full), strict=True)
        predicted.append(probes.settled(times, sparsities, full))
        reached.append(sparsities[-1])
        measured = json.loads((PUBLISHED / f"measurements/{name}/seed{seed}/sparsity.json").read_text())
        ended.append(100 * next(m["sparsity"] for m in measured["measurements"] if m["activation"] == "relu"))
    error = statistics.fmean(predicted) - statistics.fmean(ended)
    assert abs(error) < 1
    # the probe's own end is further away, as a share of what is active
    short = (100 - statistics.fmean(reached)) / (100 - statistics.fmean(ended))
    assert abs(math.log((100 - statistics.fmean(predicted)) / (100 - statistics.fmean(ended)))) < math.log(short)


def test_a_factor_between_probes_lies_on_the_papers_kind_of_curve():
    a, b, c = -1.2, 0.4, 3.2
    curve = {factor: 100 - math.exp(a * factor**b + c) for factor in (8.0, 0.5, 2.0)}
    for factor in (0.5, 0.7, 2.0, 5.0, 8.0):
        assert probes.factor_of(curve, 100 - math.exp(a * factor**b + c), b) == pytest.approx(factor)
    assert probes.factor_of(curve, curve[0.5] - 0.1, b) is None
    assert probes.factor_of(curve, curve[8.0] + 0.1, b) is None
    assert probes.factor_of({1.0: 80.0, 2.0: 80.0}, 80.0, b) is None
