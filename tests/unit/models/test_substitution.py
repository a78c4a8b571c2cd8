"""A checkpoint with another activation against the files it was made from."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from prosparse.experiment.activation import Activation
from prosparse.models.load import load, own_activation
from prosparse.models.substitution import substitute
from prosparse.system.errors import ConfigError

RELU = Activation.parse("relu")


@pytest.fixture
def source(tiny_llama, tmp_path):
    """A function that saves a checkpoint in a dtype, in several shards, with what people put beside it."""

    def build(dtype: torch.dtype):
        folder = tmp_path / "source"
        model = tiny_llama().to(dtype)
        model.generation_config.repetition_penalty = 1.7
        model.save_pretrained(folder, max_shard_size="20KB")
        words = {word: i for i, word in enumerate(["<s>", "</s>", "a", "b"])}
        fast = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, "a")), bos_token="<s>")
        fast.chat_template = "{{ messages }}"
        fast.save_pretrained(folder)
        (folder / "LICENSE").write_text("free")
        return folder

    return build


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_all_but_the_activation_stays(source, tmp_path, dtype):
    folder, output = source(dtype), tmp_path / "relu"
    substitute(str(folder), RELU, output)
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(shards) > 2
    for name in [*shards, "model.safetensors.index.json", "generation_config.json", "LICENSE", "chat_template.jinja"]:
        assert (output / name).read_bytes() == (folder / name).read_bytes(), name
    assert {path.name for path in output.iterdir()} == {path.name for path in folder.iterdir()}
    opened = AutoModelForCausalLM.from_pretrained(output, dtype="auto")
    assert opened.dtype == dtype
    assert isinstance(opened.model.layers[0].mlp.act_fn, torch.nn.ReLU)
    assert AutoTokenizer.from_pretrained(output).chat_template == "{{ messages }}"


@pytest.mark.parametrize("activation", ["relu2", "drelu"])
def test_reopens_with_the_same_function(source, tmp_path, activation):
    folder, output = source(torch.float32), tmp_path / activation
    substitute(str(folder), Activation.parse(activation), output)
    found = load(output).eval()
    assert str(own_activation(found.config)) == activation
    tokens = torch.arange(24).reshape(2, 12)
    assert torch.equal(found(tokens).logits, load(folder, Activation.parse(activation)).eval()(tokens).logits)
    if activation == "relu2":
        stock = AutoModelForCausalLM.from_pretrained(output).eval()
        assert torch.equal(stock(tokens).logits, found(tokens).logits)
    else:
        with pytest.raises(KeyError, match="drelu"):
            AutoModelForCausalLM.from_pretrained(output)


def test_pickled_weights_keep_their_dtype(source, tmp_path):
    folder, output = source(torch.bfloat16), tmp_path / "fatrelu"
    state = {}
    for path in folder.glob("model*.safetensors*"):
        state |= load_file(path) if path.suffix == ".safetensors" else {}
        path.unlink()
    torch.save(state, folder / "pytorch_model.bin")
    substitute(str(folder), Activation.parse("fatrelu-0.5"), output)
    assert not list(output.glob("*.bin"))
    saved = load_file(output / "model.safetensors")
    assert saved.keys() == state.keys()
    assert all(torch.equal(saved[name], state[name]) and saved[name].dtype == torch.bfloat16 for name in state)
    assert str(own_activation(load(output).config)) == "fatrelu-0.5"


def test_what_a_stage_says_of_itself_is_not_copied(source, tmp_path):
    folder, output = source(torch.float32), tmp_path / "relu"
    (folder / "provenance.json").write_text("{}")
    (folder / "ledger.csv").write_text("step\n")
    substitute(str(folder), RELU, output)
    assert not {"provenance.json", "ledger.csv"} & {path.name for path in output.iterdir()}


@pytest.mark.parametrize("what", ["file", "folder"])
def test_overwrites_nothing(source, tmp_path, what):
    output = tmp_path / "there"
    if what == "file":
        output.write_text("mine")
    else:
        output.mkdir()
        (output / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="there exists already"):
        substitute(str(source(torch.float32)), RELU, output)
    assert (output if what == "file" else output / "mine").read_text() == "mine"


def test_a_refused_checkpoint_leaves_nothing_behind(source, tmp_path):
    folder = source(torch.float32)
    next(folder.glob("*.safetensors")).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ConfigError, match=r"\.safetensors"):
        substitute(str(folder), RELU, tmp_path / "relu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_auto_is_the_dtype_of_the_weights_whatever_the_config_says(source, tmp_path):
    folder = source(torch.bfloat16)
    config = folder / "config.json"
    config.write_text(config.read_text().replace("bfloat16", "float16"))
    assert load(folder, RELU, dtype="auto").dtype == torch.bfloat16
    shard = next(path for path in folder.glob("*.safetensors") if any("norm" in name for name in load_file(path)))
    state = load_file(shard)
    save_file({name: w.half() if "norm" in name else w for name, w in state.items()}, shard, {"format": "pt"})
    model = load(folder, RELU, dtype="auto")  # neither of the two holds both
    assert model.dtype == torch.float32
