"""Start-up is what jobs took beyond the work that their results record."""

from __future__ import annotations

import json

from prosparse.experiment.layout import Layout
from prosparse.paper.sections.times import start_up


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_jobs_without_their_results_are_left_out(tmp_path):
    for run in ("one", "two"):
        write(tmp_path / f"timings/sparsity/{run}.tsv", "s\th:m:s\n10\t0:00:10\n")
        write(tmp_path / f"timings/predictors/{run}.tsv", "s\th:m:s\n100\t0:01:40\n")
        result = json.dumps({"provenance": {"wall_seconds": 6}})
        write(tmp_path / f"measurements/{run}/seed0/sparsity.json", result)
    write(tmp_path / "predictors/one/seed0/relu/training.json", json.dumps({"provenance": {"wall_seconds": 90}}))
    (said,) = start_up(Layout(None, tmp_path))
    assert (
        said == "The jobs of sparsity took 20 s, of which 12 s were work. Process start and imports took the other 40%."
    )
