"""The committed copy to compare with, of the same config except for its seeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import RESULTS, Layout
from prosparse.system.errors import ConfigError

#: Keys that change no compared number; seeds do, but by a spread that can be told.
MAY_DIFFER = frozenset({"experiment", "description", "seeds", "hardware", "release"})

_SHOWN = 6  # differing keys in an error


def committed(layout: Layout) -> Layout:
    """Return the layout of the committed copy, under its own config.

    Raises:
        ConfigError: if there is none, or if its config differs; names the keys.
    """
    directory = layout.published()
    config = directory / layout.config().name
    if not config.exists():
        found = sorted(path.parent.name for path in directory.parent.glob(f"*/{config.name}"))
        raise ConfigError(
            f"{config}: no such file, so there is nothing to compare with; allowed: an experiment in "
            f"{RESULTS / 'published'} ({', '.join(found) or 'none yet'}), where `snakemake publish` writes"
        )
    try:
        experiment = Experiment.model_validate_json(config.read_text(encoding="utf-8"))
    except ValidationError as error:
        keys = sorted({".".join(map(str, each["loc"])) for each in error.errors()})
        raise ConfigError(f"{config}: not a config of this version, publish it again (at {_listed(keys)})") from None
    keys = [
        f"{key} ({there} there, {here} here)"
        for key, here, there in _differences(layout.experiment.model_dump(), experiment.model_dump())
        if key.partition(".")[0] not in MAY_DIFFER
    ]
    if keys:
        raise ConfigError(
            f"{config}: another config, so its numbers belong to another experiment; differing keys: {_listed(keys)}; "
            f"only {', '.join(sorted(MAY_DIFFER))} may differ"
        )
    return Layout(experiment, directory)


def _listed(keys: list[str]) -> str:
    more = [f"and {len(keys) - _SHOWN} more"] if len(keys) > _SHOWN else []
    return ", ".join(keys[:_SHOWN] + more)


def _differences(ours: Any, published: Any, key: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, our value, published value) of every difference between two JSON values."""
    if isinstance(ours, dict) and isinstance(published, dict):
        for name in dict.fromkeys([*ours, *published]):
            inner = f"{key}.{name}" if key else str(name)
            yield from _differences(ours.get(name), published.get(name), inner)
    elif isinstance(ours, list) and isinstance(published, list) and len(ours) == len(published):
        for index, (one, other) in enumerate(zip(ours, published, strict=True)):
            yield from _differences(one, other, f"{key}.{index}")
    elif ours != published:
        yield key, _shown(ours), _shown(published)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return "more" if isinstance(value, dict | list) and value else str(value)
