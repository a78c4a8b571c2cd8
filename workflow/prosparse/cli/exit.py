"""How a failed command ends: a line, and an exit status that tells the truth."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from prosparse.system import environment

#: What the user can mend (a mistyped command line is 2, a job out of time 75: the exceptions carry their own).
FAILED = 1
#: A fault of this program, as sysexits.h has it.
INTERNAL = 70
#: As a shell reports a process that SIGINT or SIGPIPE ended.
INTERRUPTED = 130
NO_READER = 141


def status(error: BaseException, in_step: bool, with_traceback: bool) -> int:
    """Say on stderr what ended a command, and return the exit status.

    Args:
        in_step: a step of the workflow, whose stderr is a log and whose repetition may take hours: a fault of ours
            shows its stack there.
    """
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # nobody reads on; nor may the interpreter's last flush complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
        if environment.speaks_for_job():  # the processes of a job fail together: one says why
            print(f"prosparse: error: {explained}", file=sys.stderr)
        return getattr(error, "exit_status", FAILED)
    hint = "" if with_traceback or in_step else "; --traceback shows where"
    print(
        f"prosparse: internal error: {type(error).__name__}: {in_one_line(str(error))}{hint}. Please report it.",
        file=sys.stderr,
    )
    return INTERNAL


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def _with_causes(error: BaseException) -> BaseException:
    """Without ``from None``, which keeps what a library said out of sight."""
    each: BaseException | None = error
    while each is not None:
        each.__suppress_context__ = each.__cause__ is not None
        each = each.__cause__ or each.__context__
    return error
