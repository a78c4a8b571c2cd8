"""A prompt's token ids, and its continuation's text exactly as ``decode`` would give it.

Tokens have no text of their own: byte-level tokens are parts of characters, SentencePiece's decoder drops the first
space of its input, and WordPiece's joins words. Decoding token by token would give a different text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
CLEANED = 8  # characters at the end of a text that transformers' clean-up may still change


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of ``text`` for a model to continue: with special tokens before it, none after it."""
    return [*special_prefix(tokenizer), *tokenizer.encode(text, add_special_tokens=False)]


def special_prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that the tokenizer puts before a text."""
    whole, plain = tokenizer("a")["input_ids"], tokenizer.encode("a", add_special_tokens=False)
    places = range(len(whole) - len(plain) + 1)
    place = next((place for place in places if whole[place : place + len(plain)] == plain), 0)
    return list(whole[:place])


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end a text, according to the tokenizer and the model's settings."""
    found: set[int] = set()
    for said in (tokenizer.eos_token_id, model.generation_config.eos_token_id, model.config.eos_token_id):  # type: ignore[union-attr]
        found.update(said if isinstance(said, list) else [] if said is None else [said])
    return sorted(found)


def generate_greedily(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make ``model.generate`` greedy, without the checkpoint's own settings: penalties, beams, ..."""
    ends, rows = end_tokens(model, tokenizer), model.config.get_text_config().vocab_size
    # padding for finished rows, which the model reads
    padding = next((token for token in ends if token < rows), 0)
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=ends or None, pad_token_id=padding)


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of all ``ids``, without special tokens."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))


def continuation(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], generated: Sequence[int]) -> str:
    """What ``generated`` adds to the text of ``prompt``, or its own text if it changes that of the prompt."""
    before, whole = decode(tokenizer, prompt), decode(tokenizer, [*prompt, *generated])
    return whole[len(before) :] if whole.startswith(before) else decode(tokenizer, generated)


class TextStream(BaseStreamer):
    """Writes text during ``generate``; the final text is exactly ``decode`` of all ids, including the prompt's.

    Holds back text that a later token may change: an incomplete character, a run of byte tokens (one incomplete
    character makes the whole run unreadable), and the end of a text whose spaces are cleaned up.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], object]) -> None:
        self._tokenizer, self._write = tokenizer, write
        self._ids: list[int] = []
        self._written = ""

    def put(self, value: torch.Tensor) -> None:
        """Accepts the ids of one sequence in order."""
        self._ids += value.flatten().tolist()
        self._show(self._settled())

    def end(self) -> None:
        self._show(decode(self._tokenizer, self._ids))

    def _settled(self) -> str:
        end = len(self._ids)
        special = set(self._tokenizer.all_special_ids)
        while end and (self._ids[end - 1] in special or self._is_byte(self._ids[end - 1])):
            end -= 1
        text = decode(self._tokenizer, self._ids[:end])
        if self._tokenizer.clean_up_tokenization_spaces:
            text = text[:-CLEANED]
        return text.rstrip("\ufffd")

    def _is_byte(self, index: int) -> bool:
        return BYTE_TOKEN.fullmatch(str(self._tokenizer.convert_ids_to_tokens(index))) is not None

    def _show(self, text: str) -> None:
        if text.startswith(self._written) and len(text) > len(self._written):
            self._write(text[len(self._written) :])
            self._written = text
