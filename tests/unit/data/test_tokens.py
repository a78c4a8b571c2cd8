"""The trained tokenizer, and packing against a plain concatenation."""

import json
from types import SimpleNamespace

import datasets
import gguf
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from prosparse.data.tokenizer import copy_tokenizer, train_tokenizer
from prosparse.data.tokens import divide, pack, tokenize
from prosparse.models import third_party
from prosparse.system.errors import ConfigError


def write_documents(path, train, heldout):
    table = pa.table({"text": train + heldout, "split": ["train"] * len(train) + ["heldout"] * len(heldout)})
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(tokenizer directory, documents) of two small corpora; held-out words occur nowhere else."""
    root = tmp_path_factory.mktemp("trained")
    generator = np.random.default_rng(0)
    words = np.array(["".join(generator.choice(list("abcdefghij"), 5)) for _ in range(300)])
    prose = [" ".join(generator.choice(words, 50)) for _ in range(60)]
    code = [f"def {a}({b}):\n    return {b} + {i}\n" for i, (a, b) in enumerate(generator.choice(words, (60, 2)))]
    files = [
        write_documents(root / "prose.parquet", prose, ["zyzzyva " * 40] * 20),
        write_documents(root / "code.parquet", code, code[:3]),
    ]
    train_tokenizer(files, 400, root / "tokenizer")
    return SimpleNamespace(directory=root / "tokenizer", files=files, root=root)


@pytest.fixture(scope="module")
def tokenizer(trained):
    return AutoTokenizer.from_pretrained(trained.directory)


def test_special_tokens(tokenizer):
    assert len(tokenizer) == 400
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "</s>")
    assert tokenizer("hello")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer("hello")["input_ids"][-1] != tokenizer.eos_token_id
    assert tokenizer.bos_token_id not in tokenizer("hello", add_special_tokens=False)["input_ids"]


def test_digits_are_single_tokens(tokenizer):
    assert len(tokenizer("1234567", add_special_tokens=False)["input_ids"]) == 7


def test_learns_from_the_train_split_only(tokenizer):
    assert "yzz" not in "".join(tokenizer.get_vocab())


def test_same_documents_give_the_same_files(trained, tmp_path):
    train_tokenizer(trained.files[::-1], 400, tmp_path / "again")
    for file in trained.directory.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_too_large_a_vocabulary(trained, tmp_path):
    with pytest.raises(ValueError, match="of 50000 tokens"):
        train_tokenizer(trained.files, 50000, tmp_path / "large")


def test_copy(trained, tmp_path):
    copy_tokenizer(str(trained.directory), tmp_path / "copy")
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "copy").get_vocab()
        == AutoTokenizer.from_pretrained(trained.directory).get_vocab()
    )


def test_the_wanted_revision_is_copied(trained, tmp_path, monkeypatch):
    opened = []

    def from_pretrained(name, **options):
        opened.append((name, options["revision"]))
        return AutoTokenizer.from_pretrained(trained.directory)

    of_commit = SimpleNamespace(from_pretrained=from_pretrained)
    monkeypatch.setattr(third_party, "AutoTokenizer", of_commit)
    copy_tokenizer(str(trained.directory), tmp_path / "copy", revision="f00d")
    assert opened == [(str(trained.directory), "f00d")]


SAMPLES = ["low lower\tlow", "123 \n\n  x", "\U0001d54f é\u200d", "<|endoftext|>low<|turn|>", ""]


@pytest.fixture(scope="module")
def in_gguf(tmp_path_factory):
    """(directory, tokenizer) of a GGUF file, and the same byte-level BPE built by hand."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("l", "o"), ("lo", "w"), ("e", "r"), ("Ġ", "low")]
    special = ["<|turn|>", "<|endoftext|>", "<|pad|>"]
    vocabulary = [*special, *letters, *("".join(pair) for pair in merges)]
    by_hand = Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary)}, merges))
    by_hand.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    by_hand.add_special_tokens(special)

    root = tmp_path_factory.mktemp("gguf")
    writer = gguf.GGUFWriter(root / "m.gguf", "llama")
    writer.add_context_length(32)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(1)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(vocabulary) - 3))
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return root, by_hand


def test_copy_of_a_gguf_files_tokenizer(in_gguf, tmp_path):
    root, by_hand = in_gguf
    copy_tokenizer(str(root), tmp_path / "copy", gguf_file="m.gguf")
    copied = AutoTokenizer.from_pretrained(tmp_path / "copy")
    assert copied.get_vocab() == by_hand.get_vocab()
    assert (copied.bos_token, copied.eos_token) == ("<|turn|>", "<|turn|>")
    for text in SAMPLES:
        assert copied(text, add_special_tokens=False)["input_ids"] == by_hand.encode(text).ids
        assert copied.decode(copied(text, split_special_tokens=True)["input_ids"], skip_special_tokens=True) == text


def test_special_tokens_of_ones_own_stay_with_the_copy(in_gguf, tmp_path):
    root, by_hand = in_gguf
    wanted = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
    copy_tokenizer(str(root), tmp_path / "copy", "m.gguf", wanted)
    copied = AutoTokenizer.from_pretrained(tmp_path / "copy")
    assert {key: getattr(copied, key) for key in wanted} == wanted
    assert (copied.bos_token_id, copied.eos_token_id, copied.pad_token_id) == (1, 1, 2)
    assert len(copied) == by_hand.get_vocab_size()
    assert [copied(text, add_special_tokens=False)["input_ids"] for text in SAMPLES] == [
        by_hand.encode(text).ids for text in SAMPLES
    ]
    packed = pack(datasets.Dataset.from_dict({"text": ["low"] * 16}), copied, 16)["input_ids"][0]
    assert packed == [by_hand.token_to_id("low"), 1] * 8


@pytest.mark.parametrize("token", ["<|eos|>", "low low"])
def test_special_token_that_is_no_token_names_the_key(in_gguf, tmp_path, token):
    with pytest.raises(
        ConfigError, match=r"tokenizer copy: special_tokens\.eos_token: '.*' is not one token of .*m\.gguf"
    ):
        copy_tokenizer(str(in_gguf[0]), tmp_path / "copy", "m.gguf", {"eos_token": token})
    assert not (tmp_path / "copy").exists()


@given(text=st.text())
def test_round_trip(tokenizer, text):
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@given(text=st.sampled_from(["a </s> b", "<s>", " . , n't", "x  \n\n\t y", "𝕏é\u200d", "if (a<s>b)"]))
def test_round_trip_of_awkward_text(tokenizer, text):
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert ids.count(tokenizer.eos_token_id) == 0


@given(texts=st.lists(st.text(max_size=30), min_size=1, max_size=30), context=st.integers(16, 40))
def test_packing_is_a_concatenation_cut_in_rows(tokenizer, texts, context):
    rows = pack(datasets.Dataset.from_dict({"text": texts}), tokenizer, context)["input_ids"]
    stream = []
    for text in texts:
        stream += [
            tokenizer.bos_token_id,
            *tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True),
            tokenizer.eos_token_id,
        ]
    assert [token for row in rows for token in row] == stream[: len(stream) // context * context]
    assert all(len(row) == context for row in rows)


def test_packing_over_many_batches(tokenizer):
    texts = [f"text {i}" for i in range(2500)]  # three batches of map
    rows = pack(datasets.Dataset.from_dict({"text": texts}), tokenizer, 32)["input_ids"]
    stream = [t for text in texts for t in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    assert np.array_equal(np.concatenate(rows), stream[: len(rows) * 32])
    assert len(stream) - len(rows) * 32 < 32


def test_tokenize(trained, tokenizer, tmp_path):
    manifest = tokenize("prose", trained.files[0], trained.directory, 32, {"heldout": 8}, tmp_path / "prose")
    assert manifest == json.loads((tmp_path / "prose" / "manifest.json").read_text())
    train, heldout = (datasets.load_from_disk(str(tmp_path / "prose" / name)) for name in ("train", "heldout"))
    assert (manifest["train_sequences"], manifest["heldout_sequences"]) == (len(train), len(heldout))
    assert len(heldout) == 8
    assert manifest["tokens"] == 32 * (len(train) + 8)
    # ASCII text, so a character is a byte
    rows = [row[1:] for row in heldout["input_ids"]]
    characters = sum(len(tokenizer.decode(row, skip_special_tokens=True)) for row in rows)
    assert manifest["heldout_bytes"] == characters
    assert "zyzzyva" in tokenizer.decode(heldout[0]["input_ids"])
    assert "zyzzyva" not in tokenizer.decode(list(np.concatenate(train["input_ids"])))
    assert sorted(path.name for path in (tmp_path / "prose").iterdir()) == ["heldout", "manifest.json", "train"]


def test_tuning_rows_are_held_out_too_and_are_other_rows(trained, tokenizer, tmp_path):
    wanted = {"heldout": 6, "tuning": 3}
    manifest = tokenize("prose", trained.files[0], trained.directory, 16, wanted, tmp_path / "c")
    rows = {split: datasets.load_from_disk(str(tmp_path / "c" / split)) for split in ("train", *wanted)}
    assert {split: len(rows[split]) for split in wanted} == wanted
    assert [manifest[f"{split}_sequences"] for split in rows] == [len(each) for each in rows.values()]
    assert manifest["tokens"] == 16 * sum(map(len, rows.values()))
    assert manifest["sha256"].keys() == rows.keys()
    text = tokenizer.decode(list(np.concatenate(rows["tuning"]["input_ids"])), skip_special_tokens=True)
    assert "zyzzyva" in text


@pytest.mark.parametrize(("available", "expected"), [(100, (24, 8)), (32, (24, 8)), (16, (12, 4)), (5, (4, 1))])
def test_splits_share_held_out_rows_in_proportion(available, expected):
    rows = datasets.Dataset.from_dict({"input_ids": list(range(available))})
    split = divide(rows, {"heldout": 24, "tuning": 8})
    assert (len(split["heldout"]), len(split["tuning"])) == expected
    assert not set(split["heldout"]["input_ids"]) & set(split["tuning"]["input_ids"])


def test_heldout_rows_come_from_all_heldout_documents(trained, tokenizer, tmp_path):
    heldout = [f"{word} " * 200 for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")]
    documents = write_documents(tmp_path / "c.parquet", ["a text to train on " * 20], heldout)
    tokenize("c", documents, trained.directory, 32, {"heldout": 24}, tmp_path / "c")
    text = tokenizer.decode(np.concatenate(datasets.load_from_disk(str(tmp_path / "c" / "heldout"))["input_ids"]))
    assert all(document.split()[0] in text for document in heldout)


def test_tokenize_again_gives_the_same(trained, tmp_path):
    first, second = (
        tokenize("prose", trained.files[0], trained.directory, 32, {"heldout": 8}, tmp_path / "prose") for _ in range(2)
    )
    assert {**first, "provenance": None} == {**second, "provenance": None}


def test_too_little_heldout_names_the_corpus(trained, tmp_path):
    with pytest.raises(ValueError, match=r"corpus code: . heldout sequences of 64 tokens, needs at least 4"):
        tokenize("code", trained.files[1], trained.directory, 64, {"heldout": 8}, tmp_path / "code")
    assert not (tmp_path / "code" / "manifest.json").exists()
