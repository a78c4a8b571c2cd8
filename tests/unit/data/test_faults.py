"""Tokenization stopped at every change it makes to files: the same call then gives what an uninterrupted one gives."""

from __future__ import annotations

import json
import shutil

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.faults import Killed, assert_any_stop_is_mended, changes, contents, stopped_at
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prosparse.data.shards import join
from prosparse.data.tokenizer import copy_tokenizer
from prosparse.data.tokens import tokenize

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    root = tmp_path_factory.mktemp("documents")
    texts = [" ".join(f"t{(start + i) % 16}" for i in range(40)) for start in range(20)]
    pq.write_table(pa.table({"text": texts, "split": ["train"] * 14 + ["heldout"] * 6}), root / "0.parquet")
    vocabulary = {"<s>": 0, "</s>": 1, **{f"t{i}": i + 2 for i in range(16)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(root / "tokenizer")
    return root


def test_tokenization_stopped_anywhere_over_older_tokens(documents, tmp_path):
    """A manifest is never beside rows that are not its own."""

    def work(output, context=16):
        tokenize("c", documents / "0.parquet", documents / "tokenizer", context, {"heldout": 4, "tuning": 2}, output)

    work(tmp_path / "older", 20)
    work(tmp_path / "once")
    count = changes(lambda: work(tmp_path / "counted"), tmp_path)
    assert count > 20
    left = {}
    for change in range(1, count + 1):
        output = tmp_path / str(change)
        shutil.copytree(tmp_path / "older", output)
        with pytest.raises(Killed), stopped_at(change, tmp_path):
            work(output)
        if (output / "manifest.json").exists():
            manifest = json.loads((output / "manifest.json").read_text())
            for split in ("train", "heldout", "tuning"):
                rows = datasets.load_from_disk(str(output / split))
                shape = len(rows), len(rows[0]["input_ids"])
                assert shape == (manifest[f"{split}_sequences"], manifest["context_length"])
        left.setdefault(tuple(str(path.relative_to(output)) for path in sorted(output.iterdir())), output)
    assert len(left) > 4  # most stops leave the same names
    for output in left.values():
        work(output)
        assert contents(output) == contents(tmp_path / "once"), output


def test_joining_shards_stopped_anywhere(documents, tmp_path):
    for shard in range(2):
        tokenize(
            "c",
            documents / "0.parquet",
            documents / "tokenizer",
            16,
            {"heldout": 4, "tuning": 2},
            tmp_path / f"s{shard}",
            shard,
            2,
        )
    work = lambda output: join([tmp_path / "s0", tmp_path / "s1"], output)  # noqa: E731
    work(tmp_path / "once")
    count = changes(lambda: work(tmp_path / "counted"), tmp_path)
    assert_any_stop_is_mended(tmp_path, None, work, contents(tmp_path / "once"), count)


def test_tokenizers_stopped_anywhere(documents, tmp_path):
    work = lambda output: copy_tokenizer(str(documents / "tokenizer"), output)  # noqa: E731
    work(tmp_path / "once")
    count = changes(lambda: work(tmp_path / "counted"), tmp_path)
    assert_any_stop_is_mended(tmp_path, None, work, contents(tmp_path / "once"), count)
