"""How a failed command ends: with one line and an exit status."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from prosparse.system import environment

#: An error that the user can fix (a mistyped command line is 2, a job out of time 75: those exceptions carry their
#: own).
FAILED = 1
#: A bug in this program, as in sysexits.h.
INTERNAL = 70
#: As a shell reports a process that SIGINT or SIGPIPE ended.
INTERRUPTED = 130
NO_READER = 141


def status(error: BaseException, in_step: bool, with_traceback: bool) -> int:
    """Report on stderr what ended a command, and return its exit status.

    Args:
        in_step: whether it is a step of the workflow. Its stderr is a log, and repeating it may take hours, so a bug
        shows its stack trace there.
    """
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return NO_READER
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        hint = f" (see `{context.command_path} --help`)" if context else ""
        print(f"prosparse: error: {in_one_line(error.format_message())}{hint}", file=sys.stderr)
        return error.exit_code

    from prosparse.system.failures import explain

    explained = explain(error)
    if with_traceback or (explained is None and in_step):
        traceback.print_exception(_with_causes(error))
    if explained is not None:
        if environment.speaks_for_job():  # a job's processes fail together: only one says why
            print(f"prosparse: error: {explained}", file=sys.stderr)
        return getattr(error, "exit_status", FAILED)
    hint = "" if with_traceback or in_step else "; --traceback shows where"
    print(
        f"prosparse: internal error: {type(error).__name__}: {in_one_line(str(error))}{hint}. Please report it.",
        file=sys.stderr,
    )
    return INTERNAL


def discard_unwritten() -> None:
    """Keep the interpreter's last flush from failing on what a full disk or a reader that has gone did not take."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def _with_causes(error: BaseException) -> BaseException:
    """Undo ``from None``, which hides a library's own message."""
    each: BaseException | None = error
    while each is not None:
        each.__suppress_context__ = each.__cause__ is not None
        each = each.__cause__ or each.__context__
    return error
