"""The search log."""

from __future__ import annotations

import copy
import csv
import io

import pytest
from helpers.synthetic_results import CONFIG, Synthetic

from prosparse.paper.tables.registry import TABLES
from prosparse.paper.tables.text import to_csv, to_markdown


def test_search_log_tells_what_each_run_tried(synthetic):
    table = TABLES.build("search", synthetic.results)
    assert [row.label for row in table.rows] == synthetic.experiment.search
    text = to_markdown(table)
    assert (
        "| **constant-0.3** | ours | base | relu | next token | 0.001 | cosine | 180 | 368,640 | 0 (40), 0.3 (180) |"
    ) in text
    assert "| **distilled** | ours | dense | relu | 0.5 from base | 0.001 | cosine | 30 | 61,440 | 0 (30) |" in text
    assert "| 0 (40), 0.01 (60), sine 0.1 (100), sine 0.1 (120), sine 0.4 (160), sine 0.4 (180) |" in text
    cells = table.rows[1].cells
    assert cells["average_sparsity"].ours.mean == pytest.approx(65.1)
    assert cells["tuning_loss"].ours.mean == pytest.approx(3.492)
    assert cells["lm_loss"].ours.mean == 3.6
    lines = {(line["row"], line["column"]): line for line in csv.DictReader(io.StringIO(to_csv(table)))}
    assert lines["distilled", "objective"]["ours"] == "0.5 from base"
    assert lines["progressive-trial", "average_sparsity"]["ours"] == "88.6"
    shifted = synthetic.results.sparsity("progressive-trial", "fatrelu-0.03").sparsity.mean
    assert shifted > 88.6
    assert float(lines["progressive-trial@fatrelu-0.03", "average_sparsity"]["ours"]) == pytest.approx(shifted)


def test_search_log_of_starts(synthetic):
    raw = copy.deepcopy(CONFIG)
    raw["runs"]["final-1"]["init"]["stage"] = 2
    raw["runs"]["final-1"]["training"] = {"schedule": "wsd", "decay_share": 0.2}
    raw["runs"]["final-1"]["stages"] = [{"until": 30, "peak": 0.1, "shape": "linear"}, {"until": 60, "peak": 0.1}]
    raw |= {"search": ["final-1", "base"], "rows": {}, "ours": {}, "figures": {}, "schedules": {}}
    table = TABLES.build("search", Synthetic(synthetic.directory, raw).write().results)
    starts = [row.cells["start"].text for row in table.rows]
    assert starts[0] == "progressive stage 2"
    assert table.rows[0].cells["schedule"].text == "wsd, decay 0.2"
    assert table.rows[0].cells["stages"].text == "linear 0.1 (30), 0.1 (60)"
    assert starts[1].startswith("llama, 6 layers")
    raw["runs"]["base"] |= {
        "init": {"pretrained": "some-model", "gguf_file": "Some-135M.Q4_1.gguf"},
        "stages": [{"until": 0}],
    }
    text = to_markdown(TABLES.build("search", Synthetic(synthetic.directory / "untrained", raw).write().results))
    assert "| **base** | ours | Some-135M.Q4_1 (GGUF) | silu | – | – | – | 0 | 0 | – | 0.00 | 3.502 | – |" in text
