"""Readers on small archives of the real layout, templates, local files."""

import json
import zipfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prosparse.data import sources
from prosparse.experiment.data import Corpus
from prosparse.system.errors import ConfigError


def corpus(**source) -> Corpus:
    return Corpus(stands_for="pile", kind="language_modelling", source=source)


def archive(path, files):
    with zipfile.ZipFile(path / "x-1.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return path / "x-1.whl"


# ---------------------------------------------------------------------------- configuration


def test_unknown_reader_names_the_allowed():
    with pytest.raises(ConfigError, match=r"corpora\.c\.source\.reader.*'novels'.*encyclopedia.*text_files"):
        sources.check("c", corpus(package="p", reader="novels"))


def test_unknown_option_names_the_allowed():
    with pytest.raises(ConfigError, match=r"'glob' of text_files; allowed: files, exclude"):
        sources.check("c", corpus(package="p", reader="text_files", options={"glob": "*"}))


@pytest.mark.parametrize("template", ["{", "no column", "{0}", "{text.__class__}", "{a[0]}"])
def test_bad_template(template):
    with pytest.raises(ConfigError, match=r"corpora\.c\.source\.template"):
        sources.check("c", corpus(hub="some/set", template=template))


# ------------------------------------------------------------------------------------ files


def test_files(tmp_path):
    (tmp_path / "a.txt").write_text("whole file\nof text")
    (tmp_path / "b.jsonl").write_text('{"q": "one", "a": 1}\n\n{"q": "two", "a": null}\n')
    pq.write_table(pa.table({"q": ["three"], "a": [3]}), tmp_path / "c.parquet")
    assert list(sources.read("c", corpus(files=[str(tmp_path / "*.txt")]))) == ["whole file\nof text"]
    rows = corpus(files=[str(tmp_path / "b.jsonl"), str(tmp_path / "c.parquet")], template="{q}={a!s}")
    dropped = Counter()
    assert list(sources.read("c", rows, dropped=dropped)) == ["one=1", "three=3"]  # a row without a value is left out
    assert dropped == {"a": 1}


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"corpora\.c\.source\.files.*nowhere\.jsonl"):
        list(sources.read("c", corpus(files=[str(tmp_path / "nowhere.jsonl")])))


def test_other_format_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(ConfigError, match=r"a\.csv"):
        list(sources.read("c", corpus(files=[str(tmp_path / "a.csv")])))


def test_missing_column_lists_columns(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"question": "one", "answer": "1"}\n')
    with pytest.raises(ConfigError, match=r"b\.jsonl, line 1 has no column 'text'; columns: question, answer"):
        list(sources.read("c", corpus(files=[str(tmp_path / "b.jsonl")])))


NOT_TEXT = {"number": 42, "fraction": 0.5, "truth": True, "list": ["a", "b"], "mapping": {"a": "b"}}


@pytest.mark.parametrize("value", NOT_TEXT.values(), ids=NOT_TEXT)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_what_is_not_text_is_refused_with_file_and_row(tmp_path, kind, value):
    """Not trained on as Python's notation of it."""
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text(f'{{"text": "fine"}}\n\n{{"text": {json.dumps(value)}}}\n')
    else:
        pq.write_table(pa.table({"text": [value]}), path)
    place = "line 3" if kind == "jsonl" else "row 1"
    with pytest.raises(ConfigError, match=rf"rows\.{kind}, {place}: column 'text' holds a {type(value).__name__} "):
        list(sources.read("c", corpus(files=[str(path)])))


UNREADABLE = {
    "binary.txt": (b"PK\x03\x04\xff\xfe", "not UTF-8 text"),
    "zeros.txt": (b"abc\0def", "NUL byte"),
    "latin.jsonl": ('{"text": "caf\u00e9"}'.encode("latin-1"), "not UTF-8 text"),
    "broken.jsonl": (b'{"text": "a"}\n{"text": ', "line 2: not JSON"),
    "row.jsonl": (b'"a text"\n', "line 1: the row is a str"),
    "list.jsonl": (b'["a text"]\n', "line 1: the row is a list"),
    "torn.parquet": (b"PAR1 torn", "cannot be read as Parquet"),
    "empty.parquet": (b"", "cannot be read as Parquet"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    content, message = UNREADABLE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        list(sources.read("c", corpus(files=[str(tmp_path / name)])))
    assert str(tmp_path / name) in str(error.value)


def test_a_folder_named_like_a_file(tmp_path):
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.txt cannot be read: Is a directory"):
        list(sources.read("c", corpus(files=[str(tmp_path / "folder.txt")])))


def test_text_is_utf_8_and_each_file_is_read_once(tmp_path):
    """Whatever the locale; a byte order mark is no text; a name may hold the characters of a pattern."""
    (tmp_path / "a[1].txt").write_bytes("\ufeffgrüße".encode())
    files = [str(tmp_path / "a[1].txt"), str(tmp_path / "*.txt")]
    assert list(sources.read("c", corpus(files=files))) == ["grüße"]


def test_hub_is_streamed(monkeypatch):
    import datasets

    def load_dataset(*arguments, **options):
        assert arguments == ("some/set", "english")
        assert options == {"split": "validation", "data_files": None, "revision": "f00d", "streaming": True}
        return datasets.Dataset.from_dict({"text": ["one", "two"]}).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = corpus(hub="some/set", name="english", split="validation", revision="main")
    assert list(sources.read("c", source, commit="f00d")) == ["one", "two"]


CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]


def test_items_of_a_list_column(tmp_path):
    rows = [{"title": "A", "chat": CHAT, "turns": ["one", "two", "three"]}, {"title": "B", "chat": [], "turns": None}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = {
        "chat": ["A\nuser: Hi\nassistant: Hello\nuser: Bye", "B\n"],
        "turns": ["A\nQ: one\nA: two\nQ: three", "B\n"],  # none are no items
    }
    for column, templates in (("chat", ["{role}: {content}"]), ("turns", ["Q: {item}", "A: {item}"])):
        options = {"template": f"{{title}}\n{{{column}}}", "items": {column: templates}}
        for where in ({"files": [str(tmp_path / "a.jsonl")]}, {"hub": str(tmp_path)}):
            assert list(sources.read("c", corpus(**where, **options))) == expected[column]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"chats": ["{role}"]}, r"items: 'chats' is not a column of the template '\{chat\}'"),
        ({"chat": ["{"]}, r"items\.chat: '\{' is not a format string"),
        ({"chat": ["{name}"]}, r"items\.chat: the items have no field 'name'; fields: role, content"),
    ],
)
def test_bad_items_name_the_key(tmp_path, items, message):
    (tmp_path / "a.jsonl").write_text(json.dumps({"chat": CHAT}) + "\n")
    source = corpus(files=[str(tmp_path / "a.jsonl")], template="{chat}", items=items)
    with pytest.raises(ConfigError, match=message):
        list(sources.read("c", source))


def test_items_of_a_column_that_is_no_list(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "words"}) + "\n")
    source = corpus(files=[str(tmp_path / "a.jsonl")], items={"text": ["{item}"]})
    with pytest.raises(ConfigError, match=r"items\.text: the column holds str, not a list"):
        list(sources.read("c", source))


# -------------------------------------------------------------------------------- packages


def test_text_files(tmp_path):
    wheel = archive(tmp_path, {"p/a.py": "x = 1\n", "p/tests/b.py": "y", "p/c.txt": "z"})
    source = corpus(package="p", reader="text_files", options={"files": "p/*.py", "exclude": "/tests/"})
    assert list(sources.read("c", source, wheel)) == ["x = 1\n"]
