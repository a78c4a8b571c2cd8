"""Scores of benchmarks that an interrupted evaluation finished, kept for the next call."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from prosparse.system.files import write_json
from prosparse.system.provenance import digest


class FinishedTasks:
    """One file per benchmark in ``directory``, with its origin; scores of another origin are not reused.

    ``origin`` names what all benchmarks of an evaluation are made from: weights, activation, versions, ...
    """

    def __init__(self, directory: Path, origin: dict[str, Any]) -> None:
        self._directory, self._origin = directory, origin

    def read(self, name: str, asked: dict[str, Any]) -> dict[str, Any] | None:
        """The scores of benchmark ``name`` if made from ``asked`` and this origin, else None."""
        try:
            held = json.loads(self._file(name).read_text(encoding="utf-8"))
            origin, scores = dict(held["origin"]), dict(held["scores"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            print(f"{name}: {self._file(name)} is not readable; answered again", flush=True)
            return None
        wanted = self._all(asked)
        if differing := sorted(key for key in origin.keys() | wanted.keys() if origin.get(key) != wanted.get(key)):
            print(f"{name}: finished before with another {', '.join(differing)}; answered again", flush=True)
            return None
        return scores

    def write(self, name: str, asked: dict[str, Any], scores: dict[str, Any]) -> None:
        write_json(self._file(name), {"origin": self._all(asked), "scores": scores})

    def clear(self) -> None:
        """Remove the scores, once the evaluation's own output is written."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _all(self, asked: dict[str, Any]) -> dict[str, str]:
        return {key: digest(value) for key, value in (self._origin | asked).items()}
