"""The method on a checkpoint and text of one's own, without the workflow."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import torch
import yaml
from transformers import TextStreamer

from prosparse.config import (
    Activation,
    ConfigError,
    Corpus,
    FileSource,
    Predictors,
    PretrainedInit,
    Run,
    ValidationError,
    describe,
)
from prosparse.data import sources
from prosparse.data.documents import clean
from prosparse.data.tokens import copy_tokenizer, pack, predicted_bytes, spread
from prosparse.inference.decoding import cache, prepare
from prosparse.inference.export import export_llama_cpp, export_powerinfer
from prosparse.inference.predictor_training import PredictorSpecification
from prosparse.inference.predictor_training import train as train_predictors
from prosparse.inference.predictors import load as load_predictors
from prosparse.measure.sparsity import measure
from prosparse.method.activations import substitute
from prosparse.models import load, load_to_measure, own_activation
from prosparse.released import configuration
from prosparse.released import tokenizer as open_tokenizer
from prosparse.runs import StageSpecification
from prosparse.training import train_stage


def train(checkpoint: str, recipe: Path, files: list[str], output: Path, seed: int) -> None:
    """Train through the stages of a recipe; finished stages are kept, a stopped one goes on.

    Raises:
        ConfigError: a bad recipe, a missing file.
    """
    settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    context_length = settings.pop("context_length", 1024)
    try:
        run = Run.model_validate({"init": {"pretrained": checkpoint}, "mixture": "text", **settings})
    except ValidationError as error:
        raise ConfigError(f"{recipe}: {describe(error)}") from None
    tokens, tokenizer = output / "tokens", output / "tokenizer"
    if not tokens.exists():
        _packed(files, checkpoint, context_length).save_to_disk(tokens / "text" / "train")
        copy_tokenizer(checkpoint, tokenizer)
    previous = None
    for index, stage in enumerate(run.stages):
        directory = output / f"stage{index}"
        if not (directory / "provenance.json").exists():
            print(f"stage {index} of {len(run.stages) - 1}: {stage}", flush=True)
            specification = StageSpecification(
                seed=seed,
                start=PretrainedInit(pretrained=checkpoint),
                activation=run.activation,
                mixture={"text": 1.0},
                context_length=context_length,
                stages=run.stages[: index + 1],
                total_steps=run.stages[-1].until,
                training=run.training,
            )
            train_stage(specification, tokens, tokenizer, previous, directory)
        previous = directory
    print(f"{previous}: trained; its ledger.csv has lambda, loss and sparsity; next: prosparse sparsity {previous}")


def sparsity(
    checkpoint: str, activations: list[Activation] | None, files: list[str], context_length: int, sequences: int
) -> None:
    """Print sparsity, by layer too, and the loss under each activation (default: the checkpoint's own)."""
    rows = spread(_packed(files, checkpoint, context_length), sequences)
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
    """Train predictors of each kind into ``output/{kind}``, with the paper's recipe; a stopped training goes on."""
    settings = Predictors.model_validate({"kinds": kinds, "rank": rank, "tokens": tokens})
    folder = output / "tokens"
    if not folder.exists():
        _packed(files, checkpoint, context_length).save_to_disk(folder / "text" / "train")
    chosen = activation or own_activation(configuration(checkpoint))
    specification = PredictorSpecification(activation=chosen, settings=settings, mixture={"text": 1.0}, seed=0)
    train_predictors(Path(checkpoint), specification, folder, output)
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
    """Print a continuation as it is generated, then its speed."""
    tokenizer = open_tokenizer(checkpoint)
    model: Any = load(checkpoint, activation, dtype=getattr(torch, dtype))
    decoder = prepare(model, load_predictors(predictors) if predictors is not None else None, decision_threshold)
    decoder.mode = mode if mode in decoder.modes or mode == "predicted" else "dense"
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    print(prompt, end="", flush=True)
    started = time.perf_counter()
    clock = _FirstToken(tokenizer, skip_prompt=True)
    chosen = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    generated = model.generate(
        **inputs, **chosen, past_key_values=cache(model), max_new_tokens=new_tokens, streamer=clock,
        pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    tokens, finished = generated.shape[1] - inputs["input_ids"].shape[1], time.perf_counter()
    speed = (tokens - 1) / (finished - clock.first) if tokens > 1 else math.nan
    print(
        f"{tokens} tokens, {decoder.mode}: {speed:.2f} tokens/s after the first, "
        f"which took {1000 * (clock.first - started):.0f} ms",
        file=sys.stderr,
    )


class _FirstToken(TextStreamer):
    """Prints the text, and notes when its first token was there."""

    first = math.nan

    def put(self, value: torch.Tensor) -> None:
        if not self.next_tokens_are_prompt and math.isnan(self.first):
            self.first = time.perf_counter()
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
    if engine != "llama.cpp" and dtype not in (None, "float16"):
        raise ConfigError(f"--dtype {dtype}: PowerInfer's sparse operators take float16 only")
    model = load(checkpoint, activation, dtype="auto")
    tokenizer = open_tokenizer(checkpoint)
    if engine == "llama.cpp":
        rounded = export_llama_cpp(model, tokenizer, output, getattr(torch, dtype) if dtype else model.dtype)
    elif predictors is None:
        raise ConfigError("PowerInfer needs --predictors: `prosparse predictors` trains them")
    else:
        rounded = export_powerinfer(model, load_predictors(predictors), decision_threshold, tokenizer, output)
    lossless = "every value as it was saved" if rounded == 0 else f"{100 * rounded:.2g} % of the values rounded"
    print(f"{output}: {checkpoint} for {engine}, {lossless}")


def _packed(files: list[str], checkpoint: str, context_length: int) -> datasets.Dataset:
    corpus = Corpus(stands_for="pile", kind="language_modelling", source=FileSource(files=files))
    texts = [clean(text, prose=False) for text in sources.read("text", corpus)]
    rows = pack(datasets.Dataset.from_dict({"text": texts}), open_tokenizer(checkpoint), context_length)
    if not len(rows):
        raise ConfigError(
            f"the text fills no sequence of {context_length} tokens: give more, or a smaller context length"
        )
    return rows
