"""The runs that calibrate λ, and what they found."""

from __future__ import annotations

import copy
import json

import pytest
import yaml
from helpers.repository import CONFIGS, ROOT, shipped

from prosparse.experiment import lineage, specifications
from prosparse.experiment.calibrated import calibrated, probes, refusal, specification, uncalibrated
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.experiment.loading import load
from prosparse.system.errors import ConfigError

PAPER = yaml.safe_load((ROOT / "workflow/experiments/paper.yaml").read_text(encoding="utf-8"))


def config(**section):
    raw = copy.deepcopy(PAPER)
    raw["calibration"]["7B"] |= section
    return raw


@pytest.fixture
def found(tmp_path, monkeypatch):
    """The paper's experiment after `snakemake calibrate` of its 7B model, in a directory with these results."""
    monkeypatch.chdir(ROOT)
    experiment = load(copy.deepcopy(PAPER))
    monkeypatch.chdir(tmp_path)
    path = Layout.of(experiment).calibration("7B", "json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"multiplier": 3, "specification": specification(experiment, "7B").model_dump()}))
    return experiment


def peaks(experiment, run):
    return [stage.peak for stage in experiment.runs[run].stages]


def test_probes_continue_stage_0_at_the_peak_learning_rate():
    experiment = load(config(probes=[0.5, 4], steps=600))
    names = probes(experiment, "7B")
    assert names == ["probe-7b-0.5", "probe-7b-4"]
    built = specifications.stage(experiment, names[1], 0, 0)
    full = specifications.stage(experiment, "prosparse-7b", 0, 0)
    assert lineage.predecessor(experiment, names[1], 0) == ("prosparse-7b", 0)
    assert [stage.model_dump() for stage in built.stages] == [{"until": 600, "shape": "constant", "peak": 4}]
    changed = {"schedule": "constant", "warmup_steps": 60}
    assert built.training == full.training.model_copy(update=changed)
    assert (built.mixture, built.activation) == (full.mixture, full.activation)
    # rows that stage 0 has seen are not repeated
    assert built.earlier[-1].samples == 5000 * 512
    measured = specification(experiment, "7B")
    assert (measured.probes, measured.steps, measured.training) == ([0.5, 4], 600, built.training)
    assert measured.full_time == full.training.time(16500, after=5000)


def test_the_peaks_of_the_model_and_of_no_other_are_multiplied(found):
    after = calibrated(found)
    assert peaks(after, "prosparse-7b") == [0, 0.015, 0.15, 0.15, 0.6, 0.6]
    assert peaks(after, "final-1-7b") == [0.03]
    assert peaks(after, "vanilla-7b") == [0, 0]
    for run in ("prosparse-13b", "sft-1b", *probes(found, "7B")):
        assert after.runs[run] == found.runs[run]
    assert after.calibration["7B"].multiplier == 3
    # what a job is made from, and a ledger's λ
    assert specifications.stage(after, "prosparse-7b", 1, 0).stages[-1].peak == 0.015
    # once: neither from the resolved config, nor where the file says that its peaks are final
    assert calibrated(Experiment.model_validate_json(after.model_dump_json())) == after
    assert peaks(calibrated(load(config(multiplier=1))), "prosparse-7b")[1] == 0.005


def test_stages_with_a_peak_wait_for_their_models_calibration(found):
    waiting = {
        (run, stage): scale
        for run, chosen in found.runs.items()
        for stage in range(len(chosen.stages))
        if (scale := uncalibrated(found, run, stage)) is not None
    }
    assert waiting["prosparse-7b", 1] == waiting["final-5-7b", 0] == "7B"
    assert waiting["constant-low-13b", 1] == "13B"
    assert waiting["decay-1b", 0] == waiting["sft-1b", 0] == "1B"
    assert not {("prosparse-7b", 0), ("vanilla-7b", 1), ("probe-7b-2", 0), ("sft-without-1b", 0)} & waiting.keys()
    after = calibrated(found)
    assert all(uncalibrated(after, *key) == (None if scale == "7B" else scale) for key, scale in waiting.items())
    said = refusal(found, "13B", "prosparse-13b")
    assert "runs.prosparse-13b" in said
    assert "snakemake calibrate" in said
    assert "results/paper/calibration/13B.md" in said


@pytest.mark.parametrize("section", [{"probes": [1, 3]}, {"steps": 2000}])
def test_the_multiplier_of_other_probes_does_not_count(found, section):
    changed = load(config(**section))
    assert calibrated(changed) == changed
    assert uncalibrated(calibrated(changed), "prosparse-7b", 1) == "7B"


def test_probes_too_short_to_fit_are_refused():
    assert load(config(steps=25))  # steps 10, 20 and 25 are logged after the first quarter
    with pytest.raises(ConfigError, match=r"calibration\.7B\.steps: 20 steps have 2 rows of the ledger after"):
        load(config(steps=20))


@pytest.mark.parametrize("text", ["", "[]", '{"multiplier": 0}', '{"multiplier": null}'])
def test_a_result_without_a_multiplier_is_refused(found, text):
    path = Layout.of(found).calibration("7B", "json")
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"calibration/7B\.json has no multiplier: delete it and run"):
        calibrated(found)


def test_experiments_without_a_calibration_stay_as_they_are():
    for path in CONFIGS:
        experiment = load(shipped(path))
        if not experiment.calibration:
            assert calibrated(experiment) == experiment
            assert not any(uncalibrated(experiment, run, 0) for run in experiment.runs)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"run": "prosparse-8b"}, r"calibration\.7B\.run: unknown name 'prosparse-8b' \(did you mean prosparse-7b"),
        ({"run": "vanilla-7b"}, r"calibration\.7B\.run: vanilla-7b needs a stage 0 without λ and a later stage with"),
        ({"run": "final-1-7b"}, r"calibration\.7B\.run: final-1-7b needs a stage 0"),
        ({"run": "prosparse-13b"}, "calibration: 7B, 13B, 1B must be of different models"),
        ({"probes": [2]}, r"calibration\.7B\.probes: "),
        ({"probes": [2, 1]}, r"calibration\.7B\.probes: must rise"),
        ({"probes": [0, 1]}, r"calibration\.7B\.probes\.0: .*greater than 0"),
        ({"steps": 10}, r"calibration\.7B\.steps: "),
    ],
)
def test_bad_sections_are_refused(section, said):
    with pytest.raises(ConfigError, match=said):
        load(config(**section))


def test_a_run_with_a_probes_name_is_refused():
    raw = config()
    raw["runs"]["probe-7b-2"] = copy.deepcopy(raw["runs"]["vanilla-7b"])
    with pytest.raises(ConfigError, match=r"runs\.probe-7b-2 has the name of a calibration's probe"):
        load(raw)
