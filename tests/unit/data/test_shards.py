"""Shards of a corpus against the whole, streamed from a directory in place of a hub's data set."""

import json
import multiprocessing
import os
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosparse.data import candidates
from prosparse.data.candidates import build, split_hash
from prosparse.data.mixture import Mixture, load_rows
from prosparse.data.shards import join, share
from prosparse.data.tokenizer import train_tokenizer
from prosparse.data.tokens import tokenize
from prosparse.experiment.data import Corpus
from prosparse.experiment.specifications import CandidatesSpecification
from prosparse.system.errors import ConfigError

WORDS = np.array([f"word{i}" for i in range(300)])
FILES = 6


def texts(count, seed=0):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(10, 60))) for _ in range(count)]


LINES = texts(300)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    """A directory of six files, JSON lines or Parquet of several row groups, by format."""
    root = tmp_path_factory.mktemp("sets")
    for number in range(FILES):
        part = LINES[number::FILES]
        for kind in ("jsonl", "parquet"):
            (root / kind).mkdir(exist_ok=True)
        path = root / "jsonl" / f"train-{number}.jsonl"
        path.write_text("".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(part)))
        table = pa.table({"text": part, "id": range(len(part))})
        pq.write_table(table, root / "parquet" / f"train-{number}.parquet", row_group_size=20)
    return root


def corpus(source, shards=1, limit=None):
    return Corpus(stands_for="pile", kind="language_modelling", source=source, shards=shards, character_limit=limit)


def built(directory, source, shard=0, shards=1, limit=None, wanted=0):
    """({split: texts}, counts) of a shard, written to ``directory/{shard}.parquet``."""
    out = directory / f"{shard}.parquet", directory / f"{shard}.json"
    specification = CandidatesSpecification(corpus=corpus(source, shards, limit), heldout_characters=wanted)
    build("c", specification, None, out[0], shard)
    rows = pq.read_table(out[0]).to_pylist()
    split = {name: [row["text"] for row in rows if row["split"] == name] for name in ("train", "heldout")}
    return split, json.loads(out[1].read_text())


@given(st.integers(0, 10**12), st.integers(1, 300))
def test_shares_are_disjoint_and_complete(total, shards):
    parts = [share(total, shard, shards) for shard in range(shards)]
    assert parts[0].start == 0
    assert parts[-1].stop == total
    assert all(before.stop == after.start for before, after in pairwise(parts))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


# ---------------------------------------------------------------------------------- documents


@pytest.mark.parametrize(("kind", "shards"), [("jsonl", 1), ("jsonl", 4), ("parquet", 6), ("parquet", 9)])
def test_shards_of_a_data_set_are_all_of_it_once(data_set, tmp_path, kind, shards):
    """Nine shards of six files: of row groups."""
    source = {"hub": str(data_set / kind)}
    parts = [built(tmp_path, source, shard, shards)[0] for shard in range(shards)]
    assert sorted(text for part in parts for split in part.values() for text in split) == sorted(LINES)
    assert all(part["train"] for part in parts)


def test_more_shards_than_files_is_an_error(data_set, tmp_path):
    with pytest.raises(ConfigError, match=r"^data\.corpora\.c\.shards is 7: .* has 6 files or row groups$"):
        built(tmp_path, {"hub": str(data_set / "jsonl")}, 0, 7)
    with pytest.raises(ConfigError, match=r"^data\.corpora\.c\.shards is 7: there are only 6 files$"):
        built(tmp_path, {"files": [str(data_set / "jsonl" / "*.jsonl")]}, 0, 7)
    assert not list(tmp_path.glob("*.parquet"))


def test_local_files_are_sharded_too(data_set, tmp_path):
    source = {"files": [str(data_set / "parquet" / "*.parquet")]}
    parts = [built(tmp_path, source, shard, 4)[0] for shard in range(4)]
    assert sorted(text for part in parts for split in part.values() for text in split) == sorted(LINES)


def test_packages_are_not_sharded():
    with pytest.raises(ValueError, match="shards is 2: a package is read in one piece"):
        corpus({"package": "p", "reader": "dialogues"}, shards=2)


def test_a_text_of_two_shards_is_in_the_same_split_of_both(tmp_path):
    """Each shard alone finds what every other holds out: hashes below a share of all."""
    (tmp_path / "set").mkdir()
    for number in range(2):  # the common texts among others
        rows = [*LINES, *texts(200, seed=number + 1)]
        (tmp_path / "set" / f"{number}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    parts = [built(tmp_path, {"hub": str(tmp_path / "set")}, shard, 2, limit=10**7)[0] for shard in range(2)]
    common = [{name: set(part[name]) & set(LINES) for name in part} for part in parts]
    assert common[0] == common[1]
    low = {text for text in LINES if split_hash(text, 0) < candidates.HELDOUT_FRACTION * 2**64}
    assert common[0]["heldout"] == low
    assert 2 <= len(low) <= 30


def test_heldout_share_of_shards_grows_with_need(data_set, tmp_path):
    source, limit = {"hub": str(data_set / "jsonl")}, 10**6
    tenth, most = (built(tmp_path, source, 0, 2, limit, wanted)[0]["heldout"] for wanted in (limit // 10, limit))
    assert tenth == [text for text in sorted_by_hash(0, 2) if split_hash(text, 0) < 0.1 * 2**64]
    assert most == [text for text in sorted_by_hash(0, 2) if split_hash(text, 0) < 0.2 * 2**64]


def sorted_by_hash(shard, shards):
    files = share(FILES, shard, shards)
    return sorted((text for number in files for text in LINES[number::FILES]), key=lambda text: split_hash(text, 0))


def test_a_shard_holds_out_its_part_of_a_multiple_of_what_is_wanted(data_set, tmp_path):
    """Of 4 % that are not trained on, which two shards that hold the same text agree on."""
    source, limit = {"hub": str(data_set / "jsonl")}, 10**6
    rows, counts = built(tmp_path, source, 0, 2, limit, wanted=1)
    low = [text for text in sorted_by_hash(0, 2) if split_hash(text, 0) < candidates.HELDOUT_FRACTION * 2**64]
    assert len(low) > 1
    assert rows["heldout"] == low[:1]
    assert not set(low) & set(rows["train"])
    assert counts["reserved"] == len(low) - 1


def test_the_character_limit_is_of_all_shards_and_reading_stops_there(data_set, tmp_path):
    limit = 9001
    counted = [built(tmp_path, {"hub": str(data_set / "jsonl")}, shard, 3, limit)[1] for shard in range(3)]
    for shard, count in enumerate(counted):
        kept = sum(count["characters"].values())
        assert len(share(limit, shard, 3)) <= kept < len(share(limit, shard, 3)) + max(map(len, LINES))
        assert count["read"] < 100  # of the shard's


def test_texts_larger_than_a_row_group_keep_their_order(data_set, tmp_path, monkeypatch):
    source = {"hub": str(data_set / "jsonl")}
    whole = built(tmp_path, source)[0]
    monkeypatch.setattr(candidates, "ROW_GROUP_CHARACTERS", 1000)
    assert built(tmp_path, source)[0] == whole
    file = pq.ParquetFile(tmp_path / "0.parquet")
    assert file.num_row_groups > 20
    groups = [file.read_row_group(i).column("text").to_pylist() for i in range(file.num_row_groups)]
    assert max(sum(map(len, group)) for group in groups) < 1000 + max(map(len, LINES))
    assert [text for group in groups for text in group] == sorted(LINES, key=lambda text: split_hash(text, 0))


def test_a_killed_shard_leaves_nothing_and_again_gives_the_same_bytes(data_set, tmp_path, monkeypatch):
    source, clean, calls = {"hub": str(data_set / "jsonl")}, candidates.clean, []

    def die(text, prose):
        calls.append(text)
        return clean(text, prose) if len(calls) < 40 else os._exit(9)

    with monkeypatch.context() as patch:
        patch.setattr(candidates, "clean", die)
        killed = multiprocessing.get_context("fork").Process(target=built, args=(tmp_path / "again", source, 1, 3))
        killed.start()
        killed.join()
    assert killed.exitcode == 9
    assert not list((tmp_path / "again").iterdir())
    assert built(tmp_path / "again", source, 1, 3)[0] == built(tmp_path / "once", source, 1, 3)[0]
    assert (tmp_path / "again" / "1.parquet").read_bytes() == (tmp_path / "once" / "1.parquet").read_bytes()


# ------------------------------------------------------------------------------------- tokens


@pytest.fixture(scope="module")
def tokenized(data_set, tmp_path_factory):
    """(tokenizer, tokens of three shards joined): folder of corpora, each with its ``shards``."""
    root = tmp_path_factory.mktemp("tokens")
    for shard in range(3):
        built(root, {"hub": str(data_set / "jsonl")}, shard, 3)
    train_tokenizer([root / "0.parquet"], 260, root / "tokenizer")
    shards = [root / "tokens" / "c" / "shards" / str(shard) for shard in range(3)]
    for shard, path in enumerate(shards):
        tokenize("c", root / f"{shard}.parquet", root / "tokenizer", 16, {"heldout": 4, "tuning": 3}, path, shard, 3)
    manifest = join(shards, root / "tokens" / "c")
    return root / "tokens", shards, manifest


def test_joined_shards_are_their_rows_in_order_and_no_copy(tokenized):
    root, shards, manifest = tokenized
    for split in ("train", "heldout", "tuning"):
        rows = datasets.load_from_disk(str(root / "c" / split))
        parts = [datasets.load_from_disk(str(shard / split)) for shard in shards]
        assert rows["input_ids"][:] == [row for part in parts for row in part["input_ids"]]
        assert {Path(file["filename"]).resolve() for file in rows.cache_files} == {
            Path(file["filename"]).resolve() for part in parts for file in part.cache_files
        }
        assert manifest[f"{split}_sequences"] == len(rows)
        assert not list((root / "c" / split).glob("*.arrow"))
    assert [len(datasets.load_from_disk(str(shard / "heldout"))) for shard in shards] == [1, 1, 2]
    assert load_rows(root)["c"].shape == (4, 16)
    assert load_rows(root, "tuning")["c"].shape == (3, 16)


def test_the_manifest_of_a_corpus_sums_those_of_its_shards(tokenized):
    root, shards, manifest = tokenized
    assert manifest == json.loads((root / "c" / "manifest.json").read_text())
    parts = [json.loads((shard / "manifest.json").read_text()) for shard in shards]
    assert manifest["tokens"] == sum(part["tokens"] for part in parts)
    assert manifest["tokens"] == 16 * (manifest["train_sequences"] + 7)
    for split, rows in {"heldout": 4, "tuning": 3}.items():
        assert manifest[f"{split}_bytes_per_token"] == sum(part[f"{split}_bytes"] for part in parts) / (rows * 15)


def test_shards_of_different_commits_are_not_joined(data_set, tokenized, tmp_path, monkeypatch):
    """``main`` has moved between the first shard and the others."""
    root, _, _ = tokenized
    shards = [tmp_path / "shards" / str(shard) for shard in range(3)]

    def made(shard, commit):
        monkeypatch.setattr(candidates.hub, "commit", lambda source, where: commit)
        monkeypatch.setattr(candidates.sources.hub, "rows", lambda *_: iter([{"text": line} for line in LINES]))
        built(tmp_path, {"hub": str(data_set / "jsonl")}, shard, 3)
        tokenize(
            "c", tmp_path / f"{shard}.parquet", root.parent / "tokenizer", 16, {"heldout": 7}, shards[shard], shard, 3
        )

    for shard, commit in enumerate(["0ld", "new", "new"]):
        made(shard, commit)
    with pytest.raises(ConfigError, match=r"0ld: shards 0; new: shards 1, 2.*corpora\.c\.source\.revision to new and"):
        join(shards, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    made(0, "new")
    assert join(shards, tmp_path / "c")["commit"] == "new"


def test_a_mixture_goes_over_all_shards(tokenized):
    root, _, _ = tokenized
    rows = datasets.load_from_disk(str(root / "c" / "train"))["input_ids"][:]
    mixture = Mixture.load(root, {"c": 1}, len(rows), 0)
    assert sorted(sample["input_ids"].tolist() for sample in mixture) == sorted(rows)


def test_a_shard_may_hold_out_nothing(tokenized, tmp_path):
    """Four rows of a corpus of five shards: one shard has none of them, and joins the others all the same."""
    root, _, _ = tokenized
    paths = [tmp_path / str(shard) for shard in range(5)]
    for shard, path in enumerate(paths):
        tokenize("c", root.parent / "0.parquet", root.parent / "tokenizer", 16, {"heldout": 4}, path, shard, 5)
    manifest = join(paths, tmp_path / "c")
    assert [len(share(4, shard, 5)) for shard in range(5)] == [0, 1, 1, 1, 1]
    assert manifest["heldout_sequences"] == len(datasets.load_from_disk(str(tmp_path / "c" / "heldout"))) == 4


def test_too_little_heldout_names_the_shard(tokenized, tmp_path):
    root, _, _ = tokenized
    with pytest.raises(
        ConfigError, match=r"corpus c, shard 1 of 2: \d heldout sequences of 1200 tokens, needs at least 2"
    ):
        tokenize("c", root.parent / "0.parquet", root.parent / "tokenizer", 1200, {"heldout": 16}, tmp_path, 1, 2)
