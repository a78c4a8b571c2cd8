"""Read a corpus from package archives, Hugging Face data sets or local files."""

from __future__ import annotations

import glob
import inspect
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Formatter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prosparse.data import hub
from prosparse.data.readers import READERS
from prosparse.data.shards import share
from prosparse.experiment.data import Corpus, FileSource, HubSource, PackageSource
from prosparse.system.errors import ConfigError


def check(name: str, corpus: Corpus) -> None:
    """Raise ConfigError for an unknown reader or option, or a template that is not a format string."""
    source, where = corpus.source, f"data.corpora.{name}.source"
    if isinstance(source, PackageSource):
        if source.reader not in READERS:
            allowed = sorted(READERS)
            raise ConfigError(f"{where}.reader: unknown reader {source.reader!r}; allowed: {', '.join(allowed)}")
        allowed = list(inspect.signature(READERS[source.reader].read).parameters)[1:]
        for option in source.options:
            if option not in allowed:
                known = ", ".join(allowed) or "none"
                raise ConfigError(f"{where}.options: unknown option {option!r} of {source.reader}; allowed: {known}")
    else:
        columns = template_columns(source.template, f"{where}.template")
        for column, templates in source.items.items():
            if column not in columns:
                raise ConfigError(f"{where}.items: {column!r} is not a column of the template {source.template!r}")
            for template in templates:
                template_columns(template, f"{where}.items.{column}")


def read(
    name: str,
    corpus: Corpus,
    archive: Path | None = None,
    shard: int = 0,
    commit: str | None = None,
    dropped: Counter[str] | None = None,
) -> Iterator[str]:
    """Yield the documents of a shard of a corpus.

    Args:
        archive: the fetched package of a package source.
        commit: commit of a hub source, from :func:`prosparse.data.hub.commit`.
        dropped: counts the rows skipped because a column of the template is empty, per column.

    Raises:
        ConfigError: :func:`check` fails, a file or data set is missing, the rows lack a column, or there are more
            shards than files.
    """
    check(name, corpus)
    source, where = corpus.source, f"data.corpora.{name}.source"
    if isinstance(source, PackageSource):
        if archive is None:
            raise ConfigError(f"{where}: reader {source.reader} needs the archive of package {source.package}")
        return READERS[source.reader].read(archive, **source.options)
    if isinstance(source, HubSource):
        rows = _numbered(hub.rows(source, commit, shard, corpus.shards, where), source.hub)
    else:
        rows = _file_rows(source, shard, corpus.shards, where)
    return _fill(rows, source, where, Counter() if dropped is None else dropped)


def is_prose(corpus: Corpus) -> bool:
    return isinstance(corpus.source, PackageSource) and READERS[corpus.source.reader].prose


def template_columns(template: str, where: str) -> set[str]:
    """Return the names of the columns that a template uses."""
    try:
        columns = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ConfigError(f"{where}: {template!r} is not a format string: {error}") from None
    if not columns or not all(column.isidentifier() for column in columns):
        raise ConfigError(f"{where}: {template!r} must name columns, as in '{{question}} {{answer}}'")
    return columns


def _fill(
    rows: Iterator[tuple[str, Any]], source: HubSource | FileSource, where: str, dropped: Counter[str]
) -> Iterator[str]:
    columns = sorted(template_columns(source.template, f"{where}.template"))
    as_they_are = _converted_columns(source.template) | source.items.keys()
    for place, row in rows:
        if not isinstance(row, Mapping):
            raise ConfigError(f"{place}: the row is {_kind(row)}, not a mapping of columns")
        for column in columns:
            if column not in row:
                raise ConfigError(f"{where}.template: {place} has no column {column!r}; columns: {', '.join(row)}")
        # a missing list of items renders as nothing, like an empty one
        empty = next((column for column in columns if row[column] is None and column not in source.items), None)
        if empty is not None:
            dropped[empty] += 1
            continue
        for column in columns:
            if column not in as_they_are and not isinstance(row[column], str):
                raise ConfigError(
                    f"{place}: column {column!r} holds {_kind(row[column])}, not text; for a number, write "
                    f"{{{column}!s}} in the template, for a list, add {column} to source.items"
                )
        lists = {
            column: _items(row[column] if row[column] is not None else [], templates, f"{where}.items.{column}")
            for column, templates in source.items.items()
        }
        yield source.template.format_map({**row, **lists})


def _converted_columns(template: str) -> set[str]:
    """Return the columns that the template converts to text: ``{answer!s}``, ``{score:.2f}``."""
    return {field for _, field, form, conversion in Formatter().parse(template) if field and (form or conversion)}


def _kind(value: Any) -> str:
    return f"a {type(value).__name__} ({value!r:.40})"


def _items(items: Any, templates: list[str], where: str) -> str:
    if not isinstance(items, list):
        raise ConfigError(f"{where}: the column holds {type(items).__name__}, not a list")
    lines = []
    for item, template in zip(items, itertools.cycle(templates), strict=False):
        fields = item if isinstance(item, Mapping) else {"item": item}
        try:
            lines.append(template.format_map(fields))
        except KeyError as error:
            raise ConfigError(f"{where}: the items have no field {error}; fields: {', '.join(fields)}") from None
    return "\n".join(lines)


def files_of(source: FileSource, where: str) -> list[Path]:
    """Return the files that match the patterns, each once.

    Raises:
        ConfigError: a pattern matches no file, or a file has an unsupported format.
    """
    files: list[Path] = []
    for pattern in source.files:
        # a file name may contain wildcard characters
        found = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise ConfigError(f"{where}.files: no file {pattern!r}")
        files += [Path(file) for file in found]
    for file in files:
        if file.suffix not in (".txt", ".jsonl", ".parquet"):
            raise ConfigError(f"{where}.files: {str(file)!r} is neither .txt, .jsonl nor .parquet")
    return list(dict.fromkeys(files))


def _file_rows(source: FileSource, shard: int, shards: int, where: str) -> Iterator[tuple[str, Any]]:
    """Yield (location, row) for each row."""
    files = files_of(source, where)
    if len(files) < shards:
        raise ConfigError(f"{where.removesuffix('.source')}.shards is {shards}: there are only {len(files)} files")
    readers = {".txt": _text_row, ".jsonl": _json_rows, ".parquet": _parquet_rows}
    for file in (files[index] for index in share(len(files), shard, shards)):
        try:
            yield from readers[file.suffix](file)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}") from None
        except pa.ArrowException as error:
            raise ConfigError(f"{file} cannot be read as Parquet: {error}") from None
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from None


def _text_row(file: Path) -> Iterator[tuple[str, Any]]:
    text = file.read_text(encoding="utf-8-sig")
    if "\0" in text:
        raise ConfigError(f"{file} is not text: it contains a NUL byte")
    yield str(file), {"text": text}


def _json_rows(file: Path) -> Iterator[tuple[str, Any]]:
    with open(file, encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield f"{file}, line {number}", json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ConfigError(f"{file}, line {number}: not JSON: {error}") from None


def _parquet_rows(file: Path) -> Iterator[tuple[str, Any]]:
    batches = pq.ParquetFile(file).iter_batches()
    return _numbered((row for batch in batches for row in batch.to_pylist()), file)


def _numbered(rows: Iterator[Any], source: str | Path) -> Iterator[tuple[str, Any]]:
    return ((f"{source}, row {number}", row) for number, row in enumerate(rows, 1))
