"""A dry run reports what would stop the run later, and a run stops on it before its first job."""

from __future__ import annotations

import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.paper_scale import paper_config
from helpers.workflow import snakemake


def start(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Snakemake where no token lies."""
    environment = {"HF_HOME": str(directory / "hub"), "HF_TOKEN": "", **variables}
    return snakemake(directory, *arguments, config=directory / "scale.yaml", environment=environment)


@pytest.fixture
def workplace(tmp_path):
    (tmp_path / "scale.yaml").write_text(yaml.safe_dump(paper_config()))
    return tmp_path


def test_a_dry_run_says_what_would_be_refused_and_goes_on(workplace):
    run = start(workplace, "table6", "--dry-run")
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    assert "would be refused" in said
    assert "runs.llama2-7b.init: the model meta-llama/Llama-2-7b-hf needs an access token" in said
    assert "train_stage" in said


class EmptyHub(BaseHTTPRequestHandler):
    """Knows no repository."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


def test_a_dry_run_and_a_start_ask_the_hub(workplace):
    server = ThreadingHTTPServer(("127.0.0.1", 0), EmptyHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        reached = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        dry = start(workplace, "table6", "--dry-run", **reached)
        begun = start(workplace, "table6", "--cores", "1", **reached)
    finally:
        server.shutdown()
    for run in (dry, begun):
        said = run.stdout + run.stderr
        assert "- runs.llama2-7b.init: the model meta-llama/Llama-2-7b-hf: NOT FOUND, or private" in said
        assert "- data.corpora.text.source: the data set some/text: NOT FOUND, or private" in said
    assert (dry.returncode, begun.returncode) == (0, 1)


def test_a_dry_run_of_a_target_that_needs_nothing_says_nothing(workplace):
    run = start(workplace, "figure1", "--dry-run")
    assert run.returncode == 0
    assert "refused" not in run.stdout + run.stderr


def test_a_run_is_refused_before_its_first_job(workplace):
    run = start(workplace, "table6", "--cores", "1")
    said = run.stdout + run.stderr
    assert run.returncode != 0
    assert "refused before the first job" in said
    assert "runs.llama2-7b.init: the model" in said
    assert "data.corpora.text.source: the data set" in said
    assert "Traceback" not in said
    assert not (workplace / "results").exists()


def test_the_target_plan_is_made_where_a_run_would_be_refused(workplace):
    run = start(workplace, "plan", "--cores", "1")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| prosparse " in run.stdout + run.stderr
    assert "README.md" not in run.stdout + run.stderr  # there is none yet
    assert "would be refused: runs.llama2-7b.init" in (workplace / "results/scale/plan.md").read_text()
