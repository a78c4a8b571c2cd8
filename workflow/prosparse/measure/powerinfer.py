"""Run PowerInfer, which computes only the neurons that predictors call active.

Batch 1 and greedy. As in the paper, the speed is in decoded tokens per second, without the first token, whose time is
separate. This project does not depend on PowerInfer, and estimates nothing: a missing program raises ``EngineMissing``.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf

from prosparse.inference.gguf_file import precision, reader
from prosparse.inference.vocabulary import byte_characters
from prosparse.measure.quartiles import quartiles
from prosparse.system.errors import EngineMissing, UserError
from prosparse.system.files import discard


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-8:])


def build_powerinfer(source: str, revision: str | None, target: Path) -> Path:
    """Build PowerInfer's command-line program for CPUs, with its default options.

    Args:
        source: a directory with its source, or anything git can clone.
        revision: the revision to check out; a directory must already have it checked out.
        target: directory for the build and the clone.

    Returns:
        Path of the program.

    Raises:
        EngineMissing: git, cmake, a compiler or the source is missing, or the build fails; the message names the log.
    """
    for program, purpose in {
        "cmake": "PowerInfer is built with it",
        "git": "its build asks git for the revision",
    }.items():
        if shutil.which(program) is None:
            raise EngineMissing(f"{program} is not installed; {purpose}")
    if not any(shutil.which(os.environ.get("CXX", compiler)) for compiler in ("c++", "g++", "clang++")):
        raise EngineMissing("no C++ compiler is installed; PowerInfer is built with one")
    target.mkdir(parents=True, exist_ok=True)
    log = target / "build.log"
    log.write_text("", encoding="utf-8")
    directory = Path(source)
    if directory.is_dir():
        if revision is not None:
            found = _run(["git", "-C", source, "rev-parse", "HEAD"], log)
            if not found.startswith(revision):
                raise EngineMissing(f"powerinfer.source {source} is at {found}, not at revision {revision}")
    else:
        directory = target / "source"
        if directory.exists() and _run(["git", "-C", str(directory), "config", "remote.origin.url"], log) != source:
            discard(directory)
            discard(target / "build")
        if not directory.exists():
            partial = target / ".source.partial"
            discard(partial)  # left over from an interrupted call
            _run(["git", "clone", "--quiet", source, str(partial)], log)
            os.replace(partial, directory)
        _run(["git", "-C", str(directory), "checkout", "--quiet", revision or "HEAD"], log)
    if not (directory / "CMakeLists.txt").exists():
        raise EngineMissing(f"powerinfer.source {source} has no CMakeLists.txt")
    build = target / "build"
    _run(["cmake", "-S", str(directory), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release"], log)
    _run(["cmake", "--build", str(build), "--target", "main", "--parallel", str(_cores())], log)
    return build / "bin" / "main"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(command: list[str], log: Path) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, encoding="utf-8")
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n{finished.stdout}{finished.stderr}")
    if finished.returncode:
        raise EngineMissing(f"{' '.join(command)} failed ({log}):\n{_last_lines(finished.stdout + finished.stderr)}")
    return finished.stdout.strip()


def powerinfer(
    program: Path, path: Path, prompts: Sequence[Sequence[int]], new_tokens: int, threads: int
) -> dict[str, Any]:
    """Decode each prompt with PowerInfer's ``main``, as the paper did: one process per prompt, with its own timings.

    Its threads add to the FFN's output without a lock, so more than one thread occasionally loses an addition.

    Args:
        program: path returned by ``build_powerinfer``.
        path: a file written by ``export_powerinfer``.
        prompts: token ids, at least two each.

    Returns:
        version, build (the instruction sets it uses), precision, threads; tokens_per_second and
        first_token_milliseconds with median and quartiles over the prompts; tokens (greedy ids of each prompt). The
        first token's time is that of evaluating the prompt; the speed is that of the evaluations after it, without
        sampling.

    Raises:
        EngineMissing: the program does not exist.
        UserError: it fails, or its tokenizer does not turn the prompt's text into the prompt's ids.
    """
    if not prompts or min(map(len, prompts)) < 2 or new_tokens < 2:
        raise UserError("PowerInfer needs prompts of at least two tokens and two new tokens or more")
    if not os.access(program, os.X_OK):
        raise EngineMissing(f"PowerInfer's program {program} does not exist: set decoding.engines.powerinfer")
    pieces = _pieces(path)
    first, rates, tokens, about = [], [], [], {}
    for prompt in prompts:
        try:
            text = b"".join(pieces[token] for token in prompt).decode()
        except UnicodeDecodeError:
            raise UserError(f"the prompt {[*prompt]} does not decode to text, which PowerInfer needs") from None
        with tempfile.TemporaryDirectory(prefix="prosparse-powerinfer-") as directory:
            command = [str(program.resolve()), "--model", str(path.resolve()), "--prompt", text]
            command += ["--n-predict", str(new_tokens), "--ctx-size", str(max(64, len(prompt) + new_tokens + 4))]
            command += ["--threads", str(threads), "--logdir", directory, "--simple-io", "--ignore-eos"]
            command += ["--temp", "0", "--repeat-penalty", "1"]  # its default of 1.1 would also affect greedy choices
            finished = subprocess.run(command, capture_output=True, cwd=directory, check=False)
            errors = finished.stderr.decode(errors="replace")
            logs = sorted(Path(directory).glob("*.yml"))
            if finished.returncode or not logs:
                raise UserError(f"PowerInfer failed on {path}:\n{_last_lines(errors)}")
            log = logs[0].read_text(errors="replace", encoding="utf-8")
        if (read := _integers(log, "prompt_tokens")) != [*prompt]:
            raise UserError(
                f"PowerInfer reads the prompt {[*prompt]} as {read}: use prompts that its tokenizer encodes in the "
                "same way"
            )
        if len(generated := _integers(log, "output_tokens")) != new_tokens:
            raise UserError(f"PowerInfer generated {len(generated)} tokens, not {new_tokens}")
        prompt_milliseconds, _ = _timing(errors, "prompt eval time")
        milliseconds, count = _timing(errors, "eval time")
        first.append(prompt_milliseconds / 1000)
        rates.append(1000 * count / milliseconds)
        tokens.append(generated)
        about = {"version": _line(errors, r"build = (.*)"), "build": _line(errors, r"(AVX = .*)\|")}
    return {
        **about,
        "precision": precision(path),
        "threads": threads,
        "tokens_per_second": quartiles(rates),
        "first_token_milliseconds": quartiles([1000 * seconds for seconds in first]),
        "tokens": tokens,
    }


def _pieces(path: Path) -> list[bytes]:
    """The text of each token of a GPT-2 vocabulary."""
    fields = reader(path).fields
    bytes_of = byte_characters()
    types = fields["tokenizer.ggml.token_type"].contents()
    return [
        bytes(bytes_of[character] for character in piece) if kind == gguf.TokenType.NORMAL else piece.encode()
        for piece, kind in zip(fields["tokenizer.ggml.tokens"].contents(), types, strict=True)
    ]


def _integers(log: str, key: str) -> list[int]:
    found = re.search(rf"^{key}: (\[[\d, ]*\])", log, re.MULTILINE)
    return ast.literal_eval(found[1]) if found else []


def _timing(output: str, name: str) -> tuple[float, int]:
    """Milliseconds and count from a line of ``llama_print_timings``."""
    found = re.search(rf"llama_print_timings: +{name} = +([\d.]+) ms / +(\d+)", output)
    if found is None:
        raise UserError(f"PowerInfer printed no {name}:\n{_last_lines(output)}")
    return float(found[1]), int(found[2])


def _line(output: str, pattern: str) -> str:
    found = re.search(pattern, output)
    return found[1].strip() if found else "unknown"
