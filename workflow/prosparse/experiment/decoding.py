"""Section ``decoding``: the models, shapes and engines to time."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from prosparse.experiment.model import Architecture
from prosparse.experiment.section import Count, Name, Section, WeightPrecision, check_known
from prosparse.published.settings import sparse_settings

BLOCKS, BLOCK = ("q8_0", "q4_0"), 32  # the formats whose values share scales, and how many


def _differ(precisions: list[WeightPrecision]) -> list[WeightPrecision]:
    for precision in precisions:
        if precisions.count(precision) > 1:
            raise ValueError(f"{precision} is there more than once")
    return precisions


Precisions = Annotated[list[WeightPrecision], Field(min_length=1), AfterValidator(_differ)]


class Shape(Architecture):
    """Synthetic weights in this shape, as sparse as rows of Table 2 say."""

    vocabulary_size: Count = Field(description="Rows of the embedding.")
    rank: Count = Field(default=1024, description="Width of its predictors' hidden layer.")
    rows: list[str] = Field(min_length=1, description="Sparse rows of Table 2.")
    precisions: Precisions | None = Field(default=None, description="Of its weights; default: decoding.precisions.")

    @field_validator("rows")
    @classmethod
    def rows_are_sparse_ones_of_table_2(cls, rows: list[str]) -> list[str]:
        for row in rows:
            check_known(row, sparse_settings(), "rows")
        return rows


class PowerInfer(Section):
    """PowerInfer, built from source."""

    source: str = Field(description="A directory, or what git can clone.")
    revision: str | None = Field(default=None, description="A commit, branch or tag.")


class Engines(Section):
    """Other engines to time on the same weights. This project does not install them."""

    llama_cpp: bool = Field(default=False, description="Time llama.cpp through llama-cpp-python.")
    powerinfer: PowerInfer | None = Field(default=None, description="Time PowerInfer.")


class Decoding(Section):
    """How decoding is timed, for the left half of Table 2."""

    precisions: Precisions = Field(
        default=["bfloat16"], description="Of the weights; Table 2 and the claims take the first."
    )
    prompts: Count = Field(default=4, description="Prompts per model.")
    new_tokens: Annotated[int, Field(ge=16, multiple_of=16)] = Field(default=128, description="Tokens per prompt.")
    shapes: dict[Name, Shape] = Field(default={}, description="Synthetic models by name.")
    engines: Engines = Field(default=Engines(), description="Engines to compare with.")

    @property
    def rounds(self) -> bool:
        """Whether trained models are decoded in a format that changes their loss noticeably."""
        return any(precision in BLOCKS for precision in self.precisions)

    def of_shape(self, name: str) -> list[WeightPrecision]:
        """Return the precisions of a shape."""
        return self.shapes[name].precisions or self.precisions

    @model_validator(mode="after")
    def shapes_are_whole_blocks(self) -> Self:
        for name, shape in self.shapes.items():
            rounded = [precision for precision in self.of_shape(name) if precision in BLOCKS]
            for key in ("hidden_size", "intermediate_size") if rounded else ():
                if (size := getattr(shape, key)) % BLOCK:
                    raise ValueError(
                        f"shapes.{name}.{key}: {size} is not a multiple of {BLOCK}, which {rounded[0]} needs"
                    )
        return self
