"""Names of our models for readers."""

from __future__ import annotations

import pytest
from helpers.synthetic_results import CONFIG

from prosparse.experiment import loading
from prosparse.paper.figures.registry import FIGURES
from prosparse.paper.results.labels import label, run_label
from prosparse.paper.tables.registry import TABLES
from prosparse.paper.tables.text import to_csv, to_latex, to_markdown


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("base", "tiny, original"),
        ("vanilla", "tiny, Vanilla ReLU"),
        ("shifted", "tiny, Shifted ReLU"),
        ("dense", "tiny, dense, continued"),
        ("progressive@relu", "tiny, ProSparse (progressive)"),
        ("progressive@fatrelu-0.01", "tiny, ProSparse (progressive), FATReLU 0.01"),
        ("constant-0.1", "tiny, constant λ = 0.1"),
        ("sft-0.1", "tiny, constant λ = 0.1, after ProSparse (progressive), 40 steps"),  # final-0.1 has 60
    ],
)
def test_a_label_names_the_model_and_its_method(pair, expected):
    assert label(loading.load(CONFIG), pair) == expected


def test_a_label_names_an_activation_other_than_relu():
    steered = CONFIG["runs"]["steered"]
    experiment = loading.load({**CONFIG, "runs": CONFIG["runs"] | {"squared": steered | {"activation": "relu2"}}})
    assert label(experiment, "steered") == "tiny, λ steered to 90%"
    assert label(experiment, "squared") == "tiny, squared ReLU, λ steered to 90%"


def test_a_runs_own_label_is_used_and_identical_runs_keep_their_names(synthetic):
    runs = CONFIG["runs"] | {"twin": CONFIG["runs"]["vanilla"]}
    runs["sft-0"] = runs["sft-0"] | {"label": "SFT without λ"}
    experiment = loading.load({**CONFIG, "runs": runs})
    assert label(experiment, "sft-0") == "tiny, SFT without λ"
    assert label(experiment, "twin") == "tiny, Vanilla ReLU (twin)"
    assert len({run_label(experiment, run) for run in runs}) == len(runs)


def test_a_line_is_not_called_progressive():
    ramp = CONFIG["runs"]["vanilla"] | {"stages": [{"until": 180, "shape": "linear", "peak": 0.2}]}
    experiment = loading.load({**CONFIG, "runs": CONFIG["runs"] | {"ramp": ramp}})
    assert label(experiment, "ramp") == "tiny, linear λ up to 0.2"


def test_a_pretrained_model_is_named_by_the_end_of_its_path():
    runs = {**CONFIG["runs"], "base": CONFIG["runs"]["base"] | {"init": {"pretrained": "HuggingFaceTB/SmolLM2-135M"}}}
    assert label(loading.load({**CONFIG, "runs": runs}), "vanilla") == "SmolLM2-135M, Vanilla ReLU"


def test_tables_and_figures_show_labels_and_keep_the_identifiers_in_their_data(synthetic):
    for name in ("table1", "table5", "table9", "table2", "table2_predictors", "ours", "table6"):
        table = TABLES.build(name, synthetic.results)
        for text in (to_markdown(table), to_latex(table)):
            assert "tiny, ProSparse (progressive)" in text, name
            assert "progressive@" not in text, name
        assert "progressive" in to_csv(table)
    _, data = FIGURES.build("figure2", synthetic.results)
    assert {(row["run"], row["series"]) for row in data["data"]} >= {
        ("progressive", "tiny, ProSparse (progressive)"), ("constant-0.1", "tiny, constant λ = 0.1")
    }  # fmt: skip
