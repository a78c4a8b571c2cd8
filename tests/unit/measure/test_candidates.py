"""Candidate answers of BBH rows, as its questions list them."""

from __future__ import annotations

import pytest

from prosparse.measure.candidates import candidates


@pytest.mark.parametrize(
    ("question", "target", "unlisted", "expected"),
    [
        ("Which?\nOptions:\n(A) one (of two)\n(B) - a dash", "(B)", (), ["(A)", "(B)"]),
        ("Valid?\nOptions:\n- valid \n- invalid", "invalid", (), ["valid", "invalid"]),
        ("Is it plausible?", "yes", ("yes", "no"), ["yes", "no"]),
        ("How many?", "7", (), []),
        ("A movie?\nOptions:\n(A) Jaws", "Monsters, Inc", (), []),  # a row whose answer is not among them
    ],
)
def test_candidates(question, target, unlisted, expected):
    assert candidates({"input": question, "target": target}, unlisted) == expected
