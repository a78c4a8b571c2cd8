"""Tokenizers of every kind beside models: opened, copied, refused."""

import copy
import json
from importlib.util import find_spec

import datasets
import pytest
from helpers.tokenizer_kinds import KINDS

from prosparse.data.tokenizer import copy_tokenizer
from prosparse.data.tokens import pack
from prosparse.models.third_party import save_tokenizer, tokenizer
from prosparse.system.errors import ConfigError

BYTE_LEVEL = [kind for kind in KINDS if kind.startswith("byte_level")]
CLASSES = [
    *((name, kind) for name in ("PreTrainedTokenizerFast", "TokenizersBackend", "OfNobody", None) for kind in KINDS),
    *((name, kind) for name in ("GPT2Tokenizer", "Qwen2Tokenizer") for kind in BYTE_LEVEL),
]


def next_to_model(directory, kind, vocabulary_size=None, **settings):
    """A tokenizer's folder with the config.json of a model."""
    made = KINDS[kind]()
    made.save_pretrained(directory)
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    size = len(made) if vocabulary_size is None else vocabulary_size
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": size}))
    return directory


@pytest.mark.parametrize("add_bos_token", [None, True, False])
@pytest.mark.parametrize(("tokenizer_class", "kind"), CLASSES)
def test_an_explicit_add_bos_token_is_heeded_and_kept(tmp_path, kind, add_bos_token, tokenizer_class):
    said = {} if add_bos_token is None else {"add_bos_token": add_bos_token}
    directory = next_to_model(tmp_path / "model", kind, tokenizer_class=tokenizer_class, **said)
    plain = KINDS[kind]().encode("the dog", add_special_tokens=False)
    own = KINDS[kind]()("the dog")["input_ids"]
    bos = KINDS[kind]().bos_token_id
    expected = own if add_bos_token is None or bos is None else [bos, *plain] if add_bos_token else plain
    found = tokenizer(directory)
    assert found("the dog")["input_ids"] == expected
    assert found.decode(found.encode("the dog", add_special_tokens=False)).strip() == "the dog"
    # as trained checkpoints get it, and again
    for number in range(2):
        copied = tmp_path / f"copy{number}"
        if found.eos_token:
            copy_tokenizer(str(directory), copied)
        else:  # documents need one, so it is refused
            save_tokenizer(found, copied)
        (copied / "config.json").write_text((directory / "config.json").read_text())
        directory = copied
        again = tokenizer(copied)
        assert again("the dog")["input_ids"] == expected
        assert again.init_kwargs.get("add_bos_token") == found.init_kwargs.get("add_bos_token")


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "gemma", "mistral", "granite", "phi3", "gpt2"])
def test_a_folder_without_a_tokenizer_is_refused_by_name(tmp_path, model_type):
    """transformers makes an empty one for some of these families, which encodes every text as nothing."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ConfigError, match=f"^{tmp_path} has no tokenizer: no file holds a vocabulary"):
        tokenizer(tmp_path)
    with pytest.raises(ConfigError, match=f"^{tmp_path}/nowhere is not a directory$"):
        tokenizer(tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", " is empty"),
        (b"{", ": not JSON"),
        (b"\xff\xfe{}", ": "),
        (b"[]", " is not a JSON object"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", " is a Git LFS pointer"),
        (b'{"version": "1.0"}', " is not a tokenizer"),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}', " is not a tokenizer"),
    ],
)
def test_a_broken_tokenizer_file_is_refused_by_name(tmp_path, file, content, message):
    directory = next_to_model(tmp_path / "model", "byte_level_bos")
    (directory / file).write_bytes(content)
    if "is not a tokenizer" in message and file != "tokenizer.json":
        assert tokenizer(directory)("the dog")["input_ids"]
        return
    with pytest.raises(ConfigError, match=f"^{directory}/{file}{message}") as refused:
        tokenizer(directory)
    assert "\n" not in str(refused.value)


def test_sentencepiece_only_says_what_is_needed(tmp_path):
    if find_spec("sentencepiece"):
        pytest.skip("sentencepiece is installed")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    with pytest.raises(ConfigError, match=r"without a tokenizer\.json, sentencepiece must be installed"):
        tokenizer(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_of_another_model_is_refused(tmp_path, kind):
    size = len(KINDS[kind]())
    for padded in (size, size + 1, -(-size // 64) * 64):
        assert len(tokenizer(next_to_model(tmp_path / str(padded), kind, padded))) == size
    with pytest.raises(
        ConfigError, match=rf"has token .* with id {size - 1}, but the model has {size - 1} rows for tokens"
    ):
        tokenizer(next_to_model(tmp_path / "smaller", kind, size - 1))


def test_a_padding_token_without_a_row_does_no_harm_and_an_end_token_does(tmp_path):
    made = copy.deepcopy(KINDS["byte_level_bos"]())
    size = len(made)
    made.add_special_tokens({"pad_token": "[PAD]"})
    for name, end, allowed in (("pad", "</s>", True), ("end", "[PAD]", False)):
        made.eos_token = end
        directory = tmp_path / name
        made.save_pretrained(directory)
        (directory / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": size}))
        if allowed:
            assert tokenizer(directory).pad_token == "[PAD]"
        else:
            with pytest.raises(ConfigError, match=r"has token '\[PAD\]'"):
                tokenizer(directory)


def test_documents_need_a_token_between_them():
    with pytest.raises(ConfigError, match="no end-of-text token"):
        pack(datasets.Dataset.from_dict({"text": ["a"]}), KINDS["nothing_special"](), 4)
