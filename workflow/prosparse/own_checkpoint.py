"""The method on a checkpoint and text of one's own, without the workflow."""

from __future__ import annotations

import json
import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch

from prosparse import checkpoints
from prosparse.config import (
    Activation,
    ConfigError,
    Corpus,
    FileSource,
    Predictors,
    PretrainedInit,
    ValidationError,
    describe,
)
from prosparse.data import sources
from prosparse.data.candidates import clean
from prosparse.data.shards import replace_rows, rewriting
from prosparse.data.tokens import copy_tokenizer, pack, predicted_bytes, spread
from prosparse.files import copy, write_json, write_through
from prosparse.inference.decoding import cache, prepare
from prosparse.inference.export import export_llama_cpp, export_powerinfer
from prosparse.inference.predictor_training import PredictorSpecification
from prosparse.inference.predictor_training import check as check_predictors
from prosparse.inference.predictor_training import train as train_predictors
from prosparse.inference.predictors import load as load_predictors
from prosparse.inference.text import TextStream, encode, plain_generation
from prosparse.measure.sparsity import measure
from prosparse.method.activations import substitute
from prosparse.models import load, load_to_measure, own_activation
from prosparse.own_files import check_context_length, check_output_file, output_folder, text_files
from prosparse.recipe import read as read_recipe
from prosparse.released import configuration
from prosparse.released import tokenizer as open_tokenizer
from prosparse.runs import StageSpecification
from prosparse.system import identity
from prosparse.training import train_stage


def train(checkpoint: str, recipe: Path, files: list[str], output: Path, seed: int) -> None:
    """Train through the stages of a recipe; finished stages are kept, a stopped one continues.

    ``output`` becomes a checkpoint, that of the last stage, with the ledger of all. ``stage{index}`` in it are the
    stages'.

    Raises:
        ConfigError: a bad recipe, a missing file, a context length that the model cannot have, too little text.
        Refused: ``output`` holds something else, or the work of a call with other arguments.
    """
    wanted = read_recipe(recipe)
    texts = text_files(files)
    check_context_length(configuration(checkpoint), wanted.context_length)
    open_tokenizer(checkpoint)
    made_from = {
        "command": "train",
        "recipe": wanted.model_dump(mode="json"),
        "seed": seed,
        "checkpoint": identity.of_checkpoint(checkpoint),
        "tokenizer": identity.of_tokenizer(checkpoint),
        "text": identity.of_texts(texts),
    }
    with output_folder(output, made_from):
        if (output / "provenance.json").exists():
            print(f"{output}: trained already, nothing to do")
            return
        tokens, tokenizer = output / "tokens", output / "tokenizer"
        rows = _write_tokens(texts, checkpoint, wanted.context_length, tokens)
        if not (tokenizer / "tokenizer_config.json").exists():
            copy_tokenizer(checkpoint, tokenizer)
        sequences = wanted.stages[-1].until * wanted.training.batch_size
        print(
            f"{sequences:,} sequences of {wanted.context_length} tokens in {wanted.stages[-1].until:,} steps, "
            f"of {rows:,} in the text: {sequences / rows:.2f} epochs",
            flush=True,
        )
        stages = [output / f"stage{index}" for index in range(len(wanted.stages))]
        for index, directory in enumerate(stages):
            print(f"stage {index} of {len(stages) - 1}: {wanted.stages[index]}", flush=True)
            specification = StageSpecification(
                seed=seed,
                start=PretrainedInit(pretrained=checkpoint),
                activation=wanted.activation,
                mixture={"text": 1.0},
                context_length=wanted.context_length,
                stages=wanted.stages[: index + 1],
                total_steps=wanted.stages[-1].until,
                training=wanted.training,
            )
            train_stage(specification, tokens, tokenizer, stages[index - 1] if index else None, directory)
        checkpoints.publish(stages[-1], output, excluding=(*checkpoints.OPTIMIZATION, "ledger.csv", "provenance.json"))
        checkpoints.join_ledgers([stage / "ledger.csv" for stage in stages], output / "ledger.csv")
        write_through(output)
        copy(stages[-1] / "provenance.json", output / "provenance.json")  # last: with it, the work is finished
    print(f"{output}: trained; its ledger.csv has lambda, loss and sparsity; next: prosparse sparsity {output}")


def sparsity(
    checkpoint: str, activations: list[Activation] | None, files: list[str], context_length: int, sequences: int
) -> None:
    """Print sparsity, by layer too, and the loss under each activation (default: the checkpoint's own)."""
    texts = text_files(files)
    check_context_length(configuration(checkpoint), context_length)
    rows = spread(_packed(texts, checkpoint, context_length), sequences)
    model = load_to_measure(checkpoint)
    bytes_per_token = predicted_bytes(rows, open_tokenizer(checkpoint)) / (len(rows) * (context_length - 1))
    for activation in activations or [own_activation(model.config)]:
        substitute(model, activation)
        found = measure(model, torch.tensor(rows["input_ids"]), batch_size=1)
        layers = " ".join(f"{100 * layer:.1f}" for layer in found["layer_sparsity"])
        print(
            f"{activation}: sparsity {100 * found['sparsity']:.2f} % | loss {found['loss']:.4f} nats a token, "
            f"{found['loss'] / math.log(2) / bytes_per_token:.4f} bits a byte | {found['tokens']:,} tokens\n"
            f"  layers, first to last: {layers} %",
            flush=True,
        )


def predictors(
    checkpoint: str,
    activation: Activation | None,
    files: list[str],
    kinds: list[str],
    rank: int,
    tokens: int,
    context_length: int,
    output: Path,
) -> None:
    """Train predictors of each kind into ``output/{kind}``, with the paper's recipe; a stopped training continues.

    Raises:
        ConfigError: an activation under which no neuron is zero, a rank or context length that the model cannot have, a
            missing file, too little text.
        Refused: ``output`` holds something else, or the work of a call with other arguments.
    """
    try:
        settings = Predictors.model_validate({"kinds": kinds, "rank": rank, "tokens": tokens})
    except ValidationError as error:
        raise ConfigError(describe(error, Predictors)) from None
    texts, config = text_files(files), configuration(checkpoint)
    chosen = activation or own_activation(config)
    specification = PredictorSpecification(activation=chosen, settings=settings, mixture={"text": 1.0}, seed=0)
    check_predictors(specification, checkpoint)
    check_context_length(config, context_length)
    made_from = {
        "command": "predictors",
        "specification": specification.model_dump(mode="json"),
        "context_length": context_length,
        "checkpoint": identity.of_checkpoint(checkpoint),
        "tokenizer": identity.of_tokenizer(checkpoint),
        "text": identity.of_texts(texts),
    }
    with output_folder(output, made_from):
        _write_tokens(texts, checkpoint, context_length, output / "tokens")
        train_predictors(checkpoint, specification, output / "tokens", output)
    print(f"next: prosparse generate {checkpoint} --predictors {output / kinds[0]} --prompt ...")


def generate(
    checkpoint: str,
    activation: Activation | None,
    prompt: str,
    mode: str,
    predictors: Path | None,
    decision_threshold: float,
    new_tokens: int,
    temperature: float,
    dtype: str,
) -> None:
    """Print the prompt and its continuation as it is generated: the text of all token ids; then the speed."""
    tokenizer = open_tokenizer(checkpoint)
    model: Any = load(checkpoint, activation, dtype=getattr(torch, dtype))
    decoder = prepare(model, load_predictors(predictors) if predictors is not None else None, decision_threshold)
    decoder.mode = mode if mode in decoder.modes or mode == "predicted" else "dense"
    inputs = torch.tensor([encode(tokenizer, prompt)])
    if not inputs.numel():
        raise ConfigError(f"the prompt {prompt!r} has no tokens, and {checkpoint} no token that begins a text")
    started = time.perf_counter()
    clock = _FirstToken(tokenizer, partial(print, end="", flush=True))
    generated = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        generation_config=plain_generation(model, tokenizer, temperature),
        past_key_values=cache(model),
        max_new_tokens=new_tokens,
        streamer=clock,
    )
    print()
    tokens, finished = generated.shape[1] - inputs.shape[1], time.perf_counter()
    speed = (tokens - 1) / (finished - clock.first) if tokens > 1 else math.nan
    print(
        f"{tokens} tokens, {decoder.mode}: {speed:.2f} tokens/s after the first, "
        f"which took {1000 * (clock.first - started):.0f} ms",
        file=sys.stderr,
    )


class _FirstToken(TextStream):
    """Writes the text, and notes when its first token was there."""

    first = math.nan
    _prompted = False

    def put(self, value: torch.Tensor) -> None:
        """The first call brings the prompt."""
        if self._prompted and math.isnan(self.first):
            self.first = time.perf_counter()
        self._prompted = True
        super().put(value)


def export(
    checkpoint: str,
    activation: Activation | None,
    engine: str,
    predictors: Path | None,
    decision_threshold: float,
    dtype: str | None,
    output: Path,
) -> None:
    """Write a GGUF file for an engine, and say how much of the weights its dtype rounds.

    Args:
        dtype: of the matrices for llama.cpp; None is the one they were saved in. PowerInfer's is float16.

    Raises:
        UserError: the engine would compute this model wrongly.
    """
    check_output_file(output)
    if engine != "llama.cpp" and dtype not in (None, "float16"):
        raise ConfigError(f"--dtype {dtype}: PowerInfer's sparse operators take float16 only")
    if engine != "llama.cpp" and predictors is None:
        raise ConfigError("PowerInfer needs --predictors: `prosparse predictors` trains them")
    model = load(checkpoint, activation, dtype="auto")
    tokenizer = open_tokenizer(checkpoint)
    if engine == "llama.cpp":
        rounded = export_llama_cpp(model, tokenizer, output, getattr(torch, dtype) if dtype else model.dtype)
    else:
        assert predictors is not None
        rounded = export_powerinfer(model, load_predictors(predictors), decision_threshold, tokenizer, output)
    lossless = "every value as it was saved" if rounded == 0 else f"{100 * rounded:.2g} % of the values rounded"
    print(f"{output}: {checkpoint} for {engine}, {lossless}")


def _write_tokens(files: list[Path], checkpoint: str, context_length: int, tokens: Path) -> int:
    """Packed rows of the files as corpus ``text`` of ``tokens``, unless they are there; how many there are."""
    output = tokens / "text"
    if not (output / "manifest.json").exists():
        with rewriting(output) as temporary:
            rows = _packed(files, checkpoint, context_length)
            rows.save_to_disk(temporary / "train")
            content = identity.of_rows(temporary / "train")
            replace_rows(temporary, output)
        write_json(output / "manifest.json", {"train_sequences": len(rows), "sha256": {"train": content}})
    return json.loads((output / "manifest.json").read_text(encoding="utf-8"))["train_sequences"]


def _packed(files: list[Path], checkpoint: str, context_length: int) -> datasets.Dataset:
    names = [str(file) for file in files]
    corpus = Corpus(stands_for="pile", kind="language_modelling", source=FileSource(files=names))
    texts = [clean(text, prose=False) for text in sources.read("text", corpus)]
    rows = pack(datasets.Dataset.from_dict({"text": texts}), open_tokenizer(checkpoint), context_length)
    if not len(rows):
        raise ConfigError(
            f"the text fills no sequence of {context_length} tokens: give more, or a smaller context length"
        )
    return rows
