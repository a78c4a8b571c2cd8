"""A stage stopped at every change it makes to files, and on hostile file systems.

The same call then gives what an uninterrupted one gives, bit for bit, or says in one line why it cannot.
"""

import errno
import fcntl
import os
import shutil
import sys

import datasets
import pytest
from helpers.faults import Killed, assert_any_stop_is_mended, changes, contents, stopped_at
from helpers.tiny_training import shifted, smallest_stage

from prosparse.experiment.activation import Activation
from prosparse.experiment.model import PretrainedInit
from prosparse.experiment.training import Stage
from prosparse.system.locking import Refused
from prosparse.training import checkpoints
from prosparse.training.job import StageJob
from prosparse.training.stage import OutOfTime, train_stage

pytestmark = pytest.mark.slow


def train(data, output, wanted=None, **options):
    train_stage(StageJob(wanted or smallest_stage(), data / "tokens", data / "tokenizer", None, output, **options))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "stage"
    train(data, output)
    return output


@pytest.fixture(scope="module")
def begun(data, tmp_path_factory):
    """The stage after the first of its two steps."""
    output = tmp_path_factory.mktemp("begun") / "stage"
    with pytest.raises(OutOfTime):
        train(data, output, max_seconds=0)
    return output


@pytest.fixture(scope="module")
def trained(data, begun, tmp_path_factory):
    """The stage when its last checkpoint is whole, and how many changes led there from ``begun``."""
    output = tmp_path_factory.mktemp("trained") / "stage"
    shutil.copytree(begun, output)

    def stop(*_):
        raise Killed

    with pytest.MonkeyPatch.context() as patch, stopped_at(sys.maxsize, output.parent) as watch:
        patch.setattr(checkpoints, "install", stop)
        with pytest.raises(Killed):
            train(data, output)
    return output, watch.seen


def test_a_stage_stopped_while_it_trains_ends_as_if_it_had_not_been(data, begun, trained, whole, tmp_path):
    """Most stops leave the same whole files, from which one call each continues."""
    assert trained[1] > 10
    left = {}
    for change in range(1, trained[1] + 1):
        output = tmp_path / str(change)
        shutil.copytree(begun, output)
        with pytest.raises(Killed), stopped_at(change, tmp_path):
            train(data, output)
        checkpoints.newest(output / "resume")
        for partial in output.rglob("*.partial"):  # which every writer starts over
            partial.unlink()
        left.setdefault(tuple(contents(output).items()), output)
    assert 2 <= len(left) <= 8
    for output in left.values():
        train(data, output)
        assert contents(output) == contents(whole), output


def test_a_stage_stopped_while_it_finishes_ends_as_if_it_had_not_been(data, trained, whole, tmp_path):
    shutil.copytree(trained[0], tmp_path / "counted")
    count = changes(lambda: train(data, tmp_path / "counted"), tmp_path)
    assert contents(tmp_path / "counted") == contents(whole)
    assert count > 40
    assert_any_stop_is_mended(tmp_path, trained[0], lambda output: train(data, output), contents(whole), count)


def test_a_start_that_is_not_trained_stopped_anywhere(data, whole, tmp_path):
    wanted = smallest_stage(0, 0, start=PretrainedInit(pretrained=str(whole)))
    train(data, tmp_path / "once", wanted)
    count = changes(lambda: train(data, tmp_path / "counted", wanted), tmp_path)
    work = lambda output: train(data, output, wanted)  # noqa: E731
    assert_any_stop_is_mended(tmp_path, None, work, contents(tmp_path / "once"), count)


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS])
def test_a_file_system_without_hard_links_gets_copies(data, trained, whole, tmp_path, monkeypatch, reason):
    def refuse(*_, **__):
        raise OSError(reason, os.strerror(reason))

    shutil.copytree(trained[0], tmp_path / "stage")
    monkeypatch.setattr(os, "link", refuse)
    train(data, tmp_path / "stage")
    assert contents(tmp_path / "stage") == contents(whole)


@pytest.mark.parametrize("call", ["copyfile", "fsync", "replace"])
def test_a_full_disk_loses_nothing(data, trained, whole, tmp_path, monkeypatch, call):
    """The error says so, the checkpoint stays, and with room the stage is finished."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shutil.copytree(trained[0], tmp_path / "stage")
    with monkeypatch.context() as patch:
        patch.setattr(shutil if call == "copyfile" else os, call, full)
        with pytest.raises(OSError, match="No space left"):
            train(data, tmp_path / "stage")
        assert not (tmp_path / "stage" / "provenance.json").exists()
    train(data, tmp_path / "stage")
    assert contents(tmp_path / "stage") == contents(whole)


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_and_used(data, trained, whole, tmp_path, monkeypatch, capsys, reason):
    def refuse(*_):
        raise OSError(reason, os.strerror(reason))

    shutil.copytree(trained[0], tmp_path / "stage")
    monkeypatch.setattr(fcntl, "flock", refuse)
    train(data, tmp_path / "stage")
    assert contents(tmp_path / "stage") == contents(whole)
    assert f"the file system has no locks ({os.strerror(reason)})" in capsys.readouterr().err


def test_a_torn_ledger_row_is_made_again(data, begun, whole, tmp_path):
    shutil.copytree(begun, tmp_path / "stage")
    with open(tmp_path / "stage" / "resume" / "ledger.csv", "a") as file:
        file.write("1")  # the first digit of step 12, say
    train(data, tmp_path / "stage")
    assert contents(tmp_path / "stage") == contents(whole)


def test_an_identical_call_changes_nothing(data, whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    train(data, whole)
    assert "already trained, nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


# ------------------------------------------------------------------------------- what it is made from


def _other_tokens(data):
    rows = datasets.load_from_disk(str(data / "tokens" / "a" / "train")).select(range(60))
    rows.save_to_disk(str(data / "tokens" / "fewer"))
    shutil.rmtree(data / "tokens" / "a" / "train")
    os.rename(data / "tokens" / "fewer", data / "tokens" / "a" / "train")


def _other_tokenizer(data):
    path = data / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text().replace("t15", "t99"))


CHANGED_FILES = {"tokens.a has other content": _other_tokens, "tokenizer has other content": _other_tokenizer}


@pytest.mark.parametrize("progress", ["begun", "whole"])
@pytest.mark.parametrize("message", CHANGED_FILES)
def test_other_content_under_the_same_name_is_refused(request, data, tmp_path, message, progress):
    shutil.copytree(data, tmp_path / "data")
    CHANGED_FILES[message](tmp_path / "data")
    shutil.copytree(request.getfixturevalue(progress), tmp_path / "stage")
    before = contents(tmp_path / "stage")
    with pytest.raises(Refused, match=rf"inputs\.{message}"):
        train(tmp_path / "data", tmp_path / "stage")
    assert contents(tmp_path / "stage") == before


CHANGED_CALLS = {
    "specification.seed is 1, was 0": {"seed": 1},
    "specification.stages.0.peak is 0.5, was 0.0": {"stages": [Stage(until=2, peak=0.5)]},
    "specification.total_steps is 4, was 3": {"total_steps": 4},
    "specification.activation.name is 'silu', was 'relu'": {"activation": Activation(name="silu")},
    "specification.mixture.a is 2.0, was 1.0": {"mixture": {"a": 2.0}},
}


@pytest.mark.parametrize("progress", ["begun", "whole"])
@pytest.mark.parametrize("message", CHANGED_CALLS)
def test_another_specification_is_refused(request, data, tmp_path, message, progress):
    shutil.copytree(request.getfixturevalue(progress), tmp_path / "stage")
    with pytest.raises(Refused) as error:
        train(data, tmp_path / "stage", smallest_stage(**CHANGED_CALLS[message]))
    assert message in str(error.value)


def test_a_start_is_known_by_its_content(data, whole, tmp_path):
    """Under another name it is the same, under the same name it may be another."""
    shutil.copytree(whole, tmp_path / "start")
    wanted = smallest_stage(start=PretrainedInit(pretrained=str(tmp_path / "start")))
    with pytest.raises(OutOfTime):
        train(data, tmp_path / "stage", wanted, max_seconds=0)
    os.rename(tmp_path / "start", tmp_path / "moved")
    shifted(tmp_path / "moved", tmp_path / "start")
    with pytest.raises(Refused, match=r"inputs\.start\.weights has other content"):
        train(data, tmp_path / "stage", wanted)
    train(data, tmp_path / "stage", smallest_stage(start=PretrainedInit(pretrained=str(tmp_path / "moved"))))


def test_progress_of_unknown_origin_is_refused(data, begun, tmp_path):
    shutil.copytree(begun, tmp_path / "stage")
    (tmp_path / "stage" / "resume" / "identity.json").unlink()
    with pytest.raises(Refused, match=r"holds checkpoint-1, ledger\.csv, newest, but no record of its inputs"):
        train(data, tmp_path / "stage")
