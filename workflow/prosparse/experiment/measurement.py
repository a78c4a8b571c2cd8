"""Sections ``benchmarks``, ``operators`` and ``predictors``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from prosparse.experiment.section import Count, Section, WeightType, check_known


class Benchmarks(Section):
    """Which benchmarks are answered, on how many rows."""

    rows: Literal["packages", "hub", "files"] = Field(description="Where the rows come from.")
    directory: str | None = Field(default=None, description="Their directory, for rows: files.")
    tasks: list[str] = Field(description="Names of prosparse/measure/tasks/*.yaml.")
    limit: Count | None = Field(
        default=None, description="Rows per benchmark (MMLU, BBH: in total, spread over subjects); default: all."
    )
    limits: dict[str, Count] = Field(default={}, description="Rows of single benchmarks, over limit.")
    execute_code: bool = Field(
        default=False, description="Run model-written programs, sandboxed, for HumanEval and MBPP."
    )
    batch_tokens: Count = Field(
        default=8192,
        description="Rows times padded length, answers included, per batch; fewer where memory holds fewer.",
    )

    @model_validator(mode="after")
    def limits_are_of_tasks(self) -> Self:
        for name in self.limits:
            check_known(name, self.tasks, "limits")
        return self


class Operators(Section):
    """What the sparse FFN operators are timed with, for the right half of Table 2."""

    shapes: dict[Literal["7B", "13B", "1B"], tuple[Count, Count]] = Field(
        min_length=1, description="(hidden_size, intermediate_size) by scale."
    )
    densities: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        min_length=1, description="Shares of active neurons to time, in addition to the paper's."
    )
    dtype: WeightType = Field(default="bfloat16", description="Precision of weights and inputs.")
    rounds: Annotated[int, Field(ge=4)] = Field(default=32, description="Paired repetitions.")
    memory_limit: Count = Field(default=4 << 30, description="Bytes of weights that calls rotate through.")


class Predictors(Section):
    """Activation predictors for the left half of Table 2: their kinds, and the recipe of the trained ones."""

    kinds: list[Literal["nonzero", "top", "svd"]] = Field(
        min_length=1, description="Label rules of trained predictors, or untrained svd; decoding uses the first."
    )
    rank: Count = Field(description="Width of the hidden layer.")
    tokens: Count = Field(description="Tokens per layer; 5% of them choose the best epoch.")
    epochs: Count = Field(default=20, description="Maximum number of passes over them.")
    patience: Count = Field(default=5, description="Epochs without better recall before training stops.")
    batch_size: Count = Field(default=1024, description="Tokens per step.")
    learning_rate: Annotated[float, Field(gt=0)] = Field(default=1e-3, description="Adam's.")
    top: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.15, description="Share of a token's neurons that kind top labels active."
    )
    decision_threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="Least probability at which a neuron is predicted active."
    )
