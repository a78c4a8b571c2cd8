"""An experiment at toy width: the same runs, stages, tables and formats, minutes instead of weeks.

What cannot be had without a hub is replaced by something of the same form: a model by a tiny random checkpoint of its
own released format, a data set of the hub by a folder of rows with its columns, a package's corpus by files.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from helpers.repository import ROOT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from prosparse.data.sources import template_columns
from prosparse.experiment.activation import Activation
from prosparse.experiment.calibrated import probes
from prosparse.experiment.data import HubSource
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.loading import load
from prosparse.experiment.model import Architecture, PretrainedInit
from prosparse.models.build import from_scratch

CONTEXT_LENGTH = 32
WORDS = (ROOT / "LICENSE").read_text().split()


def rehearse(path: Path, root: Path) -> Path:
    """Write the experiment of ``path`` at toy width, and all it reads, into ``root``; returns the config file."""
    experiment = load(yaml.safe_load(path.read_text()))
    toy = experiment.model_dump(mode="json")
    toy["description"] = "A rehearsal at toy width; its numbers mean nothing."
    # overnight has several seeds, too
    toy["seeds"] = toy["seeds"][: 1 if experiment.schedules.comparisons else 2]
    _thin(experiment, toy)
    _data(experiment, toy["data"], root)
    for name, architecture in experiment.architectures.items():
        toy["architectures"][name] |= _shrunk(architecture)
    for scale in experiment.calibration:
        for probe in probes(experiment, scale):
            del toy["runs"][probe]  # loading adds it
        toy["calibration"][scale] |= {"probes": [1e-3, 20], "steps": 20}
    for name in toy["runs"]:
        run = experiment.runs[name]
        _run(toy["runs"][name], learning_rate=5e-3 if experiment.calibration else 1e-3)
        if isinstance(run.init, PretrainedInit):
            shape = experiment.architectures.get(run.init.architecture or "")
            folder = root / "models" / run.init.pretrained.lstrip("/")
            _checkpoint(folder, run.init.pretrained, shape, run.activation)
            toy["runs"][name]["init"] |= {"pretrained": str(folder), "gguf_file": None, "gated": None, "sha256": None}
    toy["benchmarks"] |= {"rows": "files", "directory": str(_benchmark_rows(root / "rows")), "limits": {}, "limit": 2}
    for section in experiment.calibration.values():  # a full run is longer than its probes, and gets sparse
        toy["runs"][section.run]["stages"][-1]["until"] = 60
    if experiment.hardware:
        toy["hardware"]["gpus"] = 2
    if experiment.operators:
        shapes = {scale: [16 + 8 * n, 32 + 8 * n] for n, scale in enumerate(experiment.operators.shapes)}
        toy["operators"] |= {"shapes": shapes, "densities": [1, 0.5], "rounds": 4, "memory_limit": 1 << 20}
    if experiment.predictors:
        toy["predictors"] |= {"rank": 4, "tokens": 256, "epochs": 1, "batch_size": 64}
    if experiment.decoding:
        toy["decoding"] |= {"prompts": 1, "new_tokens": 16}
    # made from nothing of an experiment, it is the same for each, and takes as long as half of the other jobs
    compiled = root / "results" / experiment.experiment / "measurements" / "compiled_operators.json"
    compiled.parent.mkdir(parents=True)
    shutil.copy(ROOT / "results/published/laptop/measurements/compiled_operators.json", compiled)
    written = root / f"{experiment.experiment}.yaml"
    written.write_text(yaml.safe_dump(toy, sort_keys=False))
    return written


def _thin(experiment: Experiment, toy: dict[str, Any]) -> None:
    """Leave each comparison its first, its last and its reference method, and each method its ends.

    The runs that go differ from those that stay in numbers only.
    """

    def ends(given: list[str]) -> list[str]:
        return list(dict.fromkeys([given[0], given[-1]]))

    def runs(pairs: list[str]) -> set[str]:
        return {pair.partition("@")[0] for pair in pairs}

    figures, left = toy["figures"], set(toy["figures"]["schedule"][-1:])
    for comparison in toy["schedules"]["comparisons"].values():
        methods = comparison["methods"]
        kept = [*ends(list(methods)), comparison["reference"]]
        comparison["methods"] = {name: ends(methods[name]) for name in kept}
        left |= runs([pair for pairs in comparison["methods"].values() for pair in pairs])
    gone = runs(experiment.schedules.pairs()) - left
    toy["runs"] = {name: run for name, run in toy["runs"].items() if name not in gone}
    figures["schedule"] = [name for name in figures["schedule"] if name not in gone]
    for frontier in figures["frontier"].values():
        methods = {
            name: [pair for pair in pairs if not runs([pair]) & gone] for name, pairs in frontier["methods"].items()
        }
        frontier["methods"] = {name: pairs for name, pairs in methods.items() if pairs}


def _run(run: dict[str, Any], learning_rate: float) -> None:
    for index, stage in enumerate(run["stages"]):
        stage["until"] = 2 * (index + 1) if stage["until"] else 0
        if "expected_sparsity" in stage:
            stage["expected_sparsity"] = [0, 1]
    # two sequences each for two processes; compiling takes longer than all else
    run["training"] |= {
        "batch_size": 4, "micro_batch_size": 2, "compile": False, "warmup_steps": 0, "log_every": 1,
        "checkpoint_every": 1, "learning_rate": learning_rate,
    }  # fmt: skip


def _shrunk(architecture: Architecture) -> dict[str, Any]:
    grouped = architecture.kv_heads < architecture.heads
    return {
        "hidden_size": 32,
        "intermediate_size": 64
        + 8 * (architecture.intermediate_size // 8 % 7),  # models of several widths keep several
        "layers": 2,
        "heads": 4,
        "kv_heads": 2 if grouped else 4,
        "vocabulary_size": None,
        "dim_model_base": 8 if architecture.type == "minicpm" else None,
    }


def _data(experiment: Experiment, data: dict[str, Any], root: Path) -> None:
    data |= {"context_length": CONTEXT_LENGTH, "heldout_sequences": 4, "packages": {}}
    for tokenizer in data["tokenizers"].values():
        if tokenizer["pretrained"]:
            folder = root / "tokenizers" / tokenizer["pretrained"].lstrip("/")
            bytes_as_tokens().save_pretrained(folder)
            tokenizer |= {"pretrained": str(folder), "gguf_file": None, "special_tokens": {}}
        else:
            tokenizer["vocabulary_size"] = 300
    for number, (name, corpus) in enumerate(experiment.data.corpora.items()):
        texts = _texts(number)
        source = corpus.source
        if isinstance(source, HubSource):
            folder = root / "hub" / name
            paths = [pattern.replace("*", "0") for pattern in source.files]
            for file, path in enumerate(paths or [f"{source.split}-{n}.parquet" for n in range(4)]):
                rows = [_row(source, text) for text in texts[file :: len(paths) or 4]]
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.Table.from_pylist(rows), folder / path)
            data["corpora"][name]["source"] |= {"hub": str(folder), "name": None, "revision": None, "gated": None}
        else:
            folder = root / "text" / name
            folder.mkdir(parents=True)
            _write_rows(folder / "rows.jsonl", [{"text": text} for text in texts])
            data["corpora"][name]["source"] = {"files": [f"{folder}/rows.jsonl"]}
        data["corpora"][name] |= {"character_limit": None, "shards": min(corpus.shards, 2)}


def _row(source: HubSource, text: str) -> dict[str, Any]:
    """A row with the columns that the source's templates name, lists among them."""
    row: dict[str, Any] = dict.fromkeys(template_columns(source.template, "template"), text)
    for column, templates in source.items.items():
        fields = set().union(*(template_columns(template, column) for template in templates))
        row[column] = [text if fields == {"item"} else dict.fromkeys(fields, text)] * 2
    return row


def _texts(seed: int, count: int = 300) -> list[str]:
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=30)) for _ in range(count)]


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def bytes_as_tokens() -> PreTrainedTokenizerFast:
    """A token a byte, ``<s>`` first and ``</s>``, as LLaMA's tokenizer has them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def _checkpoint(folder: Path, name: str, shape: Architecture | None, activation: Activation) -> None:
    """A random model as the one of this name was released: model type, keys of the config, names of the weights."""
    if folder.exists():
        return
    shape = shape or Architecture(hidden_size=32, intermediate_size=64, layers=2, heads=4, kv_heads=2)
    shape = shape.model_copy(update=_shrunk(shape))
    model = from_scratch(shape, len(bytes_as_tokens()), 2 * CONTEXT_LENGTH, seed=0)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_act": activation.name, "hidden_act_param": activation.parameter}
    if shape.type == "minicpm":
        keys = ("scale_emb", "scale_depth", "dim_model_base")
        config |= {"model_type": "minicpm", "architectures": ["MiniCPMForCausalLM"]}
        config |= {key: getattr(shape, key) for key in keys}
        for key in ("embedding_multiplier", "residual_multiplier", "logits_scaling", "attention_multiplier"):
            del config[key]
    elif name.startswith("SparseLLM/prosparse"):
        config |= {"model_type": "sparsellama", "architectures": ["SparseLlamaForCausalLM"]}
    if config["model_type"] in ("minicpm", "sparsellama"):  # written by transformers of their time
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
        config.pop("head_dim", None)
    (folder / "config.json").write_text(json.dumps(config))
    bytes_as_tokens().save_pretrained(folder)


def _benchmark_rows(folder: Path) -> Path:
    """Two made-up rows of a benchmark of each way to answer; the others are missing."""
    folder.mkdir()
    piqa = [{"goal": f"To count {n},", "sol1": "say it.", "sol2": "eat it.", "label": n} for n in range(2)]
    lambada = [{"text": f"one two three {word}"} for word in ("four", "five")]
    gsm8k = [{"question": f"What is {n}?", "answer": f"<<{n}>> #### {n}"} for n in range(2)]
    mmlu = [{"subtask": "anatomy", "question": f"Which {n}?", "choices": list("wxyz"), "answer": n} for n in range(2)]
    test = "def check(candidate):\n    assert candidate(4) == 8\n"
    humaneval = [{"task_id": "HumanEval/900", "prompt": "def f(x):\n", "test": test, "entry_point": "f"}]
    shown = {"mmlu.shots": 3 * mmlu}
    rows = {"piqa": piqa, "lambada": lambada, "gsm8k": gsm8k, "mmlu": mmlu, "humaneval": humaneval}
    for name, written in (rows | shown).items():
        _write_rows(folder / f"{name}.jsonl", written)
    return folder
