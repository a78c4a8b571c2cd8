"""Loss over sparsity."""

from __future__ import annotations

import copy

import pytest
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.figures.figure_frontier import needs
from prosparse.paper.figures.frontier_panel import Original, Panel, Point, Styles, label_place
from prosparse.paper.figures.registry import FIGURES

TINY = "tiny (stands for LLaMA2-7B)"


def rows(synthetic, key="data"):
    _, data = FIGURES.build("figure_frontier", synthetic.results)
    return {(row["model"], row["method"], row["pair"]): row for row in data[key]}


def test_points_are_the_seeds_means_with_their_standard_deviation(several_seeds):
    found = rows(several_seeds)
    # seeds 1, 2, 3 add 0.1, 0.2, 0.3 points and 0.002, 0.004, 0.006 nats; FATReLU 0.03 adds 3.6 points, 0.0135 nats
    point = found[TINY, "Progressive λ (ProSparse)", "progressive@fatrelu-0.03"]
    assert (point["sparsity"], point["sparsity_spread"]) == (pytest.approx(92.3), pytest.approx(0.1))
    assert (point["loss"], point["loss_spread"]) == (pytest.approx(3.5075), pytest.approx(0.002))
    original = found[TINY, "original", "base"]
    assert (original["loss"], original["loss_spread"]) == (pytest.approx(3.504), pytest.approx(0.002))
    assert len(found) == (9 + 1) + 3 * 3 + (5 + 1)


def test_one_seed_has_no_spread_and_no_bars(synthetic, several_seeds):
    assert {row["loss_spread"] for row in rows(synthetic).values()} == {None}

    def bars(results):
        panel = FIGURES.build("figure_frontier", results)[0].to_dict()["vconcat"][0]["hconcat"][0]
        return [layer for layer in panel["layer"] if layer["encoding"].keys() & {"x2", "y2"}]

    assert bars(synthetic.results) == []
    assert len(bars(several_seeds.results)) == 3  # both directions, and the original's band


def test_every_panel_gives_a_method_the_same_color_and_shape(synthetic):
    chart = FIGURES.build("figure_frontier", synthetic.results)[0].to_dict()
    panels = [panel for row in chart["vconcat"] for panel in row["hconcat"]]
    assert [panel["title"]["text"] for panel in panels] == [
        TINY, "tiny, fine-tuned", "Paper: LLaMA2-7B", "Paper: LLaMA2-13B",
    ]  # fmt: skip
    scales = [
        layer["encoding"][channel]["scale"]
        for panel in panels
        for layer in panel["layer"]
        for channel in ("color", "shape")
        if channel in layer["encoding"] and "scale" in layer["encoding"][channel]
    ]
    assert {tuple(scale["domain"]) for scale in scales} == {
        (
            "Vanilla ReLU", "Shifted ReLU", "Constant λ", "Progressive λ (ProSparse)", "ReluLLaMA", "Fine-tuned",
            "CATS (no training)", "TEAL (no training)", "CETT (no training)",
        )
    }  # fmt: skip
    colors, shapes = {tuple(scale["range"]) for scale in scales}
    assert len(set(zip(colors, shapes, strict=True))) == 9


def test_only_the_papers_axis_is_reversed_and_every_point_is_inside(several_seeds):
    chart = FIGURES.build("figure_frontier", several_seeds.results)[0].to_dict()
    for row, is_reversed in zip(chart["vconcat"], (False, True), strict=True):
        for panel in row["hconcat"]:
            points = [layer for layer in panel["layer"] if layer["mark"]["type"] == "point" and not clipped(layer)]
            for layer in points:
                x, y = (layer["encoding"][axis]["scale"] for axis in ("x", "y"))
                assert y["reverse"] is is_reversed
                for value in layer["data"]["values"]:
                    assert x["domain"][0] <= value["left"] <= value["right"] <= x["domain"][1]
                    assert y["domain"][0] < value["low"] <= value["high"] < y["domain"][1]


def clipped(layer):
    return layer["mark"].get("clip", False)


def left_ends(chart):
    panels = [panel for row in chart["vconcat"] for panel in row["hconcat"]]
    return [panel["layer"][-1]["encoding"]["x"]["scale"]["domain"][0] for panel in panels]


def test_lines_without_training_begin_in_their_panel_and_leave_it_at_the_top(synthetic):
    """The trained models' losses set the axis."""
    chart = FIGURES.build("figure_frontier", synthetic.results)[0].to_dict()
    ours, fine_tuned = chart["vconcat"][0]["hconcat"]
    line, dots = [layer for layer in ours["layer"] if clipped(layer)]
    assert line["mark"]["strokeDash"]
    values = line["data"]["values"]
    assert values == dots["data"]["values"]
    low, high = line["encoding"]["y"]["scale"]["domain"]
    assert min(row["quality"] for row in values) > low
    assert {row["pair"] for row in values if row["quality"] > high} == {
        "TEAL, 50%", "TEAL, 90%", "CATS, 90%", "CETT, 90%",
    }  # fmt: skip
    assert not [layer for layer in fine_tuned["layer"] if clipped(layer)]
    assert left_ends(chart) == [15, 15, 60, 60]  # 19% sparsity at 1% more perplexity; the paper's are as without
    assert "without training" in " ".join(chart["title"]["subtitle"])


def test_a_figure_of_trained_models_says_nothing_of_others(synthetic):
    config = copy.deepcopy(CONFIG)
    del config["figures"]["frontier"][TINY]["training_free"]
    chart = FIGURES.build("figure_frontier", Synthetic(synthetic.directory, config).results)[0].to_dict()
    assert "without training" not in " ".join(chart["title"]["subtitle"])
    assert left_ends(chart) == [60] * 4


def test_a_single_model_stands_beside_the_papers(tmp_path):
    frontier = {TINY: CONFIG["figures"]["frontier"][TINY]}
    one = Synthetic(tmp_path / "one", {**CONFIG, "figures": {"frontier": frontier}}).write()
    chart = FIGURES.build("figure_frontier", one.results)[0].to_dict()
    assert [len(row["hconcat"]) for row in chart["vconcat"]] == [3]


def test_the_papers_points_name_their_table(synthetic):
    found = rows(synthetic, "published")
    assert found["Paper: LLaMA2-7B", "original", "Table 1, LLaMA2-7B"]["performance"] == 37.96
    point = found["Paper: LLaMA2-13B", "Constant λ", "Table 5, λ = 2e-2"]
    assert (point["sparsity"], point["performance"]) == (88.96, 42.85)


def test_needs_the_sparsity_of_every_pair(synthetic):
    assert {"base", "dense", "vanilla", "shifted", "constant-0.4", "progressive", "sft-0.4"} <= needs(
        synthetic.experiment
    ).sparsity
    assert needs(synthetic.experiment).benchmarks == set()
    assert needs(synthetic.experiment).training_free == {("base", "silu")}


@pytest.mark.parametrize("sparsity", [60, 95])
@pytest.mark.parametrize("offset", [0.02, -0.02])
def test_the_originals_label_keeps_clear_of_the_points(sparsity, offset):
    points = [Point("any", "any", sparsity, None, 3 + offset, None), Point("any", "far", 75, None, 3.3, None)]
    panel = Panel("any", "loss", "{:.3f}", points, Original("base", 3.0, None))
    is_right, is_above = label_place(panel, Styles({}, (55, 100)))
    assert is_right != (sparsity == 95) or is_above != (offset > 0)
