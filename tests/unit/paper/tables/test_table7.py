"""Table 7."""

from __future__ import annotations

from helpers.synthetic_results import CONFIG, Synthetic
from helpers.tables import row_of

from prosparse.paper.tables.registry import TABLES


def test_table7_continues_decay_and_sft_from_the_run_before(tmp_path):
    vanilla = CONFIG["runs"]["vanilla"]
    raw = {
        **CONFIG,
        "runs": {
            **CONFIG["runs"],
            "decay": {**vanilla, "init": {"run": "progressive"}, "stages": [{"until": 30, "peak": 0.4}]},
            "sft-tuned": {**vanilla, "init": {"run": "decay"}, "stages": [{"until": 10, "peak": 0.1}]},
        },
        "stages": {"1B": ["progressive", "decay", "sft-tuned"]},
    }  # fmt: skip
    table = TABLES.build("table7", Synthetic(tmp_path, raw).write().results)
    decay, tuned = row_of(table, "1B, decay"), row_of(table, "1B, SFT")
    assert decay.cells["accumulated_steps"].ours.mean == 180 + 30
    assert tuned.cells["accumulated_steps"].ours.mean == 180 + 30 + 10
    assert tuned.cells["accumulated_tokens"].ours.mean == 220 * 8 * 256
    assert tuned.cells["lambda"].published == "1e-2"
    extra = row_of(table, "1B, stage 5")  # ours has a stage that the 1B model had not
    assert not extra.is_published
    assert extra.pair == "progressive, stage 5"
