"""Text files and Python sources."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from prosparse.data.packages import members
from prosparse.data.readers.registry import reader


@reader(prose=False)
def text_files(archive: Path, files: str, exclude: str | None = None) -> Iterator[str]:
    """Files of an archive whose name matches the shell pattern ``files`` but not the regular expression ``exclude``."""
    for name, content in members(archive, files):
        if exclude is None or not re.search(exclude, name):
            yield content.decode("utf-8", errors="replace")


@reader(prose=False)
def docstring_programs(archive: Path, files: str, exclude: str | None = None) -> Iterator[str]:
    """Functions as tasks: the signature and the docstring's first paragraph, then the body without the docstring.

    Only bodies of 2 to 40 lines are used, so that the body usually follows from the description.
    """
    for source in text_files(archive, files, exclude):
        lines = source.splitlines()
        for function in _functions(ast.parse(source).body):
            if len(function.body) > 1 and (text := ast.get_docstring(function)):
                body = textwrap.dedent("\n".join(lines[_body_start(function, lines) : function.end_lineno]))
                summary = " ".join(text.split("\n\n")[0].split())
                if 2 <= len(body.strip().splitlines()) <= 40 and len(summary) >= 20:
                    signature = f"def {function.name}({ast.unparse(function.args)}):"
                    yield f"Write the body of this Python function.\n{signature}\n{summary}\n\nOutput:\n{body.strip()}"


def _functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef]:
    """Yield functions and methods, but not nested functions."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef):
            yield statement
        elif isinstance(statement, ast.ClassDef):
            yield from _functions(statement.body)


def _body_start(function: ast.FunctionDef, lines: list[str]) -> int:
    """Return the index of the first non-blank line after the docstring."""
    start = function.body[0].end_lineno or 0
    while start < len(lines) and not lines[start].strip():
        start += 1
    return start
