"""The byte alphabet of byte-level tokenizers."""

from __future__ import annotations

from tokenizers import pre_tokenizers

from prosparse.inference.vocabulary import byte_characters


def test_byte_characters_are_those_of_the_tokenizers_library():
    assert set(byte_characters()) == set(pre_tokenizers.ByteLevel.alphabet())
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    character = {byte: character for character, byte in byte_characters().items()}
    for text in ("é", " ", "\n", "~", "€", "\x7f"):
        assert splitter.pre_tokenize_str(text)[0][0] == "".join(character[byte] for byte in text.encode())
