"""Activations as text."""

from __future__ import annotations

import pytest

from prosparse.experiment.activation import Activation
from prosparse.system.errors import ConfigError


@pytest.mark.parametrize("text", ["relu", "silu", "relu2", "drelu", "fatrelu-0.01", "shiftrelu-0.1", "fatrelu-0"])
def test_activation_text_round_trip(text):
    assert str(Activation.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gelu", r"'gelu': allowed are silu, relu, relu2, drelu, fatrelu-THRESHOLD and shiftrelu-BIAS"),
        ("fatrelu", r"did you mean fatrelu-0\.01\? allowed are"),
        ("fatrelu--1", "both numbers at least 0"),
        ("relu-0.1", "'relu-0.1': allowed are silu, relu, relu2, drelu, fatrelu-THRESHOLD"),
        ("relu2-0.1", r"'relu2-0\.1': did you mean relu2\? allowed are silu, relu, relu2, drelu, "),
        ("drelu-0.1", r"'drelu-0\.1': allowed are silu, relu, relu2, drelu, "),
        ("d-ReLU", r"did you mean drelu\?"),
        ("ReLU^2", r"did you mean relu2\?"),
        ("squared_relu", r"did you mean relu2\?"),
        ("relu3", "'relu3': allowed are"),
        ("fatrelu-x", r"did you mean fatrelu-0\.01\?"),
        ("shiftrelu-inf", "both numbers at least 0"),
        ("cats-0.5", r"'cats-0\.5': thresholds without training \(cats, teal, cett\) are only measured"),
        ("cett", r"figures\.frontier\.\*\.training_free"),
        ("FATReLU_0.3", r"did you mean fatrelu-0\.3\?"),
    ],
)
def test_bad_activation_text(text, message):
    with pytest.raises(ConfigError, match=message):
        Activation.parse(text)


@pytest.mark.parametrize("name", ["silu", "relu", "relu2", "drelu"])
def test_a_parameter_where_none_is_allowed(name):
    with pytest.raises(ValueError, match=r"required for shiftrelu \(bias\) and fatrelu \(threshold\), not allowed"):
        Activation(name=name, parameter=0.1)
