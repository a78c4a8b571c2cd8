"""llama.cpp as one more way to decode, in turns with our own modes.

This project does not depend on it: it runs through llama-cpp-python in this interpreter, or in the one that the
environment variable PROSPARSE_LLAMA_CPP names. Batch 1 and greedy; the end token is never chosen, so that every prompt
gets the same number of new tokens (transformers' ``min_new_tokens``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prosparse.inference.gguf_file import precision
from prosparse.measure.decoding_turns import Writing
from prosparse.system.errors import EngineMissing, UserError

INTERPRETER = "PROSPARSE_LLAMA_CPP"


def interpreter() -> str:
    """The Python interpreter that has llama-cpp-python.

    Raises:
        EngineMissing: llama-cpp-python is not installed.
    """
    path = os.environ.get(INTERPRETER, sys.executable)
    try:
        found = subprocess.run(
            [path, "-c", "import llama_cpp"], capture_output=True, text=True, check=False, encoding="utf-8"
        )
    except OSError as error:
        raise EngineMissing(f"{INTERPRETER}={path}: {error}") from None
    if found.returncode:
        reason = (found.stderr.strip().splitlines() or ["no message"])[-1]
        raise EngineMissing(
            f"llama.cpp is not usable from {path} ({reason}): pip install llama-cpp-python (it needs a C++ compiler), "
            f"there or elsewhere, and name that Python in {INTERPRETER}"
        )
    return path


class LlamaCpp:
    """A GGUF file that llama.cpp has opened, in a process of its own. Use it as a context.

    Args:
        capacity: tokens that a text may have, with its prompt.

    Raises:
        EngineMissing: llama-cpp-python is not installed.
        UserError: llama.cpp rejects the file.
    """

    def __init__(self, path: Path, capacity: int, threads: int) -> None:
        self.path, self.threads = path, threads
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed with the process)
        program = [interpreter(), str(Path(__file__).with_name("llamacpp_process.py"))]
        self._process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, encoding="utf-8"
        )
        about = self._ask(path=str(path), capacity=capacity, threads=threads)
        self._about = {"version": f"llama-cpp-python {about['version']}", "build": about["build"]}

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()
        self._log.close()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.wait()
            self._log.seek(0)
            lines = self._log.read().strip().splitlines()
            raise UserError("\n".join([f"llama.cpp failed on {self.path}:", *lines[-8:]]))
        found: dict[str, Any] = json.loads(answer)
        return found

    def about(self) -> dict[str, Any]:
        """version, build (the instruction sets it uses), precision, threads."""
        return {**self._about, "precision": precision(self.path), "threads": self.threads}

    def write(self, tokens: Sequence[int], new_tokens: int, begins: bool) -> tuple[list[int], list[float]]:
        """Read tokens, which begin a text or continue it, and write more; returns when each was known."""
        answer = self._ask(tokens=[*tokens], new_tokens=new_tokens, begins=begins)
        return answer["tokens"], answer["times"]


class LlamaCppText(Writing):
    """Written by llama.cpp, which holds one text at a time."""

    def __init__(self, engine: LlamaCpp, prompt: Sequence[int]) -> None:
        super().__init__(prompt)
        self._engine, self._begins = engine, True

    def write(self, new_tokens: int) -> list[float]:
        tokens, times = self._engine.write(self.ids if self._begins else self.ids[-1:], new_tokens, self._begins)
        self._begins = False
        self.ids += tokens
        return times
