"""Tokens per second in every decoding mode, next to what memory bandwidth allows.

The paper's protocol: batch 1, five-token prompts, greedy, with the time to first token reported separately. The modes
take turns every few tokens, each continuing its own text, and llama.cpp with them where memory holds its copy of the
weights too. Between turns we only read memory, to measure bandwidth. A change in the machine's speed thus affects all
alike, and every ratio compares neighbors in time.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import PreTrainedModel

from prosparse.data.mixture import load_rows
from prosparse.experiment.timings import DecodingSpecification, SyntheticModel, TrainedModel
from prosparse.inference import export, predictors
from prosparse.inference.decoding import check_blocks, prepare, weight_bytes
from prosparse.inference.predictors import Predictor
from prosparse.inference.sparse_ffn import Rounding
from prosparse.inference.synthetic import Target, synthetic
from prosparse.measure import bandwidth, powerinfer
from prosparse.measure.decoding_bytes import bytes_of_a_token, count_shares
from prosparse.measure.decoding_turns import TURN, Arm, Decoded, Generated, decode, nothing_read
from prosparse.measure.llamacpp import LlamaCpp, LlamaCppText
from prosparse.measure.quartiles import quartiles
from prosparse.models.build import in_memory, on_disk
from prosparse.models.load import load
from prosparse.operators.quantized import FORMATS, Format, weight_dtype
from prosparse.system.errors import EngineMissing, UserError

PROMPT_TOKENS = 5  # the paper's prompts have five words
SPARE_BYTES = 1 << 30  # of memory, besides the weights that take turns


def measure(specification: DecodingSpecification) -> dict[str, Any]:
    """Measure every model in turn; ``paper/results/decoding.py`` reads the result."""
    settings = specification.settings
    probe = bandwidth.probe()
    measured = [_measure(model, specification) for model in specification.models]
    return {
        "memory_read": {"streams": probe.streams, "ahead": probe.ahead, "huge_pages": probe.huge_pages},
        "device": "cpu",  # even on machines with a GPU: the single-token operators are for CPUs
        "threads": torch.get_num_threads(),
        "prompts": settings.prompts,
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": settings.new_tokens,
        "models": measured,
    }


def _measure(described: TrainedModel | SyntheticModel, specification: DecodingSpecification) -> dict[str, Any]:
    settings, form = specification.settings, FORMATS.get(described.precision)
    dtype = torch.bfloat16 if form is not None else getattr(torch, described.precision)
    label = described.pair if isinstance(described, TrainedModel) else f"{described.scale} shape as {described.row}"
    label = f"{label}, {described.precision}"
    about: dict[str, Any] = {"row": described.row, "scale": described.scale, "precision": described.precision}
    predicted: list[Predictor] | None
    if isinstance(described, TrainedModel):
        model = load(described.checkpoint, described.activation, dtype=dtype)
        predicted = predictors.load(described.predictors) if described.predictors is not None else None
        heldout = load_rows(described.tokens)
        rows = [heldout[corpus][0, :PROMPT_TOKENS].tolist() for corpus in heldout]
        prompts = [rows[i % len(rows)] for i in range(settings.prompts)]
        about |= {"synthetic": False, "pair": described.pair}
    else:
        shape = described.shape
        target = Target(described.sparsity, described.activation_recall, described.predicted_sparsity)
        # what is rounded need never be in memory whole; what is not would be read from there more slowly
        place = in_memory if form is None else on_disk
        model, predicted = synthetic(shape, target, dtype, place=place)
        generator = torch.Generator().manual_seed(1)
        # skip the control tokens at the start and the single bytes at the end, which engines' tokenizers treat
        # specially
        drawn = torch.randint(3, shape.vocabulary_size - 32, (settings.prompts, PROMPT_TOKENS), generator=generator)
        prompts = drawn.tolist()
        about |= {"synthetic": True}
    config = model.config
    about["architecture"] = {
        "type": config.model_type,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "vocabulary_size": config.vocab_size,
        "rank": predicted[0].rank if predicted else None,
    }
    with tempfile.TemporaryDirectory(prefix="prosparse-engines-") as directory:
        files: dict[str, Path | UserError] = {}
        if isinstance(described, SyntheticModel):
            files = export_for_engines(model, predicted or [], specification, described.precision, Path(directory))
        if form is not None and predicted is not None:
            try:
                check_blocks(predicted)
            except UserError as error:
                print(f"{label}: {error}", flush=True)
                about["missing_modes"], predicted = {"predicted": str(error)}, None
        try:
            found = measure_modes(Model(label, model, predicted, form), prompts, specification, files)
        except UserError as error:
            if form is None:
                raise
            print(f"{label}: {error}", flush=True)
            found = {"missing": str(error), "modes": {}}  # a size that the format does not hold
        del model, predicted
        gc.collect()
        if isinstance(described, SyntheticModel):
            measure_engines(found, files, prompts, specification)
    return {**about, **found}


@dataclass
class Model:
    """A model to decode, the label of its progress, and the format that its weights are rounded to."""

    label: str
    model: PreTrainedModel
    predictors: list[Predictor] | None
    form: Format | Rounding | None


def measure_modes(
    given: Model,
    prompts: list[list[int]],
    specification: DecodingSpecification,
    files: dict[str, Path | UserError],
) -> dict[str, Any]:
    """Measure every mode of ours and, without a format, transformers' ``generate``.

    llama.cpp takes turns with our modes if its file is there and memory holds it too.
    """
    label, model, predicted, form = given.label, given.model, given.predictors, given.form
    new_tokens = specification.settings.new_tokens
    arms = {"torch": Arm(lambda prompt, new_tokens: Generated(model, prompt))} if form is None else {}
    if arms:
        # torch's products need another weight layout, and memory holds only one: so measure them first, on fewer tokens
        decode(arms, prompts[:2], min(new_tokens, 2 * TURN), label)
    decoder = prepare(model, predicted, specification.decision_threshold, form)

    def begin(mode: Any) -> Callable[[], None]:
        return lambda: setattr(decoder, "mode", mode)

    write = partial(Decoded, decoder)
    modes, engines = {mode: Arm(write, begin(mode)) for mode in decoder.modes}, dict[str, Arm]()
    with ExitStack() as stack:
        path = files.get("llama.cpp")
        if isinstance(path, Path) and psutil.virtual_memory().available > path.stat().st_size + SPARE_BYTES:
            try:
                engine = stack.enter_context(_opened(path, prompts, new_tokens))
                engines["llama.cpp"] = Arm(lambda prompt, _: LlamaCppText(engine, prompt))
            except UserError as error:
                files["llama.cpp"] = error
        decode(modes | engines, prompts, new_tokens, label)
    overhead = Arm(write)
    with nothing_read(decoder):
        decode({"overhead": overhead}, prompts[:2], new_tokens, label)
    texts = zip(prompts, modes["dense"].texts, strict=True)
    shares = count_shares(decoder, [[*prompt, *text] for prompt, text in texts])
    context = len(prompts[0]) + new_tokens / 2
    read = {mode: bytes_of_a_token(decoder, mode, shares, context) for mode in modes}
    arms |= modes
    active, open_gate, predicted_share, both, _, _ = shares.T
    rivals = {"dense": modes["dense"], **engines}
    found: dict[str, Any] = {
        "weight_bytes": weight_bytes(decoder),
        "sparsity": float((1 - active).mean()),
        "gate_sparsity": float((1 - open_gate).mean()),
        "bandwidth": quartiles([value / 1e9 for value in modes["dense"].bandwidths]),
        "modes": {
            name: _mode(arm, rivals, read[name], overhead) if name in modes else _mode(arm, {}, read["dense"])
            for name, arm in arms.items()
        },
        "engines": {
            name: {**engine.about(), **_mode(arm, {"dense": modes["dense"]}, read["dense"])}
            for name, arm in engines.items()
        },
        "same_tokens_as_dense": {
            name: _share_equal(arm.texts, modes["dense"].texts) for name, arm in arms.items() if name != "dense"
        },
    }
    if predicted is not None:
        found["activation_recall"] = float(torch.where(active > 0, both / active, 1).mean())
        found["predicted_sparsity"] = float((1 - predicted_share).mean())
    return found


def _opened(path: Path, prompts: list[list[int]], new_tokens: int) -> LlamaCpp:
    return LlamaCpp(path, max(map(len, prompts)) + new_tokens, torch.get_num_threads())


def _mode(arm: Arm, rivals: dict[str, Arm], read: dict[str, int], overhead: Arm | None = None) -> dict[str, Any]:
    bounds = [read["all"] / bandwidth for bandwidth in arm.bandwidths]
    found = {
        "tokens_per_second": quartiles(arm.rates),
        "milliseconds_per_token": quartiles([1000 * seconds for seconds in arm.seconds]),
        "first_token_milliseconds": quartiles([1000 * seconds for seconds in arm.first_tokens]),
        "bytes": read,
        "bound_milliseconds": quartiles([1000 * bound for bound in bounds]),
        "share_of_bound": quartiles([b / s for b, s in zip(bounds, arm.seconds, strict=True)]),
    }
    for name, rival in rivals.items():
        ratios = [theirs / own for theirs, own in zip(rival.seconds, arm.seconds, strict=True)]
        found[f"times_faster_than_{name}"] = quartiles(ratios)
    if overhead is not None:
        found["overhead_milliseconds"] = 1000 * statistics.median(overhead.seconds)
    return found


def _share_equal(texts: list[list[int]], others: list[list[int]]) -> float:
    """Compare the texts and tokens that both have: transformers wrote fewer."""
    pairs = [pair for text, other in zip(texts, others, strict=False) for pair in zip(text, other, strict=False)]
    return statistics.fmean(a == b for a, b in pairs)


def export_for_engines(
    model: PreTrainedModel,
    predicted: list[Predictor],
    specification: DecodingSpecification,
    precision: str,
    directory: Path,
) -> dict[str, Path | UserError]:
    """Write the wanted engines' files of a model that has not been prepared, or say why an engine cannot have one."""
    wanted, writers = specification.settings.engines, dict[str, Callable[[Path], float]]()
    if wanted.llama_cpp:
        # llama.cpp computes SiLU instead, which reads as many weights
        writers["llama.cpp"] = lambda path: export.export_llama_cpp(
            model, None, path, weight_dtype(precision), activation_ignored=True
        )
    if wanted.powerinfer is not None:
        dtype = weight_dtype(precision if precision in FORMATS else "float16")  # it knows no other 16 bits
        writers["powerinfer"] = lambda path: export.export_powerinfer(
            model, predicted, specification.decision_threshold, None, path, dtype
        )
    files: dict[str, Path | UserError] = {}
    for name, write in writers.items():
        files[name] = path = directory / f"{name}.gguf"
        try:
            write(path)
        except UserError as error:
            files[name] = error
    return files


def measure_engines(
    found: dict[str, Any],
    files: dict[str, Path | UserError],
    prompts: list[list[int]],
    specification: DecodingSpecification,
) -> None:
    """Measure the engines whose files there are and that took no turns; add them to ``found``, or why they are missing.

    Deletes the files.
    """
    new_tokens, threads = specification.settings.new_tokens, torch.get_num_threads()
    timed = found.setdefault("engines", {})

    def run_llama_cpp(path: Path) -> dict[str, Any]:
        if "missing" in found:
            raise UserError(found["missing"])
        with _opened(path, prompts, new_tokens) as engine:
            arm = Arm(lambda prompt, _: LlamaCppText(engine, prompt))
            decode({"llama.cpp": arm}, prompts, new_tokens, "llama.cpp")
            return {**engine.about(), **_mode(arm, {}, found["modes"]["dense"]["bytes"])}

    def run_powerinfer(path: Path) -> dict[str, Any]:
        if specification.powerinfer is None:
            raise EngineMissing("PowerInfer has not been built")
        result = powerinfer.powerinfer(specification.powerinfer, path, prompts, new_tokens, threads)
        del result["tokens"]
        return result

    for name, run in {"llama.cpp": run_llama_cpp, "powerinfer": run_powerinfer}.items():
        file = files.get(name, UserError("switched off in decoding.engines"))
        if isinstance(file, UserError):
            timed[name] = {"missing": str(file)}
            continue
        if name not in timed:
            try:
                timed[name] = run(file)
            except UserError as error:
                timed[name] = {"missing": str(error)}
        file.unlink()  # before reading the next engine's file: small memories cannot hold both
        print(f"{name}: {timed[name].get('tokens_per_second') or timed[name]['missing']}", flush=True)
