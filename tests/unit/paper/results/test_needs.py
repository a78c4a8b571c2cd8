"""Needs are joined field by field."""

from __future__ import annotations

from prosparse.paper.results.needs import Needs


def test_needs_are_united():
    a, b = Needs({"x"}, {("x", "relu")}), Needs({"y"}, set(), {("y", 0)})
    assert (a | b) == Needs({"x", "y"}, {("x", "relu")}, {("y", 0)})
    assert (a | Needs(operators=True)).operators
    assert not (a | b).operators
    c = Needs(prediction={("x", "relu")}, predicted_benchmarks={("x", "relu")}, decoding=True, decoding_shapes={"7b"})
    assert (a | c) == Needs({"x"}, {("x", "relu")}, set(), False, c.prediction, c.predicted_benchmarks, True, {"7b"})
    assert (Needs(stage_sparsity={"x"}) | Needs(stage_sparsity={"y"})) == Needs(stage_sparsity={"x", "y"})
