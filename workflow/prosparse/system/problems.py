"""Turn validation errors into lines that a user can act on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean NAME?)`` with the closest allowed name, or an empty string if none is close."""
    close = get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def describe(error: ValidationError, root: type[BaseModel] | None = None) -> str:
    """Format one line per problem: the key, what is wrong and, given the validated model ``root``, what is allowed."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "config"
        message = re.sub(r"^Value error, ", "", problem["msg"])
        if problem["type"] == "extra_forbidden":
            allowed = _allowed_keys(root, problem["loc"][:-1]) if root else []
            message = f"unknown key{did_you_mean(str(problem['loc'][-1]), allowed)}"
            message += f"; allowed here: {', '.join(allowed)}" if allowed else ""
        elif problem["type"] not in ("missing", "value_error"):
            message += f" (got {problem['input']!r})"
            if problem["type"] == "literal_error":
                message += did_you_mean(str(problem["input"]), re.findall(r"'(.*?)'", problem["ctx"]["expected"]))
        lines.append(f"{key}: {message}")
    return "\n".join(lines)


def _allowed_keys(root: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the section at ``location``, found by walking the models' annotations."""
    current: Any = root
    for part in location:
        if type(None) in get_args(current):  # an optional section
            current = next(member for member in get_args(current) if member is not type(None))
        if isinstance(current, type) and issubclass(current, BaseModel):
            if str(part) in current.model_fields:
                current = current.model_fields[str(part)].annotation
        else:
            # the location names a union's chosen member; a dict's or list's last argument is its value type
            members = get_args(current)
            named = [member for member in members if getattr(member, "__name__", "") == part]
            current = named[0] if named else (members[-1] if members else current)
    while not (isinstance(current, type) and issubclass(current, BaseModel)):
        models = [member for member in get_args(current) if member is not type(None)]
        if not models:
            return ["see config.yaml"]
        current = models[-1]
    return list(current.model_fields)
