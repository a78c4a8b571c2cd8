"""Mutations of command lines, configs and files, each made from a seed."""

from __future__ import annotations

import copy
import random
import string
from typing import Any

import pytest

ODD_WORDS = [
    "",
    " ",
    "-",
    "--",
    "nan",
    "inf",
    "-1",
    "0",
    "1e999",
    "é",
    "\u202e",
    "a/b/c",
    "x" * 300,
    "~",
    "%s",
    "{}",
    "null",
]
ODD_VALUES: list[Any] = [
    None, "", "x", -1, 0, 1.5, 10**12, float("inf"), float("nan"), True, [], ["x"], {}, {"x": 1}, [[1]], "relu", "1e3",
]  # fmt: skip


def misspelt(word: str, chance: random.Random) -> str:
    if not word:
        return "x"
    place = chance.randrange(len(word))
    return chance.choice(
        [
            word[:place] + word[place + 1 :],
            word[:place] + chance.choice(string.ascii_letters) + word[place:],
            word[:place] + word[place : place + 2][::-1] + word[place + 2 :],
            word.upper(),
            word.replace("-", "_") if "-" in word else word + "s",
        ]
    )


def mutated_words(words: list[str], chance: random.Random) -> list[str]:
    words = list(words)
    place = chance.randrange(len(words))
    match chance.randrange(6):
        case 0:
            del words[place]
        case 1:
            words[place] = misspelt(words[place], chance)
        case 2:
            words[place] = chance.choice(ODD_WORDS)
        case 3:
            words.insert(place, chance.choice([*ODD_WORDS, "--seed", "--dense", "--rank", "--unknown", "-o"]))
        case 4:
            other = chance.randrange(len(words))
            words[place], words[other] = words[other], words[place]
        case 5:
            del words[place:]
    return words


def mutated_tree(tree: Any, chance: random.Random) -> Any:
    """One entry of a nest of mappings and lists is dropped, renamed, doubled or given another value."""
    tree = copy.deepcopy(tree)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    walk(tree)
    node, key = chance.choice(places)
    match chance.randrange(4):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[misspelt(str(key), chance)] = node.pop(key)
        case 2 if isinstance(node, list):
            node.append(node[key])
        case _:
            node[key] = chance.choice([each for each in ODD_VALUES if each != node[key]])
    return tree


def mutated_bytes(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    match chance.randrange(5):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :]
        case 2:
            return content[:place] + chance.randbytes(7) + content[place:]
        case 3:
            return b"\xff\xfe" + content
        case _:
            return content[:place] + b"\0" * 16 + content[place + 16 :]


def cases(count: int) -> Any:
    """Run a test with this many seeds."""
    return pytest.mark.parametrize("seed", range(count), ids=[f"case{seed}" for seed in range(count)])
