"""A 64-bit hash of a text that every process and machine agrees on, unlike Python's own."""

from __future__ import annotations

import hashlib


def stable_hash(text: str, key: str = "") -> int:
    """Return BLAKE2b's first 8 bytes; another key (at most 64 bytes) gives an independent hash."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=key.encode()).digest(), "big")
