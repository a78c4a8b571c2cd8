"""A registry of tables, figures or claims, each built by a module of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from operator import or_
from typing import Generic, Protocol, TypeVar, cast

from prosparse.experiment.experiment import Experiment
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.system.errors import ConfigError

Built = TypeVar("Built", covariant=True)


class Module(Protocol[Built]):
    """What each registered module provides."""

    def needs(self, experiment: Experiment) -> Needs:
        """Return the measurements that are needed."""

    def build(self, results: Results) -> Built:
        """Build it from the measurements.

        Raises:
            MissingResult: if a measurement it needs does not exist; names the file.
        """


@dataclass(frozen=True)
class Registry(Generic[Built]):
    """The modules of a package that build tables, figures or claims, in the order of the page.

    Attributes:
        kind: what they build, as an error names it.
        package: the package that holds a module of each name.
    """

    kind: str
    package: str
    names: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def module(self, name: str) -> Module[Built]:
        """Return the module that builds ``name``.

        Raises:
            ConfigError: if it is not registered.
        """
        if name not in self.names:
            raise ConfigError(f"{self.kind} {name!r}: no such {self.kind}; there are {', '.join(self.names)}")
        return cast(Module[Built], import_module(f"{self.package}.{name}"))

    def needs(self, name: str, experiment: Experiment) -> Needs:
        return self.module(name).needs(experiment)

    def all_needs(self, experiment: Experiment) -> Needs:
        return reduce(or_, (self.needs(name, experiment) for name in self.names))

    def build(self, name: str, results: Results) -> Built:
        return self.module(name).build(results)
