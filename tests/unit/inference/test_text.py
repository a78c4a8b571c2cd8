"""Streamed text against ``decode`` of everything, over random ids and every kind of tokenizer."""

from __future__ import annotations

import pytest
import torch
from helpers.tokenizer_kinds import KINDS, LINES, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from prosparse.inference.text import TextStream, encode, special_prefix


def streamed(tokenizer, prompt, ids):
    """What is written after each call."""
    written = []
    stream = TextStream(tokenizer, written.append)
    stream.put(torch.tensor([prompt]))
    parts = ["".join(written)]
    for token in ids:
        stream.put(torch.tensor([token]))
        parts.append("".join(written))
    stream.end()
    return [*parts, "".join(written)]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_stream_of_any_ids_is_what_decode_gives(kind, data):
    tokenizer = KINDS[kind]()
    some = st.lists(st.integers(0, len(tokenizer) - 1), max_size=20)
    prompt, ids = data.draw(some), data.draw(some)
    assert streamed(tokenizer, prompt, ids)[-1] == tokenizer.decode(prompt + ids, skip_special_tokens=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_text_is_what_decode_gives_and_does_not_wait_for_the_end(kind):
    tokenizer = KINDS[kind]()
    for prompt in texts():
        start, ids = encode(tokenizer, prompt), tokenizer.encode(" " + "".join(LINES[:4]), add_special_tokens=False)
        parts = streamed(tokenizer, start, ids)
        assert parts[-1] == tokenizer.decode(start + ids, skip_special_tokens=True)
        assert len(parts[len(ids) // 2]) > len(parts[-1]) / 4


@pytest.mark.parametrize(
    ("kind", "text", "never"),
    [
        ("byte_level_bos", "你好 \U0001f600 Ελλάδα", "\ufffd"),
        ("sentencepiece_bos", "a 你好 \U0001f600 Ελλάδα end", "\ufffd"),
        ("word_piece", "the dog doesn't mind . is it 42 ?", " ' "),
    ],
)
def test_nothing_is_written_that_the_next_token_takes_back(kind, text, never):
    tokenizer = KINDS[kind]()
    ids = tokenizer.encode(text, add_special_tokens=False)
    parts = streamed(tokenizer, [], ids)
    assert len(ids) > 10
    assert all(parts[-1].startswith(part) and never not in part for part in parts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_has_the_tokenizers_own_tokens_before_it_and_none_after(kind):
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = KINDS[kind]()
    plain = tokenizer.encode("the dog", add_special_tokens=False)
    assert encode(tokenizer, "the dog") == tokenizer("the dog")["input_ids"]
    first, last = tokenizer.convert_ids_to_tokens([0, 1])
    both = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    both.post_processor = TemplateProcessing(single=f"{first} $A {last}", special_tokens=[(first, 0), (last, 1)])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=both)
    assert wrapped("the dog")["input_ids"] == [0, *plain, 1]
    assert special_prefix(wrapped) == [0]
    assert encode(wrapped, "the dog") == [0, *plain]
