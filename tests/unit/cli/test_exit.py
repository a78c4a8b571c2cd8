"""How commands end when a library, a pipe, a disk or the user stops them."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch

from prosparse.cli import exit


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/model.safetensors"), "out/model.safetensors: no space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "quota"),
        (OSError(errno.ENOLCK, "No locks available", "out/lock"), "out/lock: the file system provides no locks"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), "/root/x: Permission denied"),
        (OSError("two\nlines"), "two lines"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "out of memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: not enough memory: you "),
            "out of memory",
        ),
        (pickle.UnpicklingError("invalid load key"), "damaged"),
        (RuntimeError("PytorchStreamReader failed reading zip archive: failed finding central directory"), "damaged"),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), "disk is full"),
        (EOFError("Ran out of input"), "damaged"),
        (ModuleNotFoundError("No module named 'sentencepiece'", name="sentencepiece"), "sentencepiece is needed"),
        (
            ModuleNotFoundError("No module named 'lm_eval.api'", name="lm_eval.api"),
            "this command needs lm-eval: pip install 'prosparse[workflow]'",
        ),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "the network or the hub failed"),
    ],
)
def test_a_librarys_complaint_is_a_line(error, words, capsys):
    assert exit.status(error, in_step=False, with_traceback=False) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def prosparse(*arguments: str, **settings) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "prosparse", *arguments], text=True, **settings)


def test_a_reader_that_leaves_and_a_full_disk_behind_stdout():
    reader, writer = os.pipe()
    os.close(reader)
    left = prosparse("--help", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    with open("/dev/full", "w") as full:
        failed = prosparse("--help", stdout=full, stderr=subprocess.PIPE)
    assert left.communicate()[1] == ""
    assert left.returncode == exit.NO_READER
    assert "no space left" in failed.communicate()[1]
    assert failed.returncode == 1


def test_control_c_ends_quietly(tmp_path):
    os.mkfifo(tmp_path / "config.json")  # the command waits for its config
    started = prosparse(
        "step", "claims", "--config", str(tmp_path / "config.json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # a shell's background job, as which the tests may run, ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    with open(tmp_path / "config.json", "w"):  # open since it reads
        time.sleep(0.1)
        started.send_signal(signal.SIGINT)
        assert started.communicate(timeout=60) == ("", "")
    assert started.returncode == exit.INTERRUPTED
