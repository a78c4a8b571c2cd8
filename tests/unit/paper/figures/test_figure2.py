"""Figure 2."""

from __future__ import annotations

from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.figures.registry import FIGURES


def test_runs_that_were_not_trained_draw_no_curve(tmp_path):
    still = {"init": {"pretrained": "some-model"}, "activation": "relu", "mixture": "mixed", "stages": [{"until": 0}]}
    runs = {**CONFIG["runs"], "base-still": still}
    for names, drawn in ((["base-still"], set()), (["base-still", "vanilla"], {"vanilla"})):
        chosen = {**CONFIG["figures"], "schedule": names, "sparsity_curves": names}
        synthetic = Synthetic(tmp_path / str(len(names)), {**CONFIG, "runs": runs, "figures": chosen}).write()
        _, first = FIGURES.build("figure1", synthetic.results)
        assert {row["run"] for row in first["data"] if row["panel"] == "ours"} == drawn
        _, second = FIGURES.build("figure2", synthetic.results)
        assert {row["run"] for row in second["data"]} == drawn
