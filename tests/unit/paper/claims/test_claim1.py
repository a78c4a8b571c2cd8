"""Claim 1 flips when its numbers flip."""

from __future__ import annotations

from helpers.claims import verdicts_of

from prosparse.paper.claims.registry import FAILS


def test_claim1_flips_when_vanilla_drifts_or_rises_without_lambda(synthetic):
    path = synthetic.layout.ledger("vanilla", 0, 1)
    lines = path.read_text().splitlines()
    last = lines[-1].split(",")
    last[6] = "0.80"
    path.write_text("\n".join([*lines[:-1], ",".join(last)]) + "\n")
    assert verdicts_of(synthetic)[1].verdict == FAILS


def test_claim1_fails_where_lambda_does_not_raise_sparsity(synthetic):
    for stage in range(6):
        path = synthetic.layout.ledger("progressive", stage, 1)
        head, *rows = path.read_text().splitlines()
        flat = [",".join([*row.split(",")[:6], "0.66", *row.split(",")[7:]]) for row in rows]
        path.write_text("\n".join([head, *flat]) + "\n")
    assert verdicts_of(synthetic)[1].verdict == FAILS
