"""The paper's part of ``acceleration.md``: what makes up its speedups."""

from __future__ import annotations

from prosparse.paper.acceleration.bounds import (
    active_and_predicted,
    bound,
    dense_of,
    exact_bound,
    gigabytes,
    implied_bandwidth,
    largest,
    predicted_active,
    shapes,
    share_from_elsewhere,
    speed,
    speedup,
    weights_read,
)
from prosparse.paper.markdown import markdown_table
from prosparse.published.settings import Setting, settings
from prosparse.published.shapes import PREDICTOR_RANK, DecoderShape
from prosparse.published.tables import published_table


def name_of(setting: Setting) -> str:
    return setting.name.replace("*", "\\*")


def _headline(setting: Setting) -> str:
    return (
        f"{setting.printed['inference_speed_tokens_per_s']} tokens/s for {name_of(setting)} against "
        f"{dense_of(setting.scale).printed['inference_speed_tokens_per_s']} for its dense model "
        f"({setting.printed['speedup_to_dense']}×)"
    )


def question() -> list[str]:
    headlines = " and ".join(_headline(largest(scale)) for scale in shapes())
    bounds = " and ".join(f"{bound(largest(scale)):.2f}" for scale in shapes())
    return [
        f"The paper reports {headlines}. At batch size 1, decoding a token reads every weight that it uses once, so "
        "the bytes read and the memory bandwidth bound the speed. By this count, on equal hardware, this sparsity "
        f"could gain at most about {bounds}×. The rest must come from something else.",
    ]


def dense_token() -> list[str]:
    header = [
        "Model",
        "Attention",
        "FFN",
        "Output head",
        "All (GB)",
        "Predictors",
        "Paper: tokens/s, dense",
        "Implied GB/s",
    ]
    rows = []
    for scale, shape in shapes().items():
        dense = dense_of(scale)
        parts = [
            gigabytes(part)
            for part in (
                shape.attention,
                shape.ffn,
                shape.head or 0,
                shape.dense_read,
                shape.predictors(PREDICTOR_RANK),
            )
        ]
        printed = dense.printed["inference_speed_tokens_per_s"]
        rows.append([_shape(scale, shape), *(f"{part:.2f}" for part in parts), printed, f"{_implied(dense):.1f}"])
    return [
        "**What a dense token reads**, in GB of 2-byte weights:",
        "",
        *markdown_table(header, rows, numbers=7),
        "",
        f"The shapes are LLaMA2's; the predictors are the paper's, of rank {PREDICTOR_RANK} in every layer. Not "
        "counted: norms, one row of the embedding, and the keys and values of 133 tokens (at most "
        f"{_cache_share():.1%}).",
    ]


def _shape(scale: str, shape: DecoderShape) -> str:
    return f"{scale}: d_model {shape.hidden_size}, d_ff {shape.intermediate_size}, {shape.layers} layers"


def _cache_share() -> float:
    """Return the size of a whole short generation's KV cache relative to the weights: the largest over the shapes."""
    return max(2 * shape.layers * shape.hidden_size * 133 / shape.dense_read for shape in shapes().values())


def _implied(setting: Setting) -> float:
    found = implied_bandwidth(setting)
    assert found is not None
    return found


def savings() -> list[str]:
    header = [
        "Row", "Sparsity (%)", "Predicted sparsity (%)", "Paper: tokens/s", "Paper: speedup",
        "Bound: predicted", "Bound: exact", "Bound: free FFN", "Implied GB/s, one memory",
    ]  # fmt: skip
    rows = []
    for setting in settings():
        if setting.is_dense:
            continue
        shape, times, rate = shapes()[setting.scale], speedup(setting), implied_bandwidth(setting)
        rows.append(
            [
                name_of(setting),
                setting.printed["average_sparsity"],
                setting.printed["predicted_sparsity"],
                setting.printed["inference_speed_tokens_per_s"] or "–",
                "–" if times is None else f"{times:.2f}",
                f"{bound(setting):.2f}",
                f"{exact_bound(setting):.2f}",
                f"{shape.dense_read / shape.read_without_ffn:.2f}",
                "–" if rate is None else f"{rate:.0f}",
            ]
        )
    also = " and ".join(f"{_skipping(largest(scale)):.2f}" for scale in shapes())
    return [
        "**What sparsity can save**, as speedup over dense:",
        "",
        *markdown_table(header, rows, numbers=8),
        "",
        "Paper's speedup: the ratio of its speeds, even where it prints no speedup. Bound: the largest speedup that "
        "the bytes read allow. Predicted reads attention, output head, predictors, and the rows predicted active of "
        "all three FFN projections (if the down projection also skips what turns out to be zero, the bounds of the "
        f"two rows above are {also}). Exact has no predictors; it reads the whole gate, and the active rows of the "
        "other two projections. Free FFN reads only attention and output head, the limit of any FFN sparsity.",
    ]


def _skipping(setting: Setting) -> float:
    """Return ``bound`` for a down projection that reads only rows both active and predicted active."""
    shape = shapes()[setting.scale]
    return shape.dense_read / shape.predicted_read(
        PREDICTOR_RANK, predicted_active(setting), active_and_predicted(setting)
    )


def attribution() -> list[str]:
    rates = [_implied(dense_of(scale)) for scale in shapes()]
    sparse = [rate for setting in settings() if not setting.is_dense and (rate := implied_bandwidth(setting))]
    first = largest("7B")
    rate, fits = speed(first), gigabytes(weights_read(first)) * (1 - share_from_elsewhere(first))
    assert rate is not None
    free = " and ".join(f"{shape.dense_read / shape.read_without_ffn:.2f}" for shape in shapes().values())
    above = ", ".join(
        f"{name_of(row)} {row.printed['speedup_to_dense']}"
        for row in settings()
        if float(row.printed.get("speedup_to_dense") or 0)
        > shapes()[row.scale].dense_read / shapes()[row.scale].read_without_ffn
    )
    factors = "; ".join(
        f"{row.printed['speedup_to_dense']} = {bound(row):.2f} (fewer bytes) × "
        f"{float(row.printed['speedup_to_dense']) / bound(row):.2f} (a faster memory for part of them)"
        for row in map(largest, shapes())
    )
    elsewhere = {
        (row["model"], row["where"].partition(" (")[0]): row for row in published_table("powerinfer_elsewhere")
    }
    bamboo = "; ".join(f"{where} {row['speedup']}" for (model, where), row in elsewhere.items() if model == "Bamboo-7B")
    relu = next(setting for setting in settings() if setting.name == "ReluLLaMA-7B")
    without = shapes()["7B"].dense_read / (weights_read(relu) - shapes()["7B"].predictors(PREDICTOR_RANK))
    return [
        "**Where the rest comes from.**",
        "",
        f"- Some printed speedups exceed that of a free FFN ({free}): {above}. So the dense and the sparse rows did "
        "not read from the same memory at the same rate.",
        f"- Both dense rows imply {min(rates):.0f} to {max(rates):.0f} GB/s, the bandwidth of a CPU's memory, as if "
        "all weights were stored there in 2 bytes each. From a single memory, the sparse rows would have to read "
        f"{min(sparse):.0f} to {max(sparse):.0f} GB/s. In the {1e3 / rate:.0f} ms that a token of {name_of(first)} "
        f"takes, the dense row's memory delivers {fits:.1f} of its {gigabytes(weights_read(first)):.1f} GB: at least "
        f"{share_from_elsewhere(first):.0%} came from a faster memory. PowerInfer keeps frequently active neurons in "
        f"GPU memory, and the authors' machine had an A100. Under this reading, {factors}.",
        f"- Speedups of PowerInfer over llama.cpp on the same hardware, as Bamboo's README reports them for Bamboo-7B: "
        f"{bamboo}. With a single kind of memory, the speedup is about what the bytes allow; with weights split over "
        "two, it is about what the paper prints. For ReluLLaMA-7B on a CPU only, PowerInfer's authors report "
        f"{elsewhere['ReluLLaMA-7B', 'CPU only']['speedup']} (the bytes allow {bound(relu):.2f} with the paper's "
        f"predictors, {without:.2f} with free predictors).",
        "- Unknown: the CPU, the GPU memory available to PowerInfer, whether the dense rows used the GPU at all, and "
        "the precision. That the faster memory is the GPU's is inferred from these numbers, not measured.",
    ]
