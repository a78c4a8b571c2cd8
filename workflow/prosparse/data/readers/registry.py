"""Readers by name: what a corpus's ``source.reader`` may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Reader:
    read: Callable[..., Iterator[str]]
    prose: bool  # runs of spaces carry no meaning


READERS: dict[str, Reader] = {}


def reader(*, prose: bool) -> Callable[[Callable[..., Iterator[str]]], Callable[..., Iterator[str]]]:
    """Register ``function(archive, **options)`` under its name."""

    def register(function: Callable[..., Iterator[str]]) -> Callable[..., Iterator[str]]:
        READERS[function.__name__] = Reader(function, prose)
        return function

    return register
