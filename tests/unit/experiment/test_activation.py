"""Activations as text."""

from __future__ import annotations

import pytest

from prosparse.experiment.activation import Activation
from prosparse.system.errors import ConfigError


@pytest.mark.parametrize("text", ["relu", "silu", "fatrelu-0.01", "shiftrelu-0.1", "fatrelu-0"])
def test_activation_text_round_trip(text):
    assert str(Activation.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gelu", r"'gelu': allowed are silu, relu, fatrelu-THRESHOLD and shiftrelu-BIAS"),
        ("fatrelu", r"did you mean fatrelu-0\.01\? allowed are"),
        ("fatrelu--1", "both numbers at least 0"),
        ("relu-0.1", "'relu-0.1': allowed are silu, relu, fatrelu-THRESHOLD"),
        ("fatrelu-x", r"did you mean fatrelu-0\.01\?"),
        ("shiftrelu-inf", "both numbers at least 0"),
        ("FATReLU_0.3", r"did you mean fatrelu-0\.3\?"),
    ],
)
def test_bad_activation_text(text, message):
    with pytest.raises(ConfigError, match=message):
        Activation.parse(text)
