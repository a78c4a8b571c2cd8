"""The strict, immutable base class of config sections, and common field types."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from prosparse.system.problems import did_you_mean


class Section(BaseModel):
    """A part of a config file. Unknown keys are errors; values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
Count = Annotated[int, Field(gt=0)]
#: What transformers takes.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["float32", "bfloat16"]
WeightType = Literal["bfloat16", "float16", "float32"]
#: Of weights that decode: a dtype, or one of ggml's formats.
WeightPrecision = Literal["bfloat16", "float16", "float32", "q8_0", "q4_0"]


def check_known(name: str, allowed: Collection[str], where: str) -> None:
    """Check that ``name`` is one of the allowed names.

    Raises:
        ValueError: if it is not; the message names the key, the value and the allowed values.
    """
    if name not in allowed:
        raise ValueError(f"{where}: unknown name {name!r}{did_you_mean(name, allowed)}; allowed: {', '.join(allowed)}")
