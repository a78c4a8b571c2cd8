"""The FFN's activation, by name and parameter."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from prosparse.experiment.section import Section
from prosparse.experiment.training_free import METHODS
from prosparse.system.errors import ConfigError


class Activation(Section):
    """The FFN's activation, written ``silu``, ``relu``, ``relu2``, ``drelu``, ``fatrelu-0.01`` or ``shiftrelu-0.1``."""

    name: Literal["silu", "relu", "relu2", "drelu", "shiftrelu", "fatrelu"] = Field(
        description="The function; relu2 is ReLU squared, drelu is ReLU on both the gate and the up projection."
    )
    parameter: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Bias b of shiftrelu or threshold t of fatrelu; the others take none."
    )

    @model_validator(mode="after")
    def parameter_where_needed(self) -> Self:
        if (self.parameter is not None) != (self.name in ("shiftrelu", "fatrelu")):
            raise ValueError(
                "parameter: required for shiftrelu (bias) and fatrelu (threshold), not allowed for silu, relu, relu2, "
                "drelu"
            )
        return self

    @classmethod
    def parse(cls, text: str) -> Activation:
        """Parse an activation's text, such as ``relu`` or ``fatrelu-0.01``.

        Raises:
            ConfigError: if the text is no activation's.
        """
        name, _, parameter = text.partition("-")
        if name in METHODS:
            raise ConfigError(
                f"activation {text!r}: thresholds without training ({', '.join(METHODS)}) are only measured, with "
                "`prosparse sparsity --training-free` or figures.frontier.*.training_free"
            )
        try:
            return cls(name=name, parameter=float(parameter) if parameter else None)  # type: ignore[arg-type]
        except ValueError:  # includes ValidationError
            raise ConfigError(
                f"activation {text!r}: {_meant(text)}allowed are silu, relu, relu2, drelu, fatrelu-THRESHOLD and "
                "shiftrelu-BIAS (fatrelu-0.01; both numbers at least 0)"
            ) from None

    @classmethod
    def from_text(cls, value: Any) -> Any:
        """Turn text from a config into the mapping that a field of this type takes; return other values unchanged."""
        return cls.parse(value).model_dump() if isinstance(value, str) else value

    def __str__(self) -> str:
        return self.name if self.parameter is None else f"{self.name}-{self.parameter:g}"


def _meant(text: str) -> str:
    """Return a question that suggests the closest activation, or an empty string if none is close."""
    number = re.search(r"\d*\.?\d+", text)
    defaults = {"fatrelu": 0.01, "shiftrelu": 0.1}
    texts = {name: f"{name}-{float(number[0]) if number else default:g}" for name, default in defaults.items()}
    if number is None:
        texts |= {"silu": "silu", "relu": "relu", "drelu": "drelu", "squaredrelu": "relu2"}
    elif number[0] == "2":
        texts["relu"] = "relu2"
    for name in get_close_matches(re.sub(r"[^a-z]", "", text.lower()), texts, 1, cutoff=0.8):
        return f"did you mean {texts[name]}? "
    return ""
