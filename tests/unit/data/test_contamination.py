"""What is kept out of training text: planted benchmark rows and held-out passages, and the share that can be found."""

import json
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest

from prosparse.data import candidates, contamination, documents
from prosparse.data.ngrams import words
from prosparse.experiment.data import Corpus
from prosparse.experiment.specifications import CandidatesSpecification
from prosparse.system.errors import ConfigError

WORDS = np.array([f"word{i}" for i in range(3000)])


def texts(count, seed=0, length=40):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, length)) for _ in range(count)]


class Data:
    """Corpora through all steps, under one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.rows(bench=[{"text": " ".join(f"unrelated{i}" for i in range(20))}])

    def rows(self, **benchmarks):
        (self.folder / "rows").mkdir(exist_ok=True)
        for name, rows in benchmarks.items():
            (self.folder / "rows" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def candidates(self, name, lines):
        source = self.folder / f"{name}.jsonl"
        source.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        corpus = Corpus(stands_for="pile", kind="language_modelling", source={"files": [str(source)]})
        path = self.folder / "candidates" / name / "0.parquet"
        candidates.build(name, CandidatesSpecification(corpus=corpus, heldout_characters=0), None, path)
        return path

    def build(self, **corpora):
        """{corpus: {split: texts}} and the counts of each corpus."""
        paths = {name: self.candidates(name, lines) for name, lines in corpora.items()}
        index = self.folder / "contamination.npz"
        contamination.build(self.folder / "rows", {name: [path] for name, path in paths.items()}, 13, index)
        kept, counts = {}, {}
        for name, path in paths.items():
            out = self.folder / "documents" / name / "0.parquet"
            documents.build(path, index, out, out.with_suffix(".json"))
            rows = pq.read_table(out).to_pylist()
            kept[name] = {split: [r["text"] for r in rows if r["split"] == split] for split in ("train", "heldout")}
            counts[name] = json.loads(out.with_suffix(".json").read_text())
        return kept, counts


@pytest.fixture
def data(tmp_path):
    return Data(tmp_path)


def shared(one, other, length=13):
    def runs(text):
        found = words(text)
        return {tuple(found[start : start + length]) for start in range(len(found) - length + 1)}

    return runs(one) & runs(other)


# ------------------------------------------------------------------------------ benchmark rows

FAUCET = {"premise": "The man turned on the faucet.", "choice1": "The toilet filled.",
          "choice2": "Water flowed out of it.", "question": "effect", "idx": 0, "label": 1}  # fmt: skip
SURGEON = {"sentence": "Sarah was the better surgeon so _ got the harder cases.", "option1": "Sarah",
           "option2": "Maria", "answer": "1"}  # fmt: skip
GOAL = {
    "goal": "How to keep a guinea pig warm?",
    "sol1": "Give it a blanket of fleece.",
    "sol2": "Shave it.",
    "label": 0,
}
PASSAGE = {"ctx": " ".join(f"leak{i}" for i in range(20)), "label": 3}
CHOICES = {"choices": {"text": [" ".join(f"deep{i}" for i in range(13)), "yes"]}}

LEAKS = {
    "long string": (PASSAGE, "Before. LEAK3, leak4 leak5: " + " ".join(f"Leak{i}" for i in range(6, 16)) + " after"),
    "nested string": (CHOICES, "x " * 30 + " ".join(f"deep{i}" for i in range(13))),
    "short question and answer": (FAUCET, "Once, the man turned on the faucet; water flowed out of it. The end."),
    "short question and wrong answer": (FAUCET, "The man turned on the faucet. The toilet filled. And so on and on."),
    "blank filled": (SURGEON, "They say: Sarah was the better surgeon, so Sarah got the harder cases, always."),
    "blank filled with the other": (SURGEON, "Sarah was the better surgeon so Maria got the harder cases."),
    "question and solution": (GOAL, "Question: how to keep a guinea pig warm\nGive it a blanket of fleece!"),
    "row of one short string": ({"text": "Is the answer affirmative"}, "is the answer: AFFIRMATIVE?"),
}


@pytest.mark.parametrize(("row", "leak"), LEAKS.values(), ids=LEAKS)
def test_a_row_is_not_trained_on(data, row, leak):
    data.rows(bench=[row])
    kept, counts = data.build(c=[*texts(40), leak])
    assert leak not in kept["c"]["train"]
    assert (counts["c"]["benchmark_removed"] == 1) or leak in kept["c"]["heldout"]


@pytest.mark.parametrize(
    "text",
    [
        "new " * 30 + " ".join(f"leak{i}" for i in range(12)) + " other",  # twelve words
        "The man turned on the radio. Water flowed out of it. And so it went on.",
        "Sarah was the better surgeon so Joan got the harder cases and so on.",
        "Is the answer yes, or is it rather no, as so often it is?",  # four words among others
    ],
)
def test_what_only_resembles_a_row_is_trained_on(data, text):
    data.rows(bench=[PASSAGE, FAUCET, SURGEON], yes=[{"text": "Is the answer yes"}])
    kept, counts = data.build(c=[*texts(40), text])
    assert text in kept["c"]["train"] + kept["c"]["heldout"]
    assert counts["c"]["benchmark_removed"] == counts["c"]["heldout_removed"] == 0


def test_coverage_is_the_share_of_rows_that_can_be_found(data, capsys):
    data.rows(bench=[PASSAGE, FAUCET, SURGEON, {"question": "Two plus two?", "answer": "four"}], other=[GOAL])
    counts = data.build(c=texts(40))[1]["c"]
    assert counts["benchmark_coverage"] == {
        "bench": {"rows": 4, "matchable": 0.75},
        "other": {"rows": 1, "matchable": 1.0},
    }
    assert "benchmark bench: 4 rows, 75.0% can be recognized" in capsys.readouterr().out


def test_no_rows_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=f"no benchmark rows in {tmp_path}"):
        contamination.build(tmp_path, {}, 13, tmp_path / "index.npz")


# ------------------------------------------------------------------------------- held-out text


def test_nothing_of_a_held_out_text_is_trained_on_in_another_corpus(data):
    """Each article of the first corpus is quoted in the second, in other guises."""
    articles = texts(60)
    guises = [
        lambda text: text.upper(),
        lambda text: "A mirror says: " + text.replace(" ", ", "),
        lambda text: " ".join(text.split()[10:30]),
        lambda text: "\n".join([*texts(3, seed=zlib.crc32(text.encode())), text, "The end of the quotation."]),
    ]
    quotes = [guise(article) for article in articles for guise in guises]
    kept, counts = data.build(encyclopedia=articles, web=[*texts(100, seed=1), *quotes])
    heldout = [text for corpus in kept.values() for text in corpus["heldout"]]
    assert len(kept["encyclopedia"]["heldout"]) >= 2
    for text in heldout:
        for corpus in kept.values():
            assert not any(shared(text, trained) for trained in corpus["train"])
    assert counts["web"]["heldout_removed"] + counts["web"]["heldout_shortened"] > 0
    lost = counts["web"]["heldout_removed"] + sum(counts["web"]["documents"].values())
    assert lost == 100 + len(set(quotes))


def test_a_long_text_loses_the_lines_only(data):
    article, lines = texts(1)[0], texts(20, seed=1)
    held = data.build(c=texts(60))[0]["c"]["heldout"][0]
    quoting = "\n".join([*lines[:10], f"As is said: {held}", *lines[10:]])
    kept, counts = data.build(c=texts(60), web=[quoting, article])
    assert [text for split in kept["web"].values() for text in split if lines[0] in text] == ["\n".join(lines)]
    assert counts["web"]["heldout_shortened"] == 1
    assert counts["web"]["heldout_characters_cut"] == len(f"As is said: {held}\n")


def test_a_tasks_definition_is_no_copy_of_its_rows(data):
    """Forty words that all rows begin with, and rows that differ behind them."""
    definition = " ".join(f"definition{i}" for i in range(40))
    rows = [f"{definition} {text}" for text in texts(200, length=20)]
    kept, counts = data.build(tasks=rows)
    assert counts["tasks"]["heldout_removed"] == counts["tasks"]["heldout_shortened"] == 0
    assert counts["tasks"]["heldout_coverage"] == {"tasks": 1.0}
    # and yet a held-out row's own words are found, with or without the definition
    held = kept["tasks"]["heldout"][0]
    again, counts = data.build(tasks=rows, web=[*texts(50, seed=3), held.lower() + " more", held.split(" ", 40)[-1]])
    assert not any(held.split(" ", 40)[-1] in text for text in again["web"]["train"])
    assert counts["web"]["heldout_removed"] >= 1


def test_rows_that_differ_in_nothing_of_their_own_are_not_covered(data):
    definition = " ".join(f"definition{i}" for i in range(40))
    counts = data.build(tasks=[f"{definition} {number} {number + 1}" for number in range(300)])[1]["tasks"]
    assert counts["heldout_coverage"] == {"tasks": 0.0}


def test_short_texts_are_matched_as_a_whole(data):
    """Nine words anywhere, five words where they are all of a document."""
    nine = [" ".join(f"nine{number}x{i}" for i in range(9)) for number in range(60)]
    five = [" ".join(f"five{number}x{i}" for i in range(5)) for number in range(60)]
    kept, _ = data.build(
        short=[*nine, *five], web=[*(f"and {text} again" for text in nine), *(f"{text.upper()}..." for text in five)]
    )
    held = kept["short"]["heldout"]
    assert {text[:4] for text in held} == {"nine", "five"}
    for text in kept["web"]["train"]:
        assert not any(" ".join(words(text)).find(" ".join(words(other))) >= 0 for other in held)


def test_held_out_text_stays_whole_and_comes_first(data):
    kept, counts = data.build(a=texts(60), b=texts(60))
    rows = pq.read_table(data.folder / "documents" / "a" / "0.parquet").to_pylist()
    splits = [row["split"] for row in rows]
    assert splits == sorted(splits, key=["heldout", "train"].index)
    chosen = list(contamination.held_out(data.folder / "candidates" / "a" / "0.parquet"))
    assert kept["a"]["heldout"] == chosen
    assert kept["a"] == kept["b"], "identical corpora are split alike"
    assert counts["a"]["documents"] == {split: len(kept["a"][split]) for split in ("train", "heldout")}
