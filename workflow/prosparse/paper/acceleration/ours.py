"""Our part of ``acceleration.md``: what sparsity gains in one memory."""

from __future__ import annotations

from prosparse.paper.markdown import markdown_table
from prosparse.paper.results import accelerated
from prosparse.paper.results.decoding import ENGINES, MODES, Arm, Decoding, Model, best_model, every_decoding
from prosparse.paper.results.reader import Results
from prosparse.published.settings import largest_speedup
from prosparse.published.tables import SCALES


def ours(results: Results) -> list[str]:
    head = "**Ours, in one memory.**"
    reason = accelerated.missing_decoding(results.experiment)
    if reason is not None:
        return [f"{head} Missing: {reason}."]
    decodings = every_decoding(results)
    shown = [model for decoding in decodings for model in decoding.models if _is_shown(model)]
    shown.sort(key=lambda model: model.shape is None)  # the paper's shapes first
    if not shown:
        return [f"{head} Missing: no model with a sparse activation was timed."]
    header = ["Model", "Mode", "Tokens/s", "Read per token (MB)", "Bound on the speedup", "Speedup over ours, dense",
              "Speedup over transformers", "Share of bound (%)"]  # fmt: skip
    rows = []
    for model in shown:
        ways = [(MODES[name], arm) for name, arm in model.modes.items()]
        ways += [(ENGINES.get(name, name), arm) for name, arm in model.engines.items()]
        rows += [_way(model, way, arm, is_first=index == 0) for index, (way, arm) in enumerate(ways)]
    return [
        f"{head} All on one device, with the same kernels with and without sparsity:",
        "",
        *markdown_table(header, rows, numbers=6),
        "",
        *(f"- {sentence}" for sentence in _findings(shown, decodings)),
    ]


def _label(model: Model) -> str:
    return model.label.replace("*", "\\*")


def _is_shown(model: Model) -> bool:
    """Whether to show a model: sparse ones of the paper's shapes, and the final rows of the trained ones."""
    finals = {final for _, _, final in SCALES.values()}
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
    fastest = best_model(shown, _predicted_speedup)
    if fastest is not None:
        reached, base = _predicted_speedup(fastest) or 0.0, fastest.over(fastest.modes["predicted"], "torch")
        words = f"The largest speedup with predictors is {reached:.2f}× ({_label(fastest)})"
        allowed = fastest.bytes_allow("predicted")
        if allowed is not None:
            words += f", where the bytes allow {allowed:.2f}×"
        printed = largest_speedup().printed["speedup_to_dense"]
        words += f"; the paper's {printed}× is {float(printed) / reached:.1f} times as large."
        if base is not None:
            words += (
                " A slower baseline makes it look larger: over transformers' dense decoding of the same weights, it "
                f"is {base:.2f}×."
            )
        sentences.append(words)
    else:
        sentences.append("Missing: decoding with predictors was not timed.")
    gains = [arm.speedup.median for model in shown if (arm := model.modes["exact"]).speedup is not None]
    if gains:
        same = [model.raw.get("same_tokens_as_dense", {}).get("exact") == 1 for model in shown]
        kept = (
            "its tokens equal those of dense decoding"
            if all(same)
            else f"{sum(same)} of {len(same)} models generate the same tokens"
        )
        span = " to ".join(dict.fromkeys(f"{gain:.2f}" for gain in (min(gains), max(gains))))
        sentences.append(f"Exact decoding is {span}× as fast as dense decoding, without any predictor; {kept}.")
    far = [model for model in shown if (share := model.modes["dense"].spread("share_of_bound")) and share.median < 0.5]
    if far:
        names = ", ".join(_label(model) for model in far)
        sentences.append(
            f"Dense decoding of {names} reaches less than half of its bound: the fixed cost of a token dominates "
            "there, not the bytes."
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
