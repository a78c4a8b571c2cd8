"""``acceleration.md``: what the paper's 4.52 times is made of, by the bytes that a token reads, and what ours is."""

from __future__ import annotations

from pathlib import Path

from prosparse.config import Experiment
from prosparse.files import write_text
from prosparse.paper import acceleration, published
from prosparse.paper.acceleration import ENGINES, MODES, Arm, Decoding, Model
from prosparse.paper.acceleration_claim import papers_largest
from prosparse.paper.memory_traffic import BYTES, LLAMA2, Shape
from prosparse.paper.operators import Setting, settings
from prosparse.paper.results import Needs, Results
from prosparse.paper.table import markdown_table

FILE = "acceleration.md"


def inputs(experiment: Experiment) -> Needs:
    """What must be measured before the page can be written."""
    return acceleration.decoding_needs(experiment)


def write(experiment: Experiment, directory: str | Path) -> Path:
    """Writes ``directory/acceleration.md``.

    Raises:
        MissingResult: a measurement it needs does not exist; names the file.
    """
    path = Path(directory) / FILE
    write_text(path, render(Results(directory, experiment)))
    return path


def render(results: Results) -> str:
    lines = [f"### Why {papers_largest().printed['speedup_to_dense']} times is not what sparsity alone gives", ""]
    lines += [*_question(), "", *_a_token(), "", *_bounds(), "", *_attribution(), "", *_ours(results)]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- arithmetic on what is printed


def speed(setting: Setting) -> float | None:
    """Tokens/s as printed; None where the paper prints none."""
    text = setting.printed["inference_speed_tokens_per_s"]
    return float(text) if text else None


def dense_of(scale: str) -> Setting:
    return next(setting for setting in settings() if setting.scale == scale and setting.is_dense)


def speedup(setting: Setting) -> float | None:
    """Over the dense row of its scale, from the speeds; the paper prints some over another row."""
    ours, base = speed(setting), speed(dense_of(setting.scale))
    return None if ours is None or base is None else ours / base


def predicted_active(setting: Setting) -> float:
    return 1 - float(setting.printed["predicted_sparsity"]) / 100


def active_and_predicted(setting: Setting) -> float:
    """Share of elements that are active and predicted so; no more than are predicted active."""
    recalled = setting.density * float(setting.printed["activation_recall"]) / 100
    return min(recalled, predicted_active(setting))


def weights_read(setting: Setting) -> float:
    """Of a token: all, or with PowerInfer's predictors the predicted-active rows of all three projections."""
    shape = LLAMA2[setting.scale]
    return shape.dense if setting.is_dense else shape.predicted(predicted_active(setting))


def gigabytes(weights: float) -> float:
    return BYTES * weights / 1e9


def implied_bandwidth(setting: Setting) -> float | None:
    """GB/s if one memory gave a token all that it reads."""
    rate = speed(setting)
    return None if rate is None else gigabytes(weights_read(setting)) * rate


def share_from_elsewhere(setting: Setting) -> float:
    """The least share of a token's bytes that the memory of the dense row cannot have given in the token's time."""
    rate, bandwidth = speed(setting), implied_bandwidth(dense_of(setting.scale))
    assert rate is not None
    assert bandwidth is not None
    return 1 - bandwidth / rate / gigabytes(weights_read(setting))


def bound(setting: Setting) -> float:
    """Times dense that predicted decoding could reach in one memory."""
    return LLAMA2[setting.scale].dense / weights_read(setting)


def exact_bound(setting: Setting) -> float:
    """Times dense that the whole gate and the active rows of the others could reach in one memory."""
    shape = LLAMA2[setting.scale]
    return shape.dense / shape.exact(setting.density)


def largest(scale: str) -> Setting:
    """The row whose speedup over dense is the largest that the paper prints at a scale."""
    printed = [setting for setting in settings() if setting.scale == scale and setting.printed.get("speedup_to_dense")]
    return max(printed, key=lambda setting: float(setting.printed["speedup_to_dense"]))


# ------------------------------------------------------------------------------------ the page


def _name(setting: Setting) -> str:
    return setting.name.replace("*", "\\*")


def _headline(setting: Setting) -> str:
    return (
        f"{_name(setting)} {setting.printed['inference_speed_tokens_per_s']} tokens/s against "
        f"{dense_of(setting.scale).printed['inference_speed_tokens_per_s']} of its dense model "
        f"({setting.printed['speedup_to_dense']} times)"
    )


def _question() -> list[str]:
    headlines = " and ".join(_headline(largest(scale)) for scale in LLAMA2)
    bounds = " and ".join(f"{bound(largest(scale)):.2f}" for scale in LLAMA2)
    return [
        f"The paper prints {headlines}. With one sequence, decoding a token reads every weight that it uses once, so "
        "the bytes read, over the rate of the memory, bound the speed. Counting them says that on equal terms this "
        f"sparsity could gain at most about {bounds} times. The rest must come from something else.",
    ]


def _a_token() -> list[str]:
    header = [
        "Model",
        "Attention",
        "FFN",
        "Output head",
        "All (GB)",
        "Predictors",
        "Paper: tokens/s, dense",
        "So, GB/s",
    ]
    rows = []
    for scale, shape in LLAMA2.items():
        dense = dense_of(scale)
        parts = [gigabytes(part) for part in (shape.attention, shape.ffn, shape.head, shape.dense, shape.predictor)]
        printed = dense.printed["inference_speed_tokens_per_s"]
        rows.append([_shape(scale, shape), *(f"{part:.2f}" for part in parts), printed, f"{_implied(dense):.1f}"])
    return [
        "**What a dense token reads**, GB of 2-byte weights:",
        "",
        *markdown_table(header, rows, numbers=7),
        "",
        f"Shapes: LLaMA2's; predictors: the paper's, rank {LLAMA2['7B'].rank} in every layer. Left out: norms, one row "
        f"of the embedding, and the keys and values of 133 tokens ({_cache_share():.1%} at most).",
    ]


def _shape(scale: str, shape: Shape) -> str:
    return f"{scale}: d_model {shape.hidden_size}, d_ff {shape.intermediate_size}, {shape.layers} layers"


def _cache_share() -> float:
    """Keys and values of a whole short generation beside the weights."""
    return max(2 * shape.layers * shape.hidden_size * 133 / shape.dense for shape in LLAMA2.values())


def _implied(setting: Setting) -> float:
    found = implied_bandwidth(setting)
    assert found is not None
    return found


def _bounds() -> list[str]:
    header = [
        "Row", "Sparsity (%)", "Predicted sparsity (%)", "Paper: tokens/s", "Paper: times dense",
        "Bytes allow: predicted", "Bytes allow: exact", "Bytes allow: FFN for nothing", "Paper: GB/s, if one memory",
    ]  # fmt: skip
    rows = []
    for setting in settings():
        if setting.is_dense:
            continue
        shape, times, rate = LLAMA2[setting.scale], speedup(setting), implied_bandwidth(setting)
        rows.append(
            [
                _name(setting),
                setting.printed["average_sparsity"],
                setting.printed["predicted_sparsity"],
                setting.printed["inference_speed_tokens_per_s"] or "–",
                "–" if times is None else f"{times:.2f}",
                f"{bound(setting):.2f}",
                f"{exact_bound(setting):.2f}",
                f"{shape.dense / shape.without_ffn:.2f}",
                "–" if rate is None else f"{rate:.0f}",
            ]
        )
    also = " and ".join(f"{_skipping(largest(scale)):.2f}" for scale in LLAMA2)
    return [
        "**What sparsity can save**, in times dense:",
        "",
        *markdown_table(header, rows, numbers=8),
        "",
        "Paper: times dense is the ratio of its speeds, also where it prints none. Predicted: attention, output head, "
        "predictors, and the predicted-active rows of all three FFN projections (if "
        f"the down projection also skips what turns out to be zero, {also} for the two rows above). Exact: no "
        "predictors, the whole gate, and the active rows of the other two. FFN for nothing: attention and output head "
        "alone, which no sparsity of the FFN can pass.",
    ]


def _skipping(setting: Setting) -> float:
    """``bound`` where the down projection reads only rows that are active and predicted so."""
    shape = LLAMA2[setting.scale]
    return shape.dense / shape.predicted(predicted_active(setting), active_and_predicted(setting))


def _attribution() -> list[str]:
    rates = [_implied(dense_of(scale)) for scale in LLAMA2]
    sparse = [rate for setting in settings() if not setting.is_dense and (rate := implied_bandwidth(setting))]
    first = largest("7B")
    rate, fits = speed(first), gigabytes(weights_read(first)) * (1 - share_from_elsewhere(first))
    assert rate is not None
    free = " and ".join(f"{shape.dense / shape.without_ffn:.2f}" for shape in LLAMA2.values())
    above = ", ".join(
        f"{_name(row)} {row.printed['speedup_to_dense']}"
        for row in settings()
        if float(row.printed.get("speedup_to_dense") or 0) > LLAMA2[row.scale].dense / LLAMA2[row.scale].without_ffn
    )
    factors = "; ".join(
        f"{row.printed['speedup_to_dense']} = {bound(row):.2f} (fewer bytes) × "
        f"{float(row.printed['speedup_to_dense']) / bound(row):.2f} (a faster memory for part of them)"
        for row in map(largest, LLAMA2)
    )
    elsewhere = {(row["model"], row["where"].partition(" (")[0]): row for row in published.rows("powerinfer_elsewhere")}
    bamboo = "; ".join(f"{where} {row['speedup']}" for (model, where), row in elsewhere.items() if model == "Bamboo-7B")
    relu = next(setting for setting in settings() if setting.name == "ReluLLaMA-7B")
    without = LLAMA2["7B"].dense / (weights_read(relu) - LLAMA2["7B"].predictor)
    return [
        "**What the rest is.**",
        "",
        f"- The speedups are above what an FFN that costs nothing gives ({free}; printed: {above}). So the dense and "
        "the sparse rows did not read from the same memory at the same rate.",
        f"- Both dense rows read {min(rates):.0f} to {max(rates):.0f} GB/s: the rate of a CPU's memory, at either "
        "size, as if all the weights lay there, in 2 bytes each. The sparse rows, had they one memory, would read "
        f"{min(sparse):.0f} to {max(sparse):.0f} GB/s. In the {1e3 / rate:.0f} ms of a token of {_name(first)} the "
        f"dense row's memory gives {fits:.1f} of its {gigabytes(weights_read(first)):.1f} GB: at least "
        f"{share_from_elsewhere(first):.0%} came from a faster one. PowerInfer keeps the neurons that are often active "
        f"in GPU memory, and the authors' machine had an A100. Then {factors}.",
        f"- PowerInfer elsewhere, over llama.cpp on the same hardware. Bamboo-7B: {bamboo}. Where both sides have one "
        "kind of memory the speedup is of the size that bytes allow; with weights in two it is of the size that the "
        f"paper prints. ReluLLaMA-7B, CPU alone, as reported: {elsewhere['ReluLLaMA-7B', 'CPU alone']['speedup']} "
        f"(bytes allow {bound(relu):.2f} with the paper's predictors, {without:.2f} with predictors that are free).",
        "- Not known: the CPU, the GPU memory that PowerInfer was given, whether the dense rows used the GPU at all, "
        "and the precision. That the faster memory is the GPU's is an inference from these numbers, no measurement.",
    ]


# ------------------------------------------------------------------------------------ our part


def _ours(results: Results) -> list[str]:
    head = "**Ours, in one memory.**"
    reason = acceleration.missing_decoding(results.experiment)
    if reason is not None:
        return [f"{head} Missing: {reason}."]
    decodings = acceleration.every_decoding(results)
    shown = [model for decoding in decodings for model in decoding.models if _is_shown(model)]
    shown.sort(key=lambda model: model.shape is None)  # the paper's shapes first
    if not shown:
        return [f"{head} Missing: no model with a sparse activation was timed."]
    header = ["Model", "Way", "Tokens/s", "Read a token (MB)", "Bytes allow, times dense", "Times ours, dense",
              "Times transformers", "Share of bound (%)"]  # fmt: skip
    rows = []
    for model in shown:
        ways = [(MODES[name], arm) for name, arm in model.modes.items()]
        ways += [(ENGINES.get(name, name), arm) for name, arm in model.engines.items()]
        rows += [_way(model, way, arm, is_first=index == 0) for index, (way, arm) in enumerate(ways)]
    return [
        f"{head} Everything on one device, the same kernels with and without sparsity:",
        "",
        *markdown_table(header, rows, numbers=6),
        "",
        *(f"- {sentence}" for sentence in _findings(shown, decodings)),
    ]


def _label(model: Model) -> str:
    return model.label.replace("*", "\\*")


def _is_shown(model: Model) -> bool:
    """Sparse models of the paper's shapes, and of the trained ones the final rows."""
    finals = {final for _, _, final in published.SCALES.values()}
    return {"dense", "exact"} <= set(model.modes) and (model.shape is not None or model.row in finals)


def _way(model: Model, way: str, arm: Arm, is_first: bool) -> list[str]:
    name = f"{_label(model)} ({model.size})" if is_first else ""
    if arm.missing is not None:
        return [name, way, "missing", *["–"] * 5]
    allowed, share = model.bytes_allow(arm.name), arm.spread("share_of_bound")
    over = arm.speedup.median if arm.speedup is not None else model.over(arm, "dense")
    torch = model.over(arm, "torch")
    return [
        name,
        way,
        f"{arm.tokens_per_second.median:,.2f}",
        "–" if arm.bytes is None else f"{arm.bytes / 1e6:,.1f}",
        "–" if allowed is None else f"{allowed:.2f}",
        "–" if over is None else f"{over:.2f}",
        "–" if torch is None else f"{torch:.2f}",
        "–" if share is None else f"{100 * share.median:.0f}",
    ]


def _findings(shown: list[Model], decodings: list[Decoding]) -> list[str]:
    sentences = []
    fastest = acceleration.best(shown, _predicted_speedup)
    if fastest is not None:
        reached, base = _predicted_speedup(fastest) or 0.0, fastest.over(fastest.modes["predicted"], "torch")
        words = f"The largest speedup under prediction is {reached:.2f} times ({_label(fastest)})"
        allowed = fastest.bytes_allow("predicted")
        if allowed is not None:
            words += f", where bytes allow {allowed:.2f}"
        printed = papers_largest().printed["speedup_to_dense"]
        words += f"; the paper's {printed} is {float(printed) / reached:.1f} times that."
        if base is not None:
            words += (
                f" A slower baseline makes it look larger: over transformers' dense decoding of the same weights it is "
                f"{base:.2f} times."
            )
        sentences.append(words)
    else:
        sentences.append("Missing: decoding under prediction was not timed.")
    gains = [arm.speedup.median for model in shown if (arm := model.modes["exact"]).speedup is not None]
    if gains:
        same = [model.raw.get("same_tokens_as_dense", {}).get("exact") == 1 for model in shown]
        kept = "the tokens are dense decoding's" if all(same) else f"{sum(same)} of {len(same)} keep all tokens"
        span = " to ".join(dict.fromkeys(f"{gain:.2f}" for gain in (min(gains), max(gains))))
        sentences.append(f"Exact decoding gains {span} times without any predictor; {kept}.")
    far = [model for model in shown if (share := model.modes["dense"].spread("share_of_bound")) and share.median < 0.5]
    if far:
        names = ", ".join(_label(model) for model in far)
        sentences.append(
            f"Dense decoding of {names} reaches less than half of its bound: there it is not bytes that decide, but "
            "what a token costs whatever it reads."
        )
    gone = {
        f"{ENGINES.get(name, name).partition(',')[0]}: {arm.missing.rstrip('.')}"
        for model in shown
        for name, arm in model.engines.items()
        if arm.missing is not None
    }
    sentences += [f"Missing: {reason}." for reason in sorted(gone)]
    conditions = dict.fromkeys(decoding.conditions for decoding in decodings)
    return [*sentences, *(f"Measured on: {words}." for words in conditions)]


def _predicted_speedup(model: Model) -> float | None:
    arm = model.modes.get("predicted")
    return None if arm is None or arm.speedup is None else arm.speedup.median
