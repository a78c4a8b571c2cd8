"""The command line on a checkpoint of one's own."""

import json
import math
import mmap
import re
import sys

import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from prosparse.__main__ import main
from prosparse.commands import bench as commands_bench
from prosparse.inference.gguf_file import read_back
from prosparse.inference.predictors import Predictor
from prosparse.inference.predictors import load as load_predictors
from prosparse.inference.predictors import save as save_predictors
from prosparse.models.load import load, own_activation


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


def test_substitute_train_and_sparsity(own, capsys):
    text = [str(path) for path in sorted(own.glob("text*.txt"))]
    assert main(["substitute", str(own / "own"), "--activation", "relu", "--output", str(own / "relu")]) == 0
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
    ledger = (own / "out" / "ledger.csv").read_text().splitlines()
    told = re.findall(r"^  (before|after ) \(step (\d+)\): sparsity", capsys.readouterr().out, re.M)
    assert told == [("before", ledger[1].partition(",")[0]), ("after ", ledger[-1].partition(",")[0])]
    assert [p.name for p in sorted((own / "out").glob("stage*"))] == ["stage0", "stage1", "stage2"]
    capsys.readouterr()
    assert main(train) == 0  # a second call finds everything done
    assert "step" not in capsys.readouterr().out
    sparsity = ["sparsity", str(own / "out" / "stage2"), "--activation", "relu", "--activation", "fatrelu-0.1"]
    assert main([*sparsity, "--context-length", "32", "--sequences", "4", "--text", *text]) == 0
    out = capsys.readouterr().out
    assert "relu: sparsity" in out
    shares = re.findall(r"^  layer +\d+ +([\d.]+)%  (█*)", out, re.M)
    assert len(shares) >= 4
    assert all(len(bar) == math.floor(float(share) * 0.4 + 1e-6) for share, bar in shares if float(share) % 2.5 > 0.2)
    assert len(re.findall(r"^  layer +\d+ .*  [\d.]+% dead$", out, re.M)) == len(shares)
    assert "fatrelu-0.1: sparsity" in out


def test_sparsity_without_training(own, capsys):
    """At a target, by two methods, then at what 1% of perplexity allows."""
    measured, other = str(own / "text0.txt"), str(own / "text1*.txt")
    command = ["sparsity", str(own / "own"), "--context-length", "32", "--text", measured, "--calibration-text", other]
    assert main([*command, "--training-free", "cats", "--training-free", "teal", "--target-sparsity", "0.7"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "| loss" in line]
    silu, cats, teal = (re.match(r"(.*): sparsity ([\d.]+)%(.*) \| loss", line).groups() for line in lines)
    assert silu == ("silu", "0.00", "")
    assert cats[0] == "CATS, 70%"
    assert float(cats[1]) == pytest.approx(70, abs=6)
    assert float(re.fullmatch(r", ([\d.]+)% in the FFN's input", teal[2])[1]) == pytest.approx(70, abs=6)
    assert main([*command, "--training-free", "cett"]) == 0
    assert "CETT, perplexity +1%: sparsity" in capsys.readouterr().out


@pytest.mark.parametrize("activation", ["relu2", "drelu"])
def test_from_substitution_to_decoding(own, activation, capsys, monkeypatch):
    """Of an activation that no engine computes."""
    new, out, recipe = own / activation, own / "out", own / "recipe.yaml"
    assert main(["substitute", str(own / "own"), "--activation", activation, "--output", str(new)]) == 0
    training = {"learning_rate": 1e-3, "batch_size": 2, "micro_batch_size": 2}
    stages = [{"until": 1}, {"until": 2, "peak": 1.0}]
    recipe.write_text(
        yaml.safe_dump({"activation": activation, "context_length": 32, "stages": stages, "training": training})
    )
    train = ["train", str(new), "--recipe", str(recipe), "--output", str(out), "--text", str(own / "text1.txt")]
    assert main(train) == 0
    assert str(own_activation(load(out).config)) == activation
    capsys.readouterr()
    written = []
    for mode in ([], ["--dense"]):
        command = ["generate", str(out), "--prompt", "Paragraph It", "--new-tokens", "8", "--precision", "float32"]
        assert main([*command, *mode]) == 0
        written.append(capsys.readouterr().out)
    assert written[0] == written[1]
    config = load(out).config
    sizes = config.hidden_size, 4, config.intermediate_size
    save_predictors([Predictor(*sizes) for _ in range(config.num_hidden_layers)], own / "some")
    for engine, computed in (("llama.cpp", "silu"), ("powerinfer", "relu")):
        export = ["export", str(out), "--engine", engine, "--output", str(own / "no.gguf")]
        assert main([*export, "--predictors", str(own / "some")]) == 1
        error = capsys.readouterr().err
        said = rf"^prosparse: error: .*activation is {activation}, but \S+ computes {computed} .*\n$"
        assert re.search(said, error)
        assert not (own / "no.gguf").exists()
    monkeypatch.setenv("PROSPARSE_LLAMA_CPP", str(own / "nothing"))
    assert main(["bench", str(out), "--prompt", "Paragraph It", "--new-tokens", "16"]) == 0
    said = re.search(r"([\d.]+)% of the neurons are inactive(.*)", capsys.readouterr().out)
    if activation == "relu2":
        assert said[2] == " and skipped in exact mode."
    else:
        of_gates = re.fullmatch(r": .* rows of W₂, and the rows of W₁ of the ([\d.]+)% whose gate is zero\.", said[2])
        assert 20 < float(of_gates[1]) < float(said[1]) < 95


def test_sparsity_says_that_text_was_trained_on(own, capsys):
    stages = [{"until": 1}]
    training = {"learning_rate": 1e-3, "batch_size": 2, "micro_batch_size": 2}
    (own / "recipe.yaml").write_text(
        yaml.safe_dump({"activation": "relu", "context_length": 32, "stages": stages, "training": training})
    )
    seen, unseen = str(own / "text1.txt"), str(own / "text2.txt")
    recipe = ["--recipe", str(own / "recipe.yaml"), "--output", str(own / "out")]
    assert main(["train", str(own / "own"), *recipe, "--text", seen]) == 0
    capsys.readouterr()
    measured = ["sparsity", str(own / "out"), "--context-length", "32", "--text"]
    assert main([*measured, unseen]) == 0
    assert "not a held-out loss" not in capsys.readouterr().out
    assert main([*measured, unseen, seen]) == 0
    assert f"{own / 'out'} was trained on {seen}\n" in capsys.readouterr().out
    measured[1] = str(own / "out" / "stage0")
    assert main([*measured, seen]) == 0
    assert f"{own / 'out' / 'stage0'} was trained on {seen}\n" in capsys.readouterr().out


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_out_of_range_is_refused_before_work(own, capsys, seed):
    command = ["sparsify", str(own / "own"), "--target-sparsity", "0.9", "--text", str(own / "text1.txt")]
    assert main([*command, "--output", str(own / "out"), "--seed", seed]) == 2
    assert "--seed" in capsys.readouterr().err
    assert not (own / "out").exists()


def test_evaluate_writes_scores(own, capsys):
    rows = own / "rows"
    rows.mkdir()
    piqa = [{"goal": "To sit,", "sol1": "stand.", "sol2": "use a chair.", "label": 1}] * 3
    (rows / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in piqa))
    output = own / "piqa.json"
    assert main(["evaluate", str(own / "own"), "--task", "piqa", "--rows", str(rows), "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    head, _, row = capsys.readouterr().out.splitlines()[-3:]
    assert head.split()[:5] == ["Benchmark", "Score", "±", "error", "Chance"]
    score, by_sum = result["benchmarks"]["piqa"]["score"], result["benchmarks"]["piqa"]["lm_eval"]
    told = ["piqa", *(f"{100 * share:.2f}" for share in (score, 0, 0.5)), "0", "3"]
    assert row.split() == [*told, f"{100 * by_sum['acc']:.2f}", f"{100 * by_sum['acc_norm']:.2f}"]
    assert result["benchmarks"]["piqa"]["n"] == 3
    assert result["activation"] == "silu"

    measured, scores = own / "measured.json", {}
    options = ["--specification", json.dumps({"rows": "packages", "tasks": ["piqa"]}), "--activation", "silu"]
    options += ["--run", "own", "--seed", "0", "--rows", str(rows / "rows.json"), "--output", str(measured)]
    for precision in ("float32", "bfloat16"):
        assert main(["step", "benchmarks", str(own / "own" / "any"), *options, "--precision", precision]) == 0
        scores[precision] = json.loads(measured.read_text())
    assert scores["float32"]["benchmarks"] == result["benchmarks"]
    assert scores["bfloat16"]["benchmarks"]["piqa"]["n"] == 3
    digests = {score["provenance"]["specification_digest"] for score in scores.values()}
    assert len(digests) == 2


@pytest.fixture
def relu(own, capsys):
    assert main(["substitute", str(own / "own"), "--activation", "relu", "--output", str(own / "relu")]) == 0
    capsys.readouterr()
    return own / "relu"


def test_predictors_and_generate(own, relu, capsys):
    text = [str(path) for path in sorted(own.glob("text*.txt"))]
    train = [
        "predictors", str(relu), "--text", *text, "--kind", "top", "--kind", "svd", "--rank", "8",
        "--tokens", "400", "--context-length", "16", "--output", str(own / "predictors"),
    ]  # fmt: skip
    assert main(train) == 0
    assert "next: prosparse generate" in capsys.readouterr().out
    for kind in ("top", "svd"):
        assert [predictor.rank for predictor in load_predictors(own / "predictors" / kind)] == [8, 8]

    def generated(*more):
        command = ["generate", str(relu), "--prompt", "Paragraph", "--new-tokens", "20", *more]
        assert main(command) == 0
        return capsys.readouterr()

    exact, dense = generated(), generated("--dense")
    predicted = generated("--predictors", str(own / "predictors" / "top"))
    assert exact.out == dense.out
    for found, mode in ((exact, "exact"), (dense, "dense"), (predicted, "predicted")):
        assert found.out.startswith("Paragraph")
        assert f"tokens, {mode}, bfloat16: " in found.err
        assert "tokens/s after the first" in found.err
    quantized = generated("--precision", "q8_0")
    assert "tokens, exact, q8_0: " in quantized.err
    assert quantized.out == generated("--precision", "q8_0", "--dense").out
    # the text is the unprepared model's
    model, tokenizer = AutoModelForCausalLM.from_pretrained(relu), AutoTokenizer.from_pretrained(relu)
    inputs = tokenizer("Paragraph", return_tensors="pt", return_token_type_ids=False)
    ids = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert generated("--precision", "float32").out.strip() == text.strip()
    # sampled from nearly nothing but the most likely token
    assert generated("--precision", "float32", "--temperature", "1e-5").out.strip() == text.strip()
    # every logit is above so low a threshold: what is predicted is everything
    everything = ["--predictors", str(own / "predictors" / "top"), "--decision-threshold", "1e-300"]
    assert generated("--precision", "float32", *everything).out.strip() == text.strip()


def test_generate_from_a_checkpoint_without_zeros_is_dense(own, capsys):
    assert main(["generate", str(own / "own"), "--prompt", "It", "--new-tokens", "3"]) == 0
    assert "3 tokens, dense, bfloat16: " in capsys.readouterr().err


def rows(said: str) -> dict[str, list[str]]:
    """The cells of a printed table's rows by their first."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line[:1] == "|"]
    return {first: cells for first, *cells in lines[2:]}


def test_bench(own, relu, capsys, monkeypatch):
    config = AutoModelForCausalLM.from_pretrained(relu).config
    sizes = config.hidden_size, 4, config.intermediate_size
    save_predictors([Predictor(*sizes) for _ in range(config.num_hidden_layers)], own / "some")
    monkeypatch.setenv("PROSPARSE_LLAMA_CPP", str(own / "nothing"))
    command = ["bench", str(relu), "--prompt", "Paragraph It", "--new-tokens", "16", "--precision", "float32"]
    assert main([*command, "--predictors", str(own / "some")]) == 0
    said = capsys.readouterr().out
    found = rows(said)
    assert list(found) == ["transformers", "dense", "exact", "predicted"]
    assert found["dense"][2] == "1.00x"
    assert found["transformers"][-1] == found["exact"][-1] == "100%"
    assert float(found["exact"][5].rstrip(" %")) > 0
    assert re.search(r"\d+\.\d% of the neurons are inactive", said)
    assert re.search(r"llama.cpp is not timed: .*nothing", said)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's peak can only be reset on Linux")
def test_bench_forgets_the_memory_of_an_earlier_precision():
    """1 GB: freed before, it is not part of the peak that follows."""
    with mmap.mmap(-1, 1 << 30) as memory:
        memory.write(b"x" * len(memory))
    before = commands_bench._peak_memory()
    commands_bench._reset_peak_memory()
    assert before - commands_bench._peak_memory() > 0.9 * (1 << 30)


def test_bench_of_a_model_without_zeros_says_that_nothing_can_be_skipped(own, capsys, monkeypatch):
    monkeypatch.setenv("PROSPARSE_LLAMA_CPP", str(own / "nothing"))
    assert main(["bench", str(own / "own"), "--prompt", "Paragraph It", "--new-tokens", "16"]) == 0
    said = capsys.readouterr().out
    assert list(rows(said)) == ["transformers", "dense"]
    assert "silu has no zeros, so nothing can be skipped" in said


def test_bench_shows_other_engines(own, capsys, monkeypatch):
    """Of what they measured, here given."""
    rate = {"median": 7.0, "lower_quartile": 6.5, "upper_quartile": 7.5}
    timed = {"tokens_per_second": rate, "first_token_milliseconds": rate}
    files = []

    def measure(found, given, *rest):
        files.append(given)
        found["engines"] = {"llama.cpp": timed}

    monkeypatch.setattr(commands_bench.llamacpp, "interpreter", lambda: "python")
    monkeypatch.setattr(commands_bench, "measure_engines", measure)
    command = ["bench", str(own / "own"), "--prompt", "Paragraph It", "--new-tokens", "16"]
    assert main([*command, "--precision", "bfloat16", "--precision", "float32"]) == 0
    assert rows(capsys.readouterr().out)["llama.cpp"][:2] == ["7.00", "6.50 to 7.50"]
    assert [list(given) for given in files] == [["llama.cpp"]] * 2


def test_export(own, relu, capsys):
    output = own / "own.gguf"
    assert main(["export", str(own / "own"), "--engine", "llama.cpp", "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: {own}/own for llama.cpp, every value as it was saved\n"
    model = AutoModelForCausalLM.from_pretrained(own / "own")
    written = read_back(output)["blk.1.ffn_gate.weight"].float()
    assert torch.equal(written, model.model.layers[1].mlp.gate_proj.weight)
    half = ["export", str(own / "own"), "--engine", "llama.cpp", "--precision", "float16", "--output", str(output)]
    assert main(half) == 0
    assert re.search(r"llama\.cpp, [\d.]+% of the values rounded\n$", capsys.readouterr().out)
    for engine, message in (("llama.cpp", "relu"), ("powerinfer", "--predictors")):
        assert main(["export", str(relu), "--engine", engine, "--output", str(own / "no.gguf")]) == 1
        error = capsys.readouterr().err
        assert error.startswith("prosparse: error: ")
        assert message in error.lower()
        assert not (own / "no.gguf").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["substitute", "{own}/nowhere", "--activation", "relu", "--output", "x"], "nowhere is not a checkpoint"),
        (["sparsity", "{own}/own", "--text", "{own}/missing.txt"], "missing.txt"),
        (
            [
                "sparsity",
                "{own}/own",
                "--text",
                "{own}/text*.txt",
                "--training-free",
                "cats",
                "--calibration-text",
                "{own}/text3.txt",
            ],
            "text3.txt is in --text, too: thresholds must come from other text",
        ),
        (["train", "{own}/own", "--recipe", "{own}/bad.yaml", "--text", "x", "--output", "y"], "stages.0.until"),
        (["generate", "{own}/own", "--prompt", "x", "--predictors", "{own}"], "holds no predictors"),
        (["bench", "{own}/own", "--new-tokens", "20"], "new_tokens"),
        (["bench", "{own}/own", "--prompt", "I"], "at least two are needed"),
        (["bench", "{own}/own", "--powerinfer", "{own}"], "needs --predictors"),
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


def test_several_files_follow_one_option(own, capsys):
    """As the shell expands `--text *.txt`, wherever the option stands; the option may be repeated, too."""
    files = [str(path) for path in sorted(own.glob("text*.txt"))]
    sized = ["--context-length", "16", "--sequences", "4"]
    said = []
    for arguments in (
        [str(own / "own"), *sized, "--text", *files],
        ["--text", *files, *sized, "--", str(own / "own")],
        [str(own / "own"), *sized, *(word for file in files for word in ("--text", file))],
        [str(own / "own"), *sized, "--text", str(own / "text*.txt")],
    ):
        assert main(["sparsity", *arguments]) == 0
        said.append(capsys.readouterr().out)
    assert len(set(said)) == 1
