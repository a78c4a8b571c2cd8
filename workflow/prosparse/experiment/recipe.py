"""The recipe file of ``prosparse train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from prosparse.experiment.training import Recipe
from prosparse.system.errors import ConfigError
from prosparse.system.problems import describe


class OwnRecipe(Recipe):
    """A run without its start and its data, which come from the command line."""

    context_length: Annotated[int, Field(ge=16)] = 1024

    @model_validator(mode="after")
    def something_is_trained(self) -> Self:
        if self.stages[0].until == 0:
            raise ValueError("stages.0.until is 0: a recipe trains for at least one step")
        return self


class _Loader(yaml.SafeLoader):
    """Load YAML but refuse duplicate keys, of which the parser would silently drop all but the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} appears twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read(path: Path) -> OwnRecipe:
    """Read a recipe file.

    Raises:
        ConfigError: if it cannot be read, is not a YAML mapping, or is not a valid recipe.
    """
    try:
        held = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(held, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of {', '.join(OwnRecipe.model_fields)}")
    try:
        return OwnRecipe.model_validate(held)
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe(error, OwnRecipe)}") from None
