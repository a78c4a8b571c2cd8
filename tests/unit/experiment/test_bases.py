"""A base is the pinned one and shares its run's tokenizer, or the config is refused before any work."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml
from helpers.rehearsal import bytes_as_tokens
from helpers.repository import ROOT

from prosparse.experiment import bases
from prosparse.experiment.loading import load
from prosparse.experiment.model import Architecture, PretrainedInit
from prosparse.models.build import from_scratch
from prosparse.models.load import pretrained
from prosparse.system.errors import ConfigError

TINY = Architecture(hidden_size=32, intermediate_size=64, layers=2, heads=4, kv_heads=2)


@pytest.fixture
def base(tmp_path):
    from_scratch(TINY, len(bytes_as_tokens()), 32, seed=0).save_pretrained(tmp_path / "base")
    bytes_as_tokens().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def experiment(base, tokenizer=None, **init):
    """The default experiment, but every base is one existing model."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["data"]["tokenizers"] = {"bpe": tokenizer or {"pretrained": str(base)}}
    for run in ("small-base", "medium-base", "minicpm-base"):
        config["runs"][run]["init"] = {"pretrained": str(base), **init}
    return load(config)


def test_the_digest_is_that_of_sha256sum(base):
    command = "sha256sum config.json model.safetensors tokenizer.json tokenizer_config.json | sha256sum"
    printed = subprocess.run(command, shell=True, cwd=base, capture_output=True, text=True, check=True).stdout
    assert bases.digest(base) == printed.split()[0]


@pytest.mark.parametrize("name", bases.FILES)
def test_an_altered_base_is_refused_before_any_work_and_when_opened(base, name):
    init = {"sha256": bases.digest(base)}
    bases.check(experiment(base, **init))
    pretrained(PretrainedInit(pretrained=str(base), **init))
    content = bytearray((base / name).read_bytes())
    content[-2] ^= 1
    (base / name).write_bytes(content)
    with pytest.raises(ConfigError, match=r"runs\.small-base\.init: .*base has sha256 [0-9a-f]{64}, expected"):
        bases.check(experiment(base, **init))
    with pytest.raises(ConfigError, match=r"base has sha256 [0-9a-f]{64}, expected"):
        pretrained(PretrainedInit(pretrained=str(base), **init))


def test_a_missing_file_of_a_pinned_base_is_named(base):
    (base / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"small-base\.init: .*base/model\.safetensors: No such file"):
        bases.check(experiment(base, sha256="0" * 64))


@pytest.mark.parametrize("other", [{"gguf_file": "m.gguf"}, {"revision": "main"}])
def test_only_a_directory_is_pinned(base, other):
    with pytest.raises(ConfigError, match=r"small-base\.init.*sha256: pins a local directory"):
        experiment(base, sha256="0" * 64, **other)
    with pytest.raises(ConfigError, match=r"small-base\.init.*sha256"):
        experiment(base, sha256="none")


def test_a_tokenizer_trained_on_the_corpora_is_not_the_bases(base):
    with pytest.raises(ConfigError, match=r"small-base\.init: .*set data\.tokenizers\.bpe to {pretrained: .*base}"):
        bases.check(experiment(base, tokenizer={"vocabulary_size": 2048}))


def test_another_tokenizer_than_the_bases_is_named(base, tmp_path):
    bytes_as_tokens().save_pretrained(tmp_path / "same")
    bases.check(experiment(base, tokenizer={"pretrained": str(tmp_path / "same")}))
    held = json.loads((tmp_path / "same" / "tokenizer.json").read_text())
    first, second = list(held["model"]["vocab"])[-2:]
    vocabulary = held["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (tmp_path / "same" / "tokenizer.json").write_text(json.dumps(held))
    with pytest.raises(ConfigError, match=r"small-base\.init: the tokenizer of .*base is not data\.tokenizers\.bpe"):
        bases.check(experiment(base, tokenizer={"pretrained": str(tmp_path / "same")}))


def test_what_is_not_here_is_left_to_the_job_that_opens_it(tmp_path):
    bases.check(experiment(tmp_path / "nowhere"))
    bases.check(experiment("owner/model", tokenizer={"pretrained": "owner/other"}))


def test_a_committed_base_is_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = experiment("workflow/experiments")  # any folder of the repository
    assert found.runs["small-base"].init.pretrained == str(ROOT / "workflow" / "experiments")
    assert found.data.tokenizers["bpe"].pretrained == str(ROOT / "workflow" / "experiments")
    (tmp_path / "workflow" / "experiments").mkdir(parents=True)
    assert experiment("workflow/experiments").runs["small-base"].init.pretrained == "workflow/experiments"
