"""Commands on a checkpoint of one's own: what is refused before any work, and what is reused."""

import shutil
from contextlib import nullcontext

import pytest
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prosparse.commands.export import Export, export_checkpoint
from prosparse.commands.predictors import train_checkpoint_predictors
from prosparse.commands.train import train_checkpoint
from prosparse.experiment.activation import Activation
from prosparse.system.errors import ConfigError, UserError
from prosparse.system.locking import Refused
from prosparse.training.band import OutOfBand

RECIPE = {
    "activation": "relu",
    "context_length": 16,
    "stages": [{"until": 1}, {"until": 2, "peak": 0.1}],
    "training": {"learning_rate": 1e-3, "batch_size": 2, "micro_batch_size": 2, "log_every": 1},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a checkpoint, a recipe and texts, and what training and predictors left of them."""
    root = tmp_path_factory.mktemp("made")
    vocabulary = {"<s>": 0, "</s>": 1, **{f"w{i}": i + 2 for i in range(30)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    config = LlamaConfig(**sizes, num_attention_heads=2, max_position_embeddings=64, hidden_act="relu")
    LlamaForCausalLM(config).save_pretrained(root / "start")
    fast.save_pretrained(root / "start")
    for number in range(4):
        (root / f"text{number}.txt").write_text(" ".join(f"w{(number * i) % 30}" for i in range(100)))
    (root / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    train(root)
    predictors(root)
    return root


@pytest.fixture
def own(made, tmp_path):
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


def train(root, output="out", seed=0):
    train_checkpoint(str(root / "start"), root / "recipe.yaml", [str(root / "text*.txt")], root / output, seed)


def predictors(root, output="predictors", activation=None, rank=4, context=16, tokens=64):
    settings = {"kinds": ["nonzero"], "rank": rank, "tokens": tokens}
    train_checkpoint_predictors(
        str(root / "start"), activation and Activation.parse(activation), [str(root / "text*.txt")], settings, context,
        root / output,
    )  # fmt: skip


def snapshot(directory):
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file() and path.name != "lock"}


def test_the_output_is_a_complete_checkpoint_with_the_ledger_of_all_stages(made):
    out = made / "out"
    assert AutoModelForCausalLM.from_pretrained(out).config.hidden_act == "relu"
    assert AutoTokenizer.from_pretrained(out)("w3")["input_ids"] == [5]
    last, whole = (load_file(path / "model.safetensors") for path in (out / "stage1", out))
    assert all((last[name] == whole[name]).all() for name in last | whole)
    assert [row.split(",")[:3] for row in (out / "ledger.csv").read_text().splitlines()[1:]] == [
        ["1", "32", "0.0"],
        ["2", "64", "0.1"],
    ]
    assert not (out / "optimizer.pt").exists()


def test_an_identical_call_does_nothing_and_says_so(own, capsys):
    before = snapshot(own)
    train(own)
    predictors(own)
    said = capsys.readouterr().out
    assert "out: already trained, nothing to do" in said
    assert "predictors already trained, nothing to do" in said
    assert snapshot(own) == before


def test_a_band_stops_training_and_another_continues_it(own, capsys):
    """The recipe's band is no part of what a folder is made from."""
    stages = RECIPE["stages"]
    for band, stops in (([0, 0.001], True), ([0, 1], False)):
        banded = {**RECIPE, "stages": [stages[0], {**stages[1], "expected_sparsity": band}]}
        (own / "recipe.yaml").write_text(yaml.safe_dump(banded))
        with pytest.raises(OutOfBand, match="in step 2, outside") if stops else nullcontext():
            train(own, "banded")
    assert "stage0: already trained" in capsys.readouterr().out
    expected, found = (load_file(own / name / "model.safetensors") for name in ("out", "banded"))
    assert all((expected[name] == found[name]).all() for name in expected | found)


def _text(root):
    (root / "text2.txt").write_text((root / "text2.txt").read_text() + " w1")


def _more_text(root):
    (root / "text9.txt").write_text("w1 w2 w3")


def _weights(root):
    weights = load_file(root / "start" / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, root / "start" / "model.safetensors", {"format": "pt"})


def _tokenizer(root):
    path = root / "start" / "tokenizer.json"
    path.write_text(path.read_text().replace('"w29"', '"other"'))


def _recipe(**changed):
    return lambda root: (root / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, **changed}))


INPUTS = {
    "text.text2.txt has other content": _text,
    "text.text9.txt is new": _more_text,
    "text.text3.txt is gone": lambda root: (root / "text3.txt").unlink(),
    "checkpoint.weights has other content": _weights,
    "tokenizer has other content": _tokenizer,
}
RECIPES = {
    "recipe.stages.1.peak is 0.2, was 0.1": _recipe(stages=[{"until": 1}, {"until": 2, "peak": 0.2}]),
    "recipe.stages is": _recipe(stages=[{"until": 2}]),
    "recipe.context_length is 32, was 16": _recipe(context_length=32),
    "recipe.activation.name is 'silu', was 'relu'": _recipe(activation="silu"),
    "recipe.training.learning_rate is 0.01": _recipe(training={**RECIPE["training"], "learning_rate": 0.01}),
}


@pytest.mark.parametrize("message", [*INPUTS, *RECIPES])
def test_training_made_from_something_else_is_not_reused(own, message):
    {**INPUTS, **RECIPES}[message](own)
    before = snapshot(own)
    with pytest.raises(Refused) as error:
        train(own)
    assert message in str(error.value)
    assert snapshot(own) == before


def test_elsewhere_the_same_call_trains(own):
    _weights(own)
    train(own, "other")
    one, other = (load_file(own / name / "model.safetensors")["model.norm.weight"] for name in ("out", "other"))
    assert abs((other[0] - one[0]).item() - 1) < 0.01


@pytest.mark.parametrize("message", INPUTS)
def test_predictors_made_from_something_else_are_not_reused(own, message):
    INPUTS[message](own)
    with pytest.raises(Refused) as error:
        predictors(own)
    assert message in str(error.value)


def test_other_options_are_named(own):
    for options, message in (
        ({"rank": 8}, "specification.settings.rank is 8, was 4"),
        ({"tokens": 48}, "specification.settings.tokens is 48, was 64"),
        ({"context": 8}, "context_length is 8, was 16"),
        ({"activation": "fatrelu-0.1"}, "specification.activation.name is 'fatrelu', was 'relu'"),
        ({"output": "out"}, "command is 'predictors', was 'train'"),
    ):
        with pytest.raises(Refused) as error:
            predictors(own, **options)
        assert message in str(error.value)
    with pytest.raises(Refused, match="seed is 1, was 0"):
        train(own, seed=1)


def test_moved_files_are_the_same_files(own, capsys):
    shutil.move(own, own.parent / "moved")
    train(own.parent / "moved")
    assert "nothing to do" in capsys.readouterr().out


# ------------------------------------------------------------------------------- preconditions


@pytest.fixture
def no_model(monkeypatch):
    """A model that is opened is too much work."""

    def opened(*_, **__):
        raise AssertionError("a model was opened")

    for name in ("train.train_stage", "predictors.train_predictors", "sparsity.load_to_measure", "export.load"):
        monkeypatch.setattr(f"prosparse.commands.{name}", opened)


BAD_RECIPES = {
    "allowed here: activation, stages, training, context_length": {"distillation": {"share": 1}},
    "init: unknown key": {"init": {"pretrained": "x"}},
    "mixture: unknown key": {"mixture": "text"},
    "training.lr: unknown key; allowed here: learning_rate": {"training": {**RECIPE["training"], "lr": 1}},
    "stages.1.until is 1: must be greater than stage 0's 1": {"stages": [{"until": 1}, {"until": 1}]},
    "peaks must not fall": {"stages": [{"until": 1, "peak": 1}, {"until": 2, "peak": 0.5}]},
    "stages.0.until is 0": {"stages": [{"until": 0}]},
    "stages.1: a stage has a peak or a target_sparsity: remove one": {
        "stages": [{"until": 1}, {"until": 2, "peak": 0.1, "target_sparsity": 0.9}]
    },
    "stages.0.target_sparsity: Input should be less than 1": {"stages": [{"until": 1, "target_sparsity": 90}]},
    "stages.0.target_sparsity: Input should be greater than 0": {"stages": [{"until": 1, "target_sparsity": 0}]},
    "stages.1: shape is sine: with target_sparsity, only constant is allowed": {
        "stages": [{"until": 1}, {"until": 2, "shape": "sine", "target_sparsity": 0.9}]
    },
    "stages.0: until is 0: a stage with target_sparsity trains for at least one step": {
        "stages": [{"until": 0, "target_sparsity": 0.9}]
    },
    "stages.1: stage 0 has target_sparsity 0.9, so this one needs a target_sparsity of at least 0.9": {
        "stages": [{"until": 1, "target_sparsity": 0.9}, {"until": 2, "target_sparsity": 0.8}]
    },
    "so this one needs a target_sparsity of at least 0.8 instead of a peak": {
        "stages": [{"until": 1, "target_sparsity": 0.8}, {"until": 2, "peak": 1}]
    },
    "stages.0.target_sparsity: silu has no zeros to steer; allowed is any other activation": {
        "activation": "silu",
        "stages": [{"until": 1, "target_sparsity": 0.9}],
    },
    "context_length": {"context_length": 4},
    "the context length is 65, but the model has positions for only 64 tokens": {"context_length": 65},
}


@pytest.mark.parametrize("message", BAD_RECIPES)
def test_bad_recipes_are_refused_before_any_work(own, no_model, message):
    _recipe(**BAD_RECIPES[message])(own)
    with pytest.raises(ConfigError) as error:
        train(own, "new")
    assert message in str(error.value)
    assert not (own / "new").exists()


BAD_YAML = {
    "activation: [relu": "is not YAML",
    "activation: relu\nactivation: silu": "'activation' appears twice",
    "- activation": "a recipe is a mapping of activation, stages, training, context_length",
    "": "a recipe is a mapping of",
    "caf\xe9".encode("latin-1"): "is not UTF-8 text",
}


@pytest.mark.parametrize("content", BAD_YAML)
def test_what_is_no_recipe_is_refused_with_the_file(own, no_model, content):
    (own / "recipe.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=BAD_YAML[content]) as error:
        train(own, "new")
    assert "recipe.yaml" in str(error.value)


def _file(root):
    (root / "new").write_text("mine")


def _foreign(root):
    (root / "new").mkdir()
    (root / "new" / "letter.doc").write_text("mine")


COMMANDS = {
    "train": lambda root: train(root, "new"),
    "predictors": lambda root: predictors(root, "new"),
}
OUTPUTS = {"new is a file": _file, "holds letter.doc, but no record of its inputs": _foreign}


@pytest.mark.parametrize("message", OUTPUTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_is_someone_elses_is_left_alone(own, no_model, command, message):
    OUTPUTS[message](own)
    before = snapshot(own)
    with pytest.raises(UserError, match=message):
        COMMANDS[command](own)
    assert snapshot(own) == before


def test_the_start_itself_is_no_output(own, no_model):
    before = snapshot(own)
    with pytest.raises(Refused, match="choose another folder"):
        train(own, "start")
    assert snapshot(own) == before


def test_export_into_a_folder_is_refused_at_once(own, no_model):
    with pytest.raises(ConfigError, match="is a directory"):
        export_checkpoint(Export(str(own / "start"), "llama.cpp", own / "out"))
    with pytest.raises(ConfigError, match="is a file, and a folder is needed"):
        export_checkpoint(Export(str(own / "start"), "llama.cpp", own / "text0.txt" / "x" / "model.gguf"))


def test_predictors_of_what_has_no_zeros_are_refused_at_once(own, no_model):
    for options, message in (
        ({"activation": "silu"}, "with silu none is"),
        ({"context": 100}, "positions for only 64 tokens"),
        ({"rank": 0}, "rank"),
    ):
        with pytest.raises(ConfigError, match=message):
            predictors(own, "new", **options)
    assert not (own / "new").exists()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({}, "no file"),
        ({"text0.txt": b""}, "is empty"),
        ({"text0.txt": b"", "text1.txt": b""}, "all 2 are empty"),
        ({"text0.txt": b"\xff\xfe\x00"}, "is not UTF-8 text"),
        ({"text0.txt": b"w1 w2"}, "fills no sequence of 16 tokens"),
    ],
)
def test_texts_that_cannot_be_trained_on(own, no_model, contents, message):
    for path in own.glob("text*.txt"):
        path.unlink()
    for name, content in contents.items():
        (own / name).write_bytes(content)
    for command in (train, predictors):
        with pytest.raises(ConfigError, match=message):
            command(own, "new")
