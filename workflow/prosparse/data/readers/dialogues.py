"""Conversations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from prosparse.data.packages import members
from prosparse.data.readers.registry import reader


@reader(prose=True)
def dialogues(archive: Path) -> Iterator[str]:
    """English conversations of chatterbot-corpus, turns alternating between user and assistant."""
    for _, content in members(archive, "chatterbot_corpus/data/english/*.yml"):
        for conversation in yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["conversations"]:
            turns = [str(turn).strip() for turn in conversation]
            yield "\n".join(f"{('User', 'Assistant')[i % 2]}: {turn}" for i, turn in enumerate(turns))
