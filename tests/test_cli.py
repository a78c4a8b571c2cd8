"""The command line on a checkpoint of one's own."""

import json

import pytest
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from prosparse.__main__ import main


@pytest.fixture
def own(tiny_llama, tmp_path):
    """A checkpoint directory with a byte-level tokenizer, and a text file."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(["<s>", "</s>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    model = tiny_llama()
    model.resize_token_embeddings(len(fast))
    model.save_pretrained(tmp_path / "own")
    fast.save_pretrained(tmp_path / "own")
    for index in range(40):
        (tmp_path / f"text{index}.txt").write_text(
            f"Paragraph number {index}. " * 30 + f"It ends with {index * index}."
        )
    return tmp_path


def test_swap_train_and_sparsity(own, capsys):
    text = [str(path) for path in sorted(own.glob("text*.txt"))]
    assert main(["swap", str(own / "own"), "--activation", "relu", "--output", str(own / "relu")]) == 0
    assert AutoModelForCausalLM.from_pretrained(own / "relu").config.hidden_act == "relu"
    recipe = {
        "activation": "relu", "context_length": 32,
        "stages": [{"until": 3}, {"until": 5, "peak": 0.1}, {"until": 8, "peak": 1.0, "shape": "sine"}],
        "training": {"learning_rate": 1e-3, "batch_size": 2, "micro_batch_size": 2, "log_every": 2},
    }  # fmt: skip
    (own / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    train = [
        "train",
        str(own / "relu"),
        "--recipe",
        str(own / "recipe.yaml"),
        "--output",
        str(own / "out"),
        "--text",
        *text,
    ]
    assert main(train) == 0
    assert [p.name for p in sorted((own / "out").glob("stage*"))] == ["stage0", "stage1", "stage2"]
    capsys.readouterr()
    assert main(train) == 0  # a second call finds everything done
    assert "step" not in capsys.readouterr().out
    sparsity = ["sparsity", str(own / "out" / "stage2"), "--activation", "relu", "--activation", "fatrelu-0.1"]
    assert main([*sparsity, "--context-length", "32", "--sequences", "4", "--text", *text]) == 0
    out = capsys.readouterr().out
    assert "relu: sparsity" in out
    assert "fatrelu-0.1: sparsity" in out


def test_evaluate_writes_scores(own):
    rows = own / "rows"
    rows.mkdir()
    piqa = [{"goal": "To sit,", "sol1": "stand.", "sol2": "use a chair.", "label": 1}] * 3
    (rows / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in piqa))
    output = own / "piqa.json"
    assert main(["evaluate", str(own / "own"), "--task", "piqa", "--rows", str(rows), "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["benchmarks"]["piqa"]["n"] == 3
    assert result["activation"] == "silu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swap", "{own}/nowhere", "--activation", "relu", "--output", "x"], "nowhere is no checkpoint"),
        (["sparsity", "{own}/own", "--text", "{own}/missing.txt"], "missing.txt"),
        (["train", "{own}/own", "--recipe", "{own}/bad.yaml", "--text", "x", "--output", "y"], "stages.0.until"),
    ],
)
def test_errors_are_one_line_that_names_the_file_or_key(own, capsys, arguments, message):
    (own / "bad.yaml").write_text(
        "activation: relu\nstages: [{until: -1}]\ntraining: {learning_rate: 1, batch_size: 1, micro_batch_size: 1}\n"
    )
    assert main([a.format(own=own) for a in arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("prosparse: error: ")
    assert message in error


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert "prosparse swap" in out
    assert "snakemake --cores all" in out
