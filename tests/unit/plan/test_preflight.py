"""What is refused before the first job, and what is not."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import huggingface_hub
import pytest
import yaml
from helpers.paper_scale import A100, paper, paper_config
from helpers.repository import ROOT
from huggingface_hub import errors

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.loading import load
from prosparse.plan import downloads, preflight, targets
from prosparse.plan import hub as plan_hub
from prosparse.plan.downloads import Remote


@pytest.fixture(autouse=True)
def _no_token(monkeypatch, tmp_path):
    """No token of whoever runs the tests."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))


@pytest.fixture
def roomy(monkeypatch):
    """A disk and a memory of any size."""

    def set_sizes(disk: float = 1e16, memory: float = 1e13) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int(disk)))
        pages = {"SC_PHYS_PAGES": int(memory) // 4096, "SC_PAGE_SIZE": 4096}
        monkeypatch.setattr(os, "sysconf", pages.__getitem__)

    set_sizes()
    return set_sizes


def refusals(experiment: Experiment, directory: Path, local: bool = True, target: str = "all") -> list[str]:
    listed = targets.jobs_behind(experiment, directory, targets.targets(experiment)[target], target == "all")
    return preflight.refusals(experiment, directory, listed, downloads.remotes(experiment, listed, directory), local)


def finish(directory: Path, run: str, stage: int) -> None:
    file = directory / f"checkpoints/{run}/seed0/stage{stage}/provenance.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def test_gated_sources_without_a_token_are_refused_with_where_to_accept(roomy, tmp_path):
    model, corpus = refusals(paper(), tmp_path)
    assert "runs.llama2-7b.init" in model
    assert "https://huggingface.co/meta-llama/Llama-2-7b-hf" in model
    assert "data.corpora.text.source" in corpus
    assert "https://huggingface.co/datasets/some/text" in corpus
    assert "HF_TOKEN" in model


def test_a_token_opens_what_is_gated(roomy, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_something")
    assert refusals(paper(), tmp_path) == []


def test_a_token_file_opens_what_is_gated(roomy, tmp_path):
    (tmp_path / "token").write_text("hf_something")
    assert refusals(paper(), tmp_path) == []


def test_what_is_gated_and_done_needs_no_token(roomy, tmp_path):
    finish(tmp_path, "llama2-7b", 0)
    # but the tokenizer, which lies beside the model
    keys = [reason.split(":")[0] for reason in refusals(paper(), tmp_path)]
    assert keys == ["data.tokenizers.llama", "data.corpora.text.source"]
    manifest = tmp_path / "data/tokens/llama/text/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"tokens": 4096}')
    assert refusals(paper(), tmp_path) == []


def test_a_local_directory_needs_no_token(roomy, tmp_path):
    config = paper_config()
    (tmp_path / "model").mkdir()
    config["runs"]["llama2-7b"]["init"]["pretrained"] = str(tmp_path / "model")
    config["data"]["tokenizers"]["llama"]["pretrained"] = str(tmp_path / "model")
    config["data"]["corpora"]["text"]["source"]["hub"] = str(tmp_path / "model")
    assert refusals(load(config), tmp_path) == []


@pytest.fixture
def open_experiment():
    """Nothing gated."""
    config = paper_config()
    del config["runs"]["llama2-7b"]["init"]["gated"], config["data"]["corpora"]["text"]["source"]["gated"]
    return lambda **over: load({**config, **over})


@pytest.mark.parametrize("made", ["", "results", "results/scale"])
def test_results_that_cannot_be_written_are_refused(open_experiment, roomy, tmp_path, monkeypatch, made):
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    directory = tmp_path / "results" / "scale"
    assert refusals(open_experiment(), directory) == []
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / made)
    (reason,) = refusals(open_experiment(), directory)
    assert reason.startswith(f"disk: {tmp_path / made} is not writable")


def test_a_disk_that_checkpoints_alone_would_fill_is_refused(open_experiment, roomy, tmp_path):
    experiment = open_experiment()
    # six stages and vanilla's second, and one while the next takes its place; the original as it is released
    checkpoints = (7 * 12 + 12 + 2) * 6_738_415_616
    roomy(disk=checkpoints)
    assert refusals(experiment, tmp_path) == []
    roomy(disk=checkpoints - 1)
    (reason,) = refusals(experiment, tmp_path)
    assert reason.startswith("disk: ")
    assert "660 GB" in reason
    assert "AdamW" in reason
    # what is done needs no more room
    finish(tmp_path, "prosparse", 0)
    assert refusals(experiment, tmp_path) == []


def test_a_stage_under_way_needs_only_what_it_has_not_written(open_experiment, roomy, tmp_path):
    experiment = open_experiment()
    roomy(disk=(8 * 12 + 2) * 6_738_415_616 - 1000)
    assert refusals(experiment, tmp_path)
    resume = tmp_path / "checkpoints/prosparse/seed0/stage0/resume/checkpoint-100"
    resume.mkdir(parents=True)
    (resume / "optimizer.pt").write_bytes(bytes(1000))
    assert refusals(experiment, tmp_path) == []


def test_a_target_needs_less_disk_than_the_whole(open_experiment, roomy, tmp_path):
    experiment = open_experiment()
    roomy(disk=6.8e9 * (7 * 12 + 2))
    assert refusals(experiment, tmp_path)
    assert refusals(experiment, tmp_path, target="table6") == []
    assert refusals(experiment, tmp_path, target="figure1") == []


def test_disk_that_only_the_estimate_exceeds_is_a_doubt(open_experiment, roomy, tmp_path):
    experiment = open_experiment()
    roomy(disk=670e9)  # 580 GB of checkpoints, 81 GB for a while; 140 GB of tokens, twice as much of documents
    assert refusals(experiment, tmp_path) == []
    listed = targets.jobs_behind(experiment, tmp_path, targets.targets(experiment)["all"])
    (doubt,) = preflight.doubts(experiment, tmp_path, listed)
    assert doubt.startswith("disk: about 1,003 GB")


def test_a_model_that_no_gpu_can_hold_is_refused(open_experiment, roomy, tmp_path):
    config = {**paper_config()["training"], "fsdp": False}
    reasons = [reason for reason in refusals(open_experiment(training=config), tmp_path) if "AdamW" in reason]
    assert [reason.split(":")[0] for reason in reasons] == ["runs.prosparse", "runs.vanilla"]
    assert "108 GB" in reasons[0]  # 16 bytes a parameter
    assert "training.fsdp" in reasons[0]


def test_host_memory_counts_where_jobs_run_here(open_experiment, roomy, tmp_path):
    roomy(memory=16e9)
    experiment = open_experiment()
    (reason,) = refusals(experiment, tmp_path, local=True)
    assert reason.startswith("memory: ")
    assert "27 GB for float32 weights" in reason
    assert refusals(experiment, tmp_path, local=False) == []
    roomy(memory=100e9)
    assert refusals(experiment, tmp_path, local=True) == []
    (without_gpus,) = refusals(open_experiment(hardware=None), tmp_path, local=True)
    assert "108 GB for weights, gradients and AdamW" in without_gpus


def test_a_start_that_is_not_trained_takes_its_released_size(roomy, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_TOKEN", "hf_something")
    experiment = load(yaml.safe_load((ROOT / "workflow/experiments/released.yaml").read_text()))
    largest = 13_015_864_320  # LLaMA2-13B, in float16
    roomy(memory=2 * largest + 4096)
    assert refusals(experiment, tmp_path) == []
    roomy(memory=2 * largest - 4096)
    (reason,) = refusals(experiment, tmp_path)
    assert reason.startswith("memory: runs.")
    assert "needs 26 GB for weights as released" in reason


def test_a_batch_that_the_gpus_cannot_share_is_refused(open_experiment, roomy, tmp_path):
    reasons = refusals(open_experiment(hardware={**A100, "gpus": 6}), tmp_path)
    assert len(reasons) == 2
    assert "runs.prosparse.training.batch_size 512 is not a multiple of micro_batch_size 2 x 6 processes" in reasons[0]


@pytest.mark.parametrize("file", ["config.yaml", "workflow/experiments/smollm2.yaml"])
def test_small_experiments_are_not_refused_on_a_small_machine(file, roomy, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    experiment = load(yaml.safe_load((ROOT / file).read_text()))
    roomy(disk=1.5e9, memory=4e9)
    assert refusals(experiment, tmp_path) == []


# --------------------------------------------------------------------------------------- the hub

MODEL = Remote("model", "some/model", "abc", None, "https://huggingface.co/some/model", True, "runs.base.init")


def test_offline_the_hub_is_not_asked(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("asked"))
    assert plan_hub.ask_hub([MODEL]) is None


def test_a_hub_that_does_not_answer_is_given_up_soon(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(plan_hub, "_question", lambda remote, timeout: time.sleep(60))
    started = time.monotonic()
    assert plan_hub.ask_hub([MODEL, MODEL], timeout=0.2) is None
    assert time.monotonic() - started < 5


@pytest.fixture
def hub(monkeypatch):
    """A function that puts one in place that knows every model, but for the errors of some names."""

    def answer(**raised: Exception) -> list[str]:
        asked = []

        class Hub:
            endpoint = "https://huggingface.co"

            def repo_info(self, name: str, **options: Any) -> Any:
                assert options["repo_type"] == "model"
                asked.append(f"{name} {options['revision']}")
                if (error := raised.get(name.split("/")[1])) is not None:
                    raise error
                return SimpleNamespace(card_data={"license": "llama2"})

            def auth_check(self, name: str, **options: Any) -> None:
                pass

        monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
        return asked

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return answer


@pytest.mark.parametrize(
    ("error", "said", "refuses"),
    [
        (None, "access granted; licence llama2", False),
        ("GatedRepoError", "NO ACCESS: accept its terms (https://huggingface.co/some/model)", True),
        ("RevisionNotFoundError", "NO REVISION abc: correct runs.base.init.revision", True),
        ("RepositoryNotFoundError", "NOT FOUND, or private: correct runs.base.init", True),
        ("HFValidationError", "NO DIRECTORY, and no id that the hub could have: correct runs.base.init", True),
        ("HfHubHTTPError", "the hub refuses to say: ", False),
    ],
)
def test_what_the_hub_says(hub, error, said, refuses):
    kind = error and getattr(errors, error)
    asked = hub(**({"model": kind.__new__(kind)} if kind else {}))
    (answer,) = plan_hub.ask_hub([MODEL]).values()
    assert asked == ["some/model abc"]
    assert answer.text.startswith(said)
    assert answer.refuses == refuses
    assert plan_hub.refused_by_hub([MODEL], {("model", "some/model"): answer}) == (
        [f"runs.base.init: the model some/model: {answer.text}"] if refuses else []
    )
    done = replace(MODEL, needed=False)
    assert plan_hub.refused_by_hub([done], {("model", "some/model"): answer}) == []


def test_a_name_that_is_no_id_is_refused(hub):
    hub(**{"": errors.HFValidationError()})
    remote = replace(MODEL, name="some//model")
    (reason,) = plan_hub.refused_by_hub([remote], plan_hub.ask_hub([remote]))
    assert reason.startswith("runs.base.init: the model some//model: NO DIRECTORY")


def test_one_odd_remote_does_not_silence_the_others(hub):
    asked = hub(model=KeyError("sha"))
    odd, other = plan_hub.ask_hub([MODEL, replace(MODEL, name="some/other")]).values()
    assert len(asked) == 2
    assert "KeyError('sha')" in odd.text
    assert not odd.refuses
    assert other.text.startswith("access granted")


@pytest.mark.parametrize("error", [httpx2.ConnectError("no route"), httpx2.ReadTimeout("slow"), ConnectionError("off")])
def test_a_hub_that_is_not_reached_is_asked_once(hub, error):
    asked = hub(model=error)
    assert plan_hub.ask_hub([MODEL, replace(MODEL, name="some/other")]) is None
    assert len(asked) == 1


def test_a_start_asks_about_what_is_still_needed(hub, roomy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_something")
    config = paper_config(benchmarks={"rows": "packages", "tasks": ["piqa"]})
    config["data"]["corpora"]["text"]["source"]["hub"] = str(tmp_path)
    name = "Llama-2-7b-hf"
    asked = hub(**{name: errors.RevisionNotFoundError.__new__(errors.RevisionNotFoundError)})
    model, tokenizer = targets.target_refusals(load(config), ["table6"], local=True)
    assert (
        model
        == f"runs.llama2-7b.init: the model meta-llama/{name}: NO REVISION 01c7: correct runs.llama2-7b.init.revision"
    )
    assert tokenizer.startswith("data.tokenizers.llama: the tokenizer")
    assert asked == [f"meta-llama/{name} 01c7", f"meta-llama/{name} None"]
    finish(tmp_path / "results/scale", "llama2-7b", 0)
    asked.clear()
    targets.target_refusals(load(config), ["table6"], local=True)
    assert asked == [f"meta-llama/{name} None"]
    assert targets.target_refusals(load(config), ["figure1"], local=True) == []
    assert len(asked) == 1


def test_a_benchmark_in_many_data_sets_is_asked_for_by_its_first(tmp_path):
    experiment = load(paper_config(benchmarks={"rows": "hub", "tasks": ["agi_eval", "mmlu", "bbh"]}))
    listed = targets.jobs_behind(experiment, tmp_path, targets.targets(experiment)["all"])
    found = [remote for remote in targets.every_remote(experiment, tmp_path, listed) if remote.kind == "benchmark"]
    assert [remote.name for remote in found] == ["SaylorTwift/bbh", "cais/mmlu", "hails/agieval-aqua-rat"]
    assert all(remote.needed for remote in found)
    rows = tmp_path / "data/benchmark_rows/rows.json"
    rows.parent.mkdir(parents=True)
    rows.write_text('{"rows": {}}')
    assert not any(remote.needed for remote in targets.every_remote(experiment, tmp_path, listed)[-3:])


# ------------------------------------------------------------------------------------ in Snakemake


def snakemake(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(directory)]
    environment = {**os.environ, "HF_HOME": str(directory / "hub"), **variables}  # where no token lies
    environment.pop("HF_TOKEN", None)
    command += [*arguments, "--configfile", str(directory / "scale.yaml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


@pytest.fixture
def workplace(tmp_path):
    (tmp_path / "scale.yaml").write_text(yaml.safe_dump(paper_config()))
    return tmp_path


def test_a_dry_run_says_what_would_be_refused_and_goes_on(workplace):
    run = snakemake(workplace, "table6", "--dry-run")
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
        dry = snakemake(workplace, "table6", "--dry-run", **reached)
        start = snakemake(workplace, "table6", "--cores", "1", **reached)
    finally:
        server.shutdown()
    for run in (dry, start):
        said = run.stdout + run.stderr
        assert "- runs.llama2-7b.init: the model meta-llama/Llama-2-7b-hf: NOT FOUND, or private" in said
        assert "- data.corpora.text.source: the data set some/text: NOT FOUND, or private" in said
    assert (dry.returncode, start.returncode) == (0, 1)


def test_a_dry_run_of_a_target_that_needs_nothing_says_nothing(workplace):
    run = snakemake(workplace, "figure1", "--dry-run")
    assert run.returncode == 0
    assert "refused" not in run.stdout + run.stderr


def test_a_run_is_refused_before_its_first_job(workplace):
    run = snakemake(workplace, "table6", "--cores", "1")
    said = run.stdout + run.stderr
    assert run.returncode != 0
    assert "refused before the first job" in said
    assert "runs.llama2-7b.init: the model" in said
    assert "data.corpora.text.source: the data set" in said
    assert "Traceback" not in said
    assert not (workplace / "results").exists()


def test_the_target_plan_is_made_where_a_run_would_be_refused(workplace):
    run = snakemake(workplace, "plan", "--cores", "1")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| prosparse " in run.stdout + run.stderr
    assert "README.md" not in run.stdout + run.stderr  # there is none yet
    assert "would be refused: runs.llama2-7b.init" in (workplace / "results/scale/plan.md").read_text()


@pytest.mark.parametrize(
    ("memory", "refused", "doubted"), [(80, False, False), (28, False, False), (14, False, True), (12, True, False)]
)
def test_a_gpu_that_cannot_answer_benchmarks_is_known_before(tmp_path, roomy, memory, refused, doubted):
    """LLaMA2-7B in bfloat16: 13.5 GB of weights, and 3 GB for a prompt of 4,096 tokens."""
    over = {"precision": "bfloat16", "hardware": A100 | {"memory_gigabytes": memory}}
    experiment = paper(**over)
    listed = targets.jobs_behind(experiment, tmp_path, targets.targets(experiment)["all"])
    said = [line for line in refusals(experiment, tmp_path, local=False) if "benchmarks cannot be answered" in line]
    assert bool(said) == refused
    doubts = [line for line in preflight.doubts(experiment, tmp_path, listed) if "may not be answered" in line]
    assert bool(doubts) == doubted
