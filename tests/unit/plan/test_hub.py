"""What the hub is asked before the first job, and what its answers mean."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx2
import huggingface_hub
import pytest
from helpers.paper_scale import finish, paper_config
from huggingface_hub import errors

from prosparse.experiment.layout import Layout
from prosparse.experiment.loading import load
from prosparse.plan import hub as plan_hub
from prosparse.plan import targets
from prosparse.plan.downloads import Remote

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
        (None, "access granted; license llama2", False),
        ("GatedRepoError", "NO ACCESS: accept its terms (https://huggingface.co/some/model)", True),
        ("RevisionNotFoundError", "NO REVISION abc: correct runs.base.init.revision", True),
        ("RepositoryNotFoundError", "NOT FOUND, or private: correct runs.base.init", True),
        ("HFValidationError", "NOT A DIRECTORY, and not a valid hub id: correct runs.base.init", True),
        ("HfHubHTTPError", "the hub does not say: ", False),
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
    assert reason.startswith("runs.base.init: the model some//model: NOT A DIRECTORY")


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
    layout = Layout(experiment, tmp_path)
    listed = targets.jobs_behind(layout, targets.targets(experiment)["all"])
    found = [remote for remote in targets.every_remote(layout, listed) if remote.kind == "benchmark"]
    assert [remote.name for remote in found] == ["SaylorTwift/bbh", "cais/mmlu", "hails/agieval-aqua-rat"]
    assert all(remote.needed for remote in found)
    rows = tmp_path / "data/benchmark_rows/rows.json"
    rows.parent.mkdir(parents=True)
    rows.write_text('{"rows": {}}')
    assert not any(remote.needed for remote in targets.every_remote(layout, listed)[-3:])
