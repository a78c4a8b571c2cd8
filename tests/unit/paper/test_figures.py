from __future__ import annotations

import json
import math
import random

import pytest
from helpers.synthetic_results import CONFIG, FIT, Synthetic

from prosparse.config import ConfigError
from prosparse.paper.figures import registry as figures
from prosparse.paper.results.fit import curve, fit
from prosparse.published.tables import FIGURE3_FIT, published_table


@pytest.mark.parametrize("planted", [FIT, FIGURE3_FIT, (-0.5, 0.9, 4.2), (-3.0, 0.1, 5.0)])
def test_fit_recovers_planted_parameters(planted):
    factors = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    found = fit(factors, [curve(x, *planted) for x in factors])
    assert (found.a, found.b, found.c) == pytest.approx(planted, rel=1e-3)
    assert found.r_squared == pytest.approx(1)
    assert found.degrees_of_freedom == 5


def test_fit_is_least_squares_in_sparsity():
    """No nearby parameters do better than the fit on noisy points."""
    noise = random.Random(0)
    factors = [0.01, 0.03, 0.1, 0.3, 1.0]
    sparsities = [curve(x, *FIT) + noise.gauss(0, 0.4) for x in factors]
    found = fit(factors, sparsities)

    def error(a, b, c):
        return sum((y - curve(x, a, b, c)) ** 2 for x, y in zip(factors, sparsities, strict=True))

    best = error(found.a, found.b, found.c)
    for _ in range(300):
        near = [p * (1 + noise.uniform(-0.02, 0.02)) for p in (found.a, found.b, found.c)]
        assert error(*near) >= best - 1e-9
    assert found.residual_deviation == pytest.approx(math.sqrt(best / 2))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    noise = random.Random(1)
    factors = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
    inside = 0
    for _ in range(60):
        found = fit(factors, [curve(x, *FIT) + noise.gauss(0, 0.3) for x in factors])
        low, high = found.interval(0.3)
        inside += low <= curve(0.3, *FIT) <= high
    assert inside >= 50  # 57 expected


def test_an_exponent_that_the_points_do_not_determine_is_said_so():
    power_law = [100 - 20 * x**-0.2 for x in (0.05, 0.1, 0.2, 0.4, 0.8)]  # the limit of a small exponent
    found = fit([0.05, 0.1, 0.2, 0.4, 0.8], power_law)
    assert not found.identified
    assert abs(found.a) < 100
    assert found.r_squared > 0.99
    assert fit([0.01, 0.1, 1.0, 3.0], [curve(x, *FIT) for x in (0.01, 0.1, 1.0, 3.0)]).identified


def test_fit_refuses_what_it_cannot_determine():
    with pytest.raises(ValueError, match="three distinct"):
        fit([0.1, 0.1, 0.2], [80, 81, 85])
    with pytest.raises(ValueError, match="lambda_S > 0"):
        fit([0, 0.1, 0.2], [60, 80, 85])
    assert fit([0.01, 0.1, 1.0], [70, 80, 90]).interval(0.1) is None


def test_the_published_fit_is_near_the_published_sparsities():
    """Table 5's 7B runs at constant lambda, within 2 points of figure 3's curve."""
    for row in published_table("table5_constant_factor"):
        if row["scale"] == "7B" and row["lambda"] != "ProSparse":
            assert curve(float(row["lambda"]), *FIGURE3_FIT) == pytest.approx(float(row["average_sparsity"]), abs=2.5)
    assert curve(0.2, -1.76, 0.30, 3.49) == pytest.approx(100 - math.exp(-1.76 * 0.2**0.3 + 3.49))


def test_figure3_finds_what_the_runs_were_made_with(synthetic):
    figures.write("figure3", synthetic.experiment, synthetic.directory)
    data = json.loads((synthetic.directory / "figures" / "figure3.json").read_text())
    # the synthetic seed adds 0.1 points to every run
    assert [data["fit"][key] for key in "abc"] == pytest.approx(FIT, abs=0.02)
    assert len(data["data"]) == 6


@pytest.mark.parametrize("name", figures.FIGURES)
def test_figures_are_drawn(several_seeds, name):
    png, svg, data = figures.write(name, several_seeds.experiment, several_seeds.directory)
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert "synthetic" in svg.read_text()
    assert json.loads(data.read_text())["figure"] == name
    assert not list(png.parent.glob("*partial*"))


def test_figures_without_runs_say_missing(nothing):
    for name in figures.FIGURES:
        _, svg, _ = figures.write(name, nothing.experiment, nothing.directory)
        assert "missing" in svg.read_text().lower(), name


def test_published_stages_peak_where_the_tables_say():
    _, data = figures.build("figure1", _NoResults())
    curves = {}
    for row in data["data"]:
        curves.setdefault(row["series"], []).append((row["progress"], row["lambda"]))
    assert curves["7B"][-1] == pytest.approx((16.5, 0.2))
    assert curves["13B"][-1] == pytest.approx((16.0, 0.02))
    assert curves["1B"][-1] == pytest.approx((35.0, 0.05))
    middle = min(curves["7B"], key=lambda point: abs(point[0] - 8))  # halfway up stage 2
    assert middle[1] == pytest.approx((5e-3 + 5e-2) / 2, abs=1e-3)


class _NoResults:
    class experiment:
        experiment = "none"
        seeds = (1,)

        class figures:
            schedule = ()


def test_unknown_figure():
    with pytest.raises(ConfigError, match="figure4"):
        figures.needs("figure9", None)


def test_runs_that_were_not_trained_draw_no_curve(tmp_path):
    still = {"init": {"pretrained": "some-model"}, "activation": "relu", "mixture": "mixed", "stages": [{"until": 0}]}
    runs = {**CONFIG["runs"], "base-still": still}
    for names, drawn in ((["base-still"], set()), (["base-still", "vanilla"], {"vanilla"})):
        chosen = {**CONFIG["figures"], "schedule": names, "sparsity_curves": names}
        synthetic = Synthetic(tmp_path / str(len(names)), {**CONFIG, "runs": runs, "figures": chosen}).write()
        _, first = figures.build("figure1", synthetic.results)
        assert {row["series"] for row in first["data"] if row["panel"] == "ours"} == drawn
        _, second = figures.build("figure2", synthetic.results)
        assert {row["series"] for row in second["data"]} == drawn
