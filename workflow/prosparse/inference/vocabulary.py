"""The vocabulary of a GGUF file: byte-level BPE, or names for the token ids."""

from __future__ import annotations

import json
from typing import Any

import gguf
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from prosparse.system.errors import UserError

#: PowerInfer's ``main`` tokenizes these for any prompt, and fails if a byte has no token.
ALWAYS_TOKENIZED = "\n\n### Instruction:\n\n### Response:\n\n\u010a"


def byte_characters() -> dict[str, int]:
    """The printable character for each byte in a byte-level vocabulary (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def add(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase | None, config: PretrainedConfig) -> None:
    """Write the tokenizer, or, without one, a vocabulary whose piece for token ``id`` is ``<|id|>``.

    Raises:
        UserError: the tokenizer is not a byte-level BPE, or has more tokens than the model.
    """
    end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    # without an end token, an engine picks one itself; the last token is safer, since it names nothing
    writer.add_eos_token_id(config.vocab_size - 1 if end is None else end)
    writer.add_bos_token_id(config.bos_token_id or 0)
    if tokenizer is None:
        _add_names(writer, config.vocab_size)
    else:
        _add_byte_level(writer, tokenizer, config)


def _add_names(writer: gguf.GGUFWriter, size: int) -> None:
    character = {byte: character for character, byte in byte_characters().items()}
    letters = [character[byte] for byte in sorted(set(ALWAYS_TOKENIZED.encode()))]
    if size < len(letters) + 2:
        raise UserError(f"vocab_size is {size}: at least {len(letters) + 2} is needed for a file without a tokenizer")
    names = [f"<|{index}|>" for index in range(size - len(letters))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(names + letters)
    writer.add_token_types([gguf.TokenType.USER_DEFINED] * len(names) + [gguf.TokenType.NORMAL] * len(letters))
    writer.add_token_merges(["< <"])  # the list must not be empty; these two never meet
    writer.add_add_bos_token(False)


def _add_byte_level(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    description = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"model": {}}
    split = _split(description)
    if split is None:
        raise UserError("the tokenizer is not a byte-level BPE that splits text as GPT-2's does (single digits or not)")
    pieces: dict[int, str] = {index: piece for piece, index in description["model"]["vocab"].items()}
    types = dict.fromkeys(pieces, gguf.TokenType.NORMAL)
    for token in description["added_tokens"]:
        pieces[token["id"]] = token["content"]
        types[token["id"]] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
    if max(pieces) >= config.vocab_size:
        raise UserError(f"the tokenizer has {max(pieces) + 1} tokens, the model {config.vocab_size}")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list([pieces.get(index, f"[PAD{index}]") for index in range(config.vocab_size)])
    writer.add_token_types([types.get(index, gguf.TokenType.UNUSED) for index in range(config.vocab_size)])
    merges = description["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_add_bos_token(tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)


def _split(description: dict[str, Any]) -> str | None:
    """llama.cpp's name for the tokenizer's pre-tokenization; None if it has none."""
    if description["model"].get("type") != "BPE" or description.get("normalizer") is not None:
        return None
    splitter = description.get("pre_tokenizer") or {}
    parts = splitter.get("pretokenizers", [splitter])
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    wanted = {"gpt-2": [byte_level], "smollm": [digits, byte_level]}
    found = [{key: value for key, value in part.items() if key != "trim_offsets"} for part in parts]
    return next((name for name, parts in wanted.items() if parts == found), None)
