"""Tokens per second in every decoding mode, next to what memory bandwidth allows.

The paper's protocol: batch 1, five-token prompts, greedy, with the time to first token reported separately. The modes
take turns every few tokens, each continuing its own text. Between turns we only read the model's weights, to measure
bandwidth. A change in the machine's speed thus affects all modes alike, and every ratio compares neighbours in time.
"""

from __future__ import annotations

import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from prosparse.data.mixture import load_heldout
from prosparse.experiment.specifications import DecodingSpecification, SyntheticModel, TrainedModel
from prosparse.inference import export, predictors
from prosparse.inference.attention import cache
from prosparse.inference.decoding import Decoder, dense_bytes, prepare, weight_bytes
from prosparse.inference.predictors import Predictor
from prosparse.inference.sparse_ffn import DecodingFFN, StreamingLinear
from prosparse.inference.synthetic import Target, synthetic
from prosparse.measure import engines
from prosparse.measure.quartiles import quartiles
from prosparse.models.load import load
from prosparse.operators import MAX_BATCH, linear
from prosparse.system.errors import UserError

PROMPT_TOKENS = 5  # the paper's prompts have five words
TURN = 16  # tokens that a mode generates per turn; the first is not timed


class _Clock(BaseStreamer):
    """Records when ``generate`` emits each token."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def put(self, value: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


class _Text:
    """The text that one mode generates from one prompt, one turn at a time."""

    def __init__(self, model: PreTrainedModel, prompt: Sequence[int]) -> None:
        self.ids = torch.tensor([list(prompt)])
        self.cache = cache(model)
        self.first_token = 0.0  # seconds
        self.turns: list[float] = []  # seconds per token, one value per turn

    def take_turn(self, model: PreTrainedModel, new_tokens: int) -> float:
        """Generate, and return the median seconds per token without the turn's first."""
        clock = _Clock()
        generator: Any = model
        self.ids = generator.generate(
            self.ids, attention_mask=torch.ones_like(self.ids), past_key_values=self.cache, streamer=clock,
            max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False, pad_token_id=0,
        )  # fmt: skip
        started, _, *tokens = clock.times  # the first call passes the prompt
        if not self.turns:
            self.first_token = tokens[0] - started
        self.turns.append((tokens[-1] - tokens[0]) / (len(tokens) - 1))
        return self.turns[-1]


def _streams(modules: nn.Module) -> list[Tensor]:
    """The weights that a dense token reads, as matrices."""
    found = []
    for module in modules.modules():
        if isinstance(module, DecodingFFN):
            found += [module.gate_weight, module.neurons.flatten(1)]
        elif isinstance(module, (StreamingLinear, nn.Linear)):
            found.append(module.weight)
    return found


def _bandwidth(weights: Sequence[Tensor]) -> float:
    """Bytes/s when reading the weights one after the other."""
    rows = {len(weight): torch.arange(len(weight)) for weight in weights}
    started = time.perf_counter()
    for weight in weights:
        torch.ops.prosparse.read_rows(weight, rows[len(weight)])
    return sum(weight.numel() * weight.element_size() for weight in weights) / (time.perf_counter() - started)


class _Arm:
    """One way to decode: the times of its texts, and the bandwidth measured in the same turns."""

    def __init__(self, begin: Callable[[], None]) -> None:
        self.begin = begin
        self.seconds: list[float] = []  # seconds per token, one value per turn
        self.first_tokens: list[float] = []
        self.rates: list[float] = []  # tokens per second of each text
        self.texts: list[list[int]] = []
        self.bandwidths: list[float] = []  # bytes/s in each turn


def _decode(
    model: PreTrainedModel, arms: dict[str, _Arm], prompts: Sequence[Sequence[int]], new_tokens: int, label: str
) -> None:
    order, weights = random.Random(0), _streams(model)
    for arm in arms.values():  # warm-up
        arm.begin()
        _Text(model, prompts[0]).take_turn(model, 3)
    for number, prompt in enumerate(prompts):
        texts = {name: _Text(model, prompt) for name in arms}
        while (done := len(next(iter(texts.values())).ids[0]) - len(prompt)) < new_tokens:
            bandwidth = _bandwidth(weights)
            for name, arm in order.sample(list(arms.items()), len(arms)):
                arm.begin()
                arm.seconds.append(texts[name].take_turn(model, min(TURN, new_tokens - done)))
                arm.bandwidths.append(bandwidth)
        for name, arm in arms.items():
            arm.first_tokens.append(texts[name].first_token)
            arm.rates.append(1 / statistics.fmean(texts[name].turns))
            arm.texts.append(texts[name].ids[0, len(prompt) :].tolist())
        rates = ", ".join(f"{name} {statistics.median(arm.rates):.2f}" for name, arm in arms.items())
        print(f"{label}: {number + 1} of {len(prompts)} prompts, tokens/s: {rates}", flush=True)


@contextmanager
def _nothing_read(model: nn.Module) -> Iterator[None]:
    """Skip the operators that read weights, so that a token's time is all the rest."""
    changed = [module for module in model.modules() if isinstance(module, (StreamingLinear, DecodingFFN))]
    for module in changed:
        features = module.out_features if isinstance(module, StreamingLinear) else module.neurons.shape[2]
        module.forward = lambda x, features=features: x.new_zeros(*x.shape[:-1], features)  # type: ignore[method-assign, misc]
    try:
        yield
    finally:
        for module in changed:
            del module.forward


# ------------------------------------------------------------------------------ what is active


def _share(chosen: Tensor) -> float:
    """Share of active elements per row, summed over the rows."""
    return float(chosen.count_nonzero()) / chosen.shape[1]


class _Counter:
    """Counts shares of active and predicted neurons over the tokens that a decoder reads."""

    def __init__(self, decoder: Decoder) -> None:
        self.ffns = decoder.ffns
        # per layer: active, predicted, both, non-zero hidden neurons of the predictor; and the number of tokens
        self.totals = torch.zeros(len(self.ffns), 5, dtype=torch.float64)

    @contextmanager
    def counting(self) -> Iterator[None]:
        hooks = [ffn.register_forward_pre_hook(self._hook(layer)) for layer, ffn in enumerate(self.ffns)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            ffn = self.ffns[layer]
            rows = inputs[0].reshape(-1, inputs[0].shape[-1])
            active = ffn.activation(linear(rows, ffn.gate_weight)) != 0
            counts = [_share(active), 0.0, 0.0, 0.0, len(rows)]
            if ffn.fc1_weight is not None:
                assert ffn.residual is not None
                residual = ffn.residual.reshape(rows.shape)
                hidden = torch.relu(linear(residual, ffn.fc1_weight)) != 0
                predicted = ffn.scores(residual) >= ffn.decision_threshold
                counts[1:4] = [_share(each) for each in (predicted, active & predicted, hidden)]
            self.totals[layer] += torch.tensor(counts, dtype=torch.float64)

        return count

    def shares(self) -> Tensor:
        """[layers, 4]: active, predicted, both, hidden."""
        return self.totals[:, :4] / self.totals[:, 4:]


def _count(decoder: Decoder, texts: Sequence[Sequence[int]]) -> Tensor:
    """Shares over the tokens of some texts, as decoding reads each."""
    counter = _Counter(decoder)
    decoder.mode = decoder.modes[min(1, len(decoder.modes) - 1)]
    with torch.inference_mode(), counter.counting():
        for text in texts:
            past = cache(decoder.model)
            for part in torch.tensor([list(text)]).split(MAX_BATCH, dim=1):
                decoder.model(input_ids=part, past_key_values=past, use_cache=True)
    return counter.shares()


def bytes_of_a_token(decoder: Decoder, mode: str, shares: Tensor, context: float) -> dict[str, int]:
    """Bytes that a token must read, by part.

    Args:
        shares: [layers, 4], from ``_count``.
        context: number of earlier tokens whose keys and values it reads.
    """
    ffns, config = decoder.ffns, decoder.model.config
    size = ffns[0].gate_weight.element_size()
    intermediate, _, hidden = ffns[0].neurons.shape
    row = hidden * size
    active, predicted, both, used = shares.sum(0).tolist()
    layers = len(ffns)
    read = {"dense": (layers, layers), "exact": (layers, active), "predicted": (predicted, both)}[mode]
    predictor = 0.0
    if mode == "predicted":
        fc1, fc2 = ffns[0].fc1_weight, ffns[0].fc2_weight_transposed
        assert fc1 is not None
        predictor = size * (layers * fc1.numel() + used * fc2.numel())
    heads = config.num_key_value_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    parts = {
        **dense_bytes(decoder),
        "gate": round(read[0] * intermediate * row),
        "active_rows": round(2 * read[1] * intermediate * row),
        "predictor": round(predictor),
        "kv_cache": round(2 * layers * heads * size * context),
    }
    return {**parts, "all": sum(parts.values())}


# ----------------------------------------------------------------------------------- one model


def measure(specification: DecodingSpecification) -> dict[str, Any]:
    """Measure every model in turn; ``paper/acceleration.py`` reads the result."""
    if not hasattr(torch.ops.prosparse, "read_rows"):
        raise UserError("decoding can be timed only where the native operators can be built: see the warning above")
    settings = specification.settings
    measured = [_measure(model, specification) for model in specification.models]
    return {
        "device": "cpu",  # even on machines with a GPU: the single-token operators are for CPUs
        "threads": torch.get_num_threads(),
        "dtype": settings.dtype,
        "prompts": settings.prompts,
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": settings.new_tokens,
        "models": measured,
    }


def _measure(described: TrainedModel | SyntheticModel, specification: DecodingSpecification) -> dict[str, Any]:
    settings = specification.settings
    dtype = getattr(torch, settings.dtype)
    label = described.pair if isinstance(described, TrainedModel) else f"{described.scale} shape as {described.row}"
    about: dict[str, Any] = {"row": described.row, "scale": described.scale}
    predicted: list[Predictor] | None
    if isinstance(described, TrainedModel):
        model = load(described.checkpoint, described.activation, dtype=dtype)
        predicted = predictors.load(described.predictors) if described.predictors is not None else None
        heldout = load_heldout(described.tokens)
        rows = [heldout[corpus][0, :PROMPT_TOKENS].tolist() for corpus in heldout]
        prompts = [rows[i % len(rows)] for i in range(settings.prompts)]
        about |= {"synthetic": False, "pair": described.pair}
    else:
        shape = described.shape
        target = Target(described.sparsity, described.activation_recall, described.predicted_sparsity)
        model, predicted = synthetic(shape, shape.vocabulary_size, shape.rank, target, dtype)
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
        files = {}
        if isinstance(described, SyntheticModel):
            files = _export(model, predicted or [], specification, Path(directory))
        ours = _ours(model, predicted, prompts, specification, label)
        del model, predicted
        gc.collect()
        others = _engines(files, prompts, specification) if isinstance(described, SyntheticModel) else {}
    return {**about, **ours, **({"engines": others} if others else {})}


def _ours(
    model: PreTrainedModel,
    predicted: list[Predictor] | None,
    prompts: list[list[int]],
    specification: DecodingSpecification,
    label: str,
) -> dict[str, Any]:
    new_tokens = specification.settings.new_tokens
    arms = {"torch": _Arm(lambda: None)}
    # torch's products need another weight layout, and memory holds only one: so measure them first, on fewer tokens
    _decode(model, arms, prompts[:2], min(new_tokens, 2 * TURN), label)
    decoder = prepare(model, predicted, specification.decision_threshold)

    def begin(mode: Any) -> Callable[[], None]:
        return lambda: setattr(decoder, "mode", mode)

    modes = {mode: _Arm(begin(mode)) for mode in decoder.modes}
    _decode(model, modes, prompts, new_tokens, label)
    overhead = _Arm(lambda: None)
    with _nothing_read(model):
        _decode(model, {"overhead": overhead}, prompts[:2], new_tokens, label)
    shares = _count(decoder, [[*prompt, *text] for prompt, text in zip(prompts, modes["dense"].texts, strict=True)])
    context = len(prompts[0]) + new_tokens / 2
    read = {mode: bytes_of_a_token(decoder, mode, shares, context) for mode in modes}
    read["torch"] = read["dense"]
    arms |= modes
    active, predicted_share, both, _ = shares.T
    found: dict[str, Any] = {
        "weight_bytes": weight_bytes(decoder),
        "sparsity": float((1 - active).mean()),
        "bandwidth": quartiles([value / 1e9 for value in modes["dense"].bandwidths]),
        "modes": {
            name: _mode(arm, modes["dense"] if name in modes else None, read[name], overhead)
            for name, arm in arms.items()
        },
        "same_tokens_as_dense": {
            name: _share_equal(arm.texts, modes["dense"].texts) for name, arm in modes.items() if name != "dense"
        },
    }
    if predicted is not None:
        found["activation_recall"] = float((both / active).mean())
        found["predicted_sparsity"] = float((1 - predicted_share).mean())
    return found


def _mode(arm: _Arm, dense: _Arm | None, read: dict[str, int], overhead: _Arm) -> dict[str, Any]:
    bounds = [read["all"] / bandwidth for bandwidth in arm.bandwidths]
    found = {
        "tokens_per_second": quartiles(arm.rates),
        "milliseconds_per_token": quartiles([1000 * seconds for seconds in arm.seconds]),
        "first_token_milliseconds": quartiles([1000 * seconds for seconds in arm.first_tokens]),
        "bytes": read,
        "bound_milliseconds": quartiles([1000 * bound for bound in bounds]),
        "share_of_bound": quartiles([b / s for b, s in zip(bounds, arm.seconds, strict=True)]),
    }
    if dense is not None:
        ratios = [d / s for d, s in zip(dense.seconds, arm.seconds, strict=True)]
        found["times_faster_than_dense"] = quartiles(ratios)
        found["overhead_milliseconds"] = 1000 * statistics.median(overhead.seconds)
    return found


def _share_equal(texts: list[list[int]], others: list[list[int]]) -> float:
    pairs = [pair for text, other in zip(texts, others, strict=True) for pair in zip(text, other, strict=True)]
    return statistics.fmean(a == b for a, b in pairs)


# ------------------------------------------------------------------------------- other engines


def _export(
    model: PreTrainedModel, predicted: list[Predictor], specification: DecodingSpecification, directory: Path
) -> dict[str, Path]:
    wanted, files = specification.settings.engines, {}
    if wanted.llama_cpp:
        files["llama.cpp"] = directory / "llama.gguf"
        dtype = getattr(torch, specification.settings.dtype)
        # llama.cpp computes SiLU instead, which reads as many weights
        export.export_llama_cpp(model, None, files["llama.cpp"], dtype, activation_ignored=True)
    if wanted.powerinfer is not None:
        files["powerinfer"] = directory / "powerinfer.gguf"
        export.export_powerinfer(model, predicted, specification.decision_threshold, None, files["powerinfer"])
    return files


def _engines(files: dict[str, Path], prompts: list[list[int]], specification: DecodingSpecification) -> dict[str, Any]:
    new_tokens, threads = specification.settings.new_tokens, torch.get_num_threads()

    def powerinfer(path: Path) -> dict[str, Any]:
        if specification.powerinfer is None:
            raise engines.EngineMissing("PowerInfer has not been built")
        return engines.powerinfer(specification.powerinfer, path, prompts, new_tokens, threads)

    runs = {
        "llama.cpp": lambda path: engines.llama_cpp(path, prompts, new_tokens, threads),
        "powerinfer": powerinfer,
    }
    found: dict[str, Any] = {}
    for name, run in runs.items():
        if name not in files:
            found[name] = {"missing": "switched off in decoding.engines"}
            continue
        try:
            result = run(files[name])
            del result["tokens"]
            found[name] = result
        except UserError as error:
            found[name] = {"missing": str(error)}
        files[name].unlink()  # before reading the next engine's file: small memories cannot hold both
        print(f"{name}: {found[name].get('tokens_per_second') or found[name]['missing']}", flush=True)
    return found
