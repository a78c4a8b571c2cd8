"""Errors of the hub as one line each; what is read is tested with directories in ``test_shards``."""

import json

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from prosparse.data import hub
from prosparse.experiment.data import HubSource
from prosparse.system.errors import ConfigError, UserError

WHERE = "data.corpora.c.source"


def refusal(kind, status):
    request = httpx2.Request("GET", "https://huggingface.co/api/datasets/some/set")
    return kind("answered\nin two lines", response=httpx2.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            refusal(GatedRepoError, 403), ConfigError,
            r"\.hub: some/set is gated: accept its terms at https://terms\.org and set HF_TOKEN",
        ),
        (refusal(RepositoryNotFoundError, 404), ConfigError, r"\.hub: the hub has no data set some/set, or it"),
        (refusal(RevisionNotFoundError, 404), ConfigError, r"\.revision: some/set has no revision 'v9'"),
        (refusal(HfHubHTTPError, 500), UserError, r"\.hub: the hub cannot be queried for some/set: answered in two"),
        (OfflineModeIsEnabled("offline"), UserError, r"\.hub: the hub cannot be queried for some/set: offline"),
        (httpx2.ConnectError("no route"), UserError, r"\.hub: the hub cannot be queried for some/set: no route"),
    ],
)  # fmt: skip
def test_the_hubs_refusals_are_one_line_that_names_the_key(monkeypatch, error, kind, message):
    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", refuse)
    source = HubSource(hub="some/set", revision="v9", gated="https://terms.org")
    with pytest.raises(kind, match="^data.corpora.c.source" + message) as caught:
        hub.commit(source, WHERE)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is kind


def test_terms_of_a_gated_set_are_on_its_page_by_default(monkeypatch):
    def refuse(*arguments, **options):
        raise refusal(GatedRepoError, 403)

    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", refuse)
    with pytest.raises(ConfigError, match=r"accept its terms at https://huggingface\.co/datasets/some/set and"):
        hub.commit(HubSource(hub="some/set"), WHERE)


def test_the_commit_is_what_the_revision_points_to(monkeypatch, tmp_path):
    asked = []

    def dataset_info(self, name, revision):
        asked.append((name, revision))
        return huggingface_hub.hf_api.DatasetInfo(id=name, sha="f00d")

    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", lambda self, name, repo_type: asked.append(repo_type))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    assert hub.commit(HubSource(hub="some/set", revision="v2"), WHERE) == "f00d"
    assert asked == ["dataset", ("some/set", "v2")]
    assert hub.commit(HubSource(hub=str(tmp_path)), WHERE) is None


def test_without_network_it_is_said(monkeypatch):
    """Nothing is patched: the tests run with HF_HUB_OFFLINE."""
    with pytest.raises(UserError, match=r"source\.hub: the hub cannot be queried for some/set: "):
        hub.commit(HubSource(hub="some/set"), WHERE)


@pytest.fixture
def directory(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}) + "\n")
    return tmp_path


def read(directory, **options):
    return [row["text"] for row in hub.rows(HubSource(hub=str(directory), **options), None, 0, 1, WHERE)]


def test_split_configuration_and_files_choose_what_is_read(directory):
    assert read(directory) == ["train"]
    assert read(directory, split="test") == ["test"]
    assert read(directory, files=["te*.jsonl"]) == ["test"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "validation"}, r"source\.split: .*validation.*train.*test"),
        ({"name": "english"}, r"source\.name: .*english.*default"),
        ({"files": ["*.csv"]}, r"source\.files: .*csv"),
    ],
)
def test_what_is_not_there_names_its_key(directory, options, message):
    with pytest.raises(ConfigError, match=message) as error:
        read(directory, **options)
    assert "\n" not in str(error.value)


def test_no_data_files_at_all(tmp_path):
    (tmp_path / "notes.md").write_text("nothing")
    with pytest.raises(ConfigError, match=r"source\.hub: "):
        read(tmp_path)
