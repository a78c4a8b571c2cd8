"""Digests of files, which a process remembers."""

import hashlib
import os
from pathlib import Path

import pytest

from prosparse.system import identity


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def settled(monkeypatch):
    """Every file counts as old enough to be remembered."""
    monkeypatch.setattr(identity, "SETTLED", -1.0)


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"one")
    assert identity.of_file(tmp_path / "file") == sha256(b"one")

    def digest(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(hashlib, "file_digest", digest)
    assert identity.of_file(tmp_path / "file") == sha256(b"one")


def test_a_file_just_written_is_not_remembered(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    about = path.stat()
    assert identity.of_file(path) == sha256(b"one")
    path.write_bytes(b"two")
    monkeypatch.setattr(os, "fstat", lambda _: about)  # a file system whose clock has not moved
    assert identity.of_file(path) == sha256(b"two")


def replaced(path):
    path.with_name("new").write_bytes(b"two")
    os.replace(path.with_name("new"), path)


def appended(path):
    with open(path, "ab") as file:
        file.write(b" more")


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", [replaced, appended])
def test_a_changed_file_is_read_again(tmp_path, change):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert identity.of_file(path) == sha256(b"one")
    change(path)
    assert identity.of_file(path) == sha256(path.read_bytes()) != sha256(b"one")


@pytest.mark.usefixtures("settled")
def test_another_file_of_the_same_name_is_read(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        monkeypatch.chdir(tmp_path / name)
        assert identity.of_file(Path("file")) == sha256(name.encode())
