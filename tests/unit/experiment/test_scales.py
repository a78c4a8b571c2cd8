"""A run with scales stands for one run per scale of λ."""

from __future__ import annotations

import copy

import pytest
from helpers.synthetic_results import CONFIG

from prosparse.experiment.loading import load
from prosparse.system.errors import ConfigError

GRID = {
    "init": {"run": "base"},
    "activation": "relu",
    "mixture": "mixed",
    "scales": [0.5, 3],
    "stages": [{"until": 40}, {"until": 60, "peak": 0.1}, {"until": 180, "peak": 1, "shape": "linear"}],
}


def config(**changed):
    raw = copy.deepcopy(CONFIG)
    raw["runs"]["grid"] = copy.deepcopy(GRID) | changed
    return raw


def test_every_peak_is_multiplied_and_nothing_else_changes():
    runs = load(config()).runs
    peaks = {name: [stage.peak for stage in runs[name].stages] for name in ("grid-x0.5", "grid-x3")}
    assert peaks == {"grid-x0.5": [0, 0.05, 0.5], "grid-x3": [0, 0.3, 3]}
    by_hand = copy.deepcopy(CONFIG)
    by_hand["runs"]["grid-x3"] = {
        **{key: value for key, value in GRID.items() if key != "scales"},
        "stages": [{"until": 40}, {"until": 60, "peak": 0.3}, {"until": 180, "peak": 3, "shape": "linear"}],
    }
    assert runs["grid-x3"] == load(by_hand).runs["grid-x3"]
    assert "grid" not in runs


def test_runs_keep_their_order():
    """The first run of a shared stage owns its checkpoint."""
    raw = config()
    raw["runs"]["last"] = raw["runs"]["vanilla"]
    assert list(load(raw).runs)[-3:] == ["grid-x0.5", "grid-x3", "last"]


def test_a_list_that_names_the_run_names_all_of_them():
    raw = config()
    raw["search"] = ["constant-0.3", "grid@fatrelu-0.01"]
    raw["figures"]["schedule"] = ["vanilla", "grid"]
    experiment = load(raw)
    assert experiment.search == ["constant-0.3", "grid-x0.5@fatrelu-0.01", "grid-x3@fatrelu-0.01"]
    assert experiment.figures.schedule == ["vanilla", "grid-x0.5", "grid-x3"]
    raw = config()
    raw["schedules"]["comparisons"]["shapes"]["methods"]["Grid"] = ["grid"]
    assert load(raw).schedules.comparisons["shapes"].methods["Grid"] == ["grid-x0.5", "grid-x3"]


def test_what_wants_one_run_is_told_the_names():
    raw = config()
    raw["ours"]["Grid"] = "grid"
    with pytest.raises(ConfigError, match=r"ours\.Grid: unknown name 'grid' \(did you mean grid-x3\?\)"):
        load(raw)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        *(
            ({"scales": scales}, r"runs\.grid\.scales: must list distinct numbers above 0 \(got ")
            for scales in ([], [0], [-1], [1, 1.0], ["2"], [True], 2, None, [float("inf")])
        ),
        ({"stages": [{"until": 40}]}, r"runs\.grid\.scales: no stage of the run has a peak to multiply"),
        ({"stages": None}, r"runs\.grid\.scales: no stage of the run has a peak to multiply"),
        ({"mixture": "mixd"}, r"runs\.grid-x0\.5\.mixture: unknown name 'mixd'"),
    ],
)
def test_bad_scales_name_the_run(changed, message):
    with pytest.raises(ConfigError, match=message):
        load(config(**changed))


def test_a_scaled_run_cannot_take_anothers_name():
    raw = config()
    raw["runs"]["grid-x3"] = raw["runs"]["vanilla"]
    with pytest.raises(ConfigError, match=r"runs\.grid\.scales: grid-x3 is also a run of its own; rename one"):
        load(raw)
