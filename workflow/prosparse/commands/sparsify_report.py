"""What ``prosparse sparsify`` measures, and its summary as text and JSON"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from prosparse.commands.sparsity import measured
from prosparse.commands.text import MOST_HELDOUT, packed, read_texts
from prosparse.commands.train import Run
from prosparse.data.mixture import open_rows
from prosparse.data.tokens import spread
from prosparse.experiment.activation import Activation
from prosparse.experiment.decoding import Decoding
from prosparse.experiment.timings import DecodingSpecification
from prosparse.measure.decoding import Model, measure_modes
from prosparse.measure.threshold_shifting import largest_threshold
from prosparse.method.activations import substitute
from prosparse.models.load import load, load_to_measure, own_activation
from prosparse.paper.statistics.estimate import Estimate, mean_of_draws
from prosparse.plan.text import aligned
from prosparse.system import devices, provenance
from prosparse.system.errors import UserError
from prosparse.system.files import write_json, write_text
from prosparse.training.result import CLOSE

SUMMARY, HELDOUT = "summary.json", "heldout.jsonl"
#: What threshold shifting may cost, in nats per token, and the training tokens that it is chosen on.
SHIFTING_COST, TUNING_TOKENS = 0.002, 4096
PROMPT_TOKENS = 5  # the paper's prompts have five words


def is_there(output: Path, control: bool) -> bool:
    """Whether the folder holds a summary, with a control if one is wanted."""
    path = output / SUMMARY
    return path.exists() and (not control or "control" in json.loads(path.read_text(encoding="utf-8")))


def measure_all(checkpoint: str, output: Path, control: Path | None, run: Run) -> dict[str, Any]:
    """Measure the original, the control and the sparse model on held-out text, and how fast the last one decodes.

    Returns:
        ``original``, ``control``, ``sparse`` and ``shifted`` (FATReLU; both if there) with their ``activation`` and
        what ``commands.sparsity.measured`` returns; ``decoding``: rates, or the reason they are ``missing``.
    """
    started, length = time.time(), run.recipe.context_length
    heldout = spread(packed(read_texts([output / HELDOUT]), checkpoint, length), MOST_HELDOUT)
    tuning = spread(open_rows(run.tokens / "text" / "train"), max(1, TUNING_TOKENS // length))
    rows, tuned = (torch.as_tensor(np.stack(each["input_ids"]), dtype=torch.long) for each in (heldout, tuning))
    found: dict[str, Any] = {}
    for name, directory in {"original": checkpoint, "control": control, "sparse": output}.items():
        if directory is None:
            continue
        print(f"measuring the {name} on held-out text", flush=True)
        model = load_to_measure(directory)
        activation: Activation | None = own_activation(model.config)
        found[name] = {"activation": str(activation), **measured(model, rows)}
        if name == "sparse" and str(activation) == "relu":
            print("choosing a threshold of FATReLU on training text", flush=True)
            if (activation := largest_threshold(model, tuned, SHIFTING_COST)) is not None:
                substitute(model, activation)
                found["shifted"] = {"activation": str(activation), **measured(model, rows)}
        del model
    decoding = _decoding(output, [row[:PROMPT_TOKENS].tolist() for row in rows[:2]])
    stage = run.recipe.stages[0]
    return {
        "target_sparsity": stage.target_sparsity,
        "steps": run.steps,
        "tokens": run.steps * run.recipe.training.batch_size * length,
        "context_length": length,
        **found,
        "decoding": decoding,
        "provenance": provenance.record(run.recipe.model_dump(mode="json"), started, devices.name(devices.fastest())),
    }


def _decoding(checkpoint: Path, prompts: list[list[int]]) -> dict[str, Any]:
    """Time dense and exact sparse decoding on this machine's CPU."""
    settings = Decoding(prompts=len(prompts), new_tokens=32)
    specification = DecodingSpecification(settings=settings, decision_threshold=0.5, powerinfer=None, models=[])
    try:
        model = load(checkpoint, dtype=torch.bfloat16)
        found = measure_modes(Model("decoding", model, None, None), prompts, specification, {})
    except UserError as error:
        return {"missing": str(error)}
    modes = found["modes"]
    return {
        "precision": "bfloat16",
        "processor": provenance.processor(),
        "threads": torch.get_num_threads(),
        "tokens_per_second": {name: modes[name]["tokens_per_second"] for name in ("dense", "exact")},
        "times_faster_than_dense": modes["exact"]["times_faster_than_dense"],
        "same_tokens_as_dense": found["same_tokens_as_dense"]["exact"],
    }


def write(found: dict[str, Any], output: Path) -> None:
    """Write the summary; its JSON file comes last, since it marks the job as finished."""
    write_text(output / "README.md", "\n".join([f"# {output.name}", "", *lines(found, str(output))]) + "\n")
    write_json(output / SUMMARY, found)


NAMES = {"original": "Original", "control": "Vanilla ReLU (control)", "sparse": "Sparse", "shifted": "Sparse"}
HEADER = ["", "Activation", "Sparsity", "Loss", "over the original", "over the control", "Dead neurons"]


def lines(found: dict[str, Any], output: str) -> list[str]:
    """The summary for a terminal and for Markdown."""
    sparse, target = found["sparse"], found["target_sparsity"]
    sequences = len(sparse["sequences"]["loss"])
    rows = [_row(name, found) for name in NAMES if name in found]
    columns = [index for index, title in enumerate(HEADER) if "control" in found or "control" not in title]
    return [
        _verdict(found),
        "",
        *aligned([HEADER[index] for index in columns], [[row[index] for index in columns] for row in rows]),
        "",
        "Sparsity is the share of zeros among the FFN's activations; loss is in nats per token. Both are means over "
        f"{sequences} held-out sequences ({sparse['tokens']:,} tokens). Differences are paired, with 95% intervals "
        "over the sequences; another seed or text would differ more. A dead neuron is zero for all of these tokens.",
        "",
        _speed(found["decoding"]),
        "",
        f"Trained with λ steered to {100 * target:g}% from the first step on, on {found['tokens']:,} tokens in "
        f"{found['steps']:,} steps (recipe.yaml, ledger.csv).",
        "",
        "Next:",
        "",
        *(f"    {line}" for line in _next(found, output)),
    ]


def _verdict(found: dict[str, Any]) -> str:
    target, reached = found["target_sparsity"], found["sparse"]["sparsity"]
    if reached >= target - CLOSE:
        return f"{100 * reached:.1f}% of the FFN's activations are zero (target: {100 * target:g}%)."
    shifted = found.get("shifted")
    instead = (
        f" With --activation {shifted['activation']} it is reached, at {100 * shifted['sparsity']:.1f}%."
        if shifted is not None and shifted["sparsity"] >= target - CLOSE
        else ""
    )
    return (
        f"The target of {100 * target:g}% was not reached: {100 * reached:.1f}% of the FFN's activations are zero."
        f"{instead} To get closer, use more tokens or a higher --learning-rate, and another folder."
    )


def _row(name: str, found: dict[str, Any]) -> list[str]:
    values = found[name]
    return [
        NAMES[name],
        values["activation"],
        f"{100 * values['sparsity']:.1f}%",
        f"{values['loss']:.4f}",
        *(
            _shown(difference(found, name, other)) if other in found and other != name and name != "original" else ""
            for other in ("original", "control")
        ),
        f"{100 * fmean(values['dead_neurons']):.1f}%",
    ]


def difference(found: dict[str, Any], name: str, other: str) -> Estimate:
    """The loss of one model minus another's, by their differences on the same held-out sequences."""
    pairs = zip(found[name]["sequences"]["loss"], found[other]["sequences"]["loss"], strict=True)
    return mean_of_draws([one - two for one, two in pairs])


def _shown(estimate: Estimate) -> str:
    return f"{estimate.mean:+.3f} ({estimate.lower:+.3f} to {estimate.upper:+.3f})"


def _speed(decoding: dict[str, Any]) -> str:
    if "missing" in decoding:
        return f"Decoding speed was not measured: {decoding['missing']}."
    rates, faster = decoding["tokens_per_second"], decoding["times_faster_than_dense"]
    where = f"{decoding['processor']}, threads: {decoding['threads']}, {decoding['precision']}"
    return (
        f"Decoding ({where}): {rates['exact']['median']:.1f} tokens/s sparse, {rates['dense']['median']:.1f} dense. "
        f"Compared turn by turn, sparse is {faster['median']:.2f} times as fast (quartiles "
        f"{faster['lower_quartile']:.2f} to {faster['upper_quartile']:.2f}), and "
        f"{100 * decoding['same_tokens_as_dense']:.0f}% of the tokens are the same."
    )


def _next(found: dict[str, Any], output: str) -> list[str]:
    shifted = f" --activation {found['shifted']['activation']}" if "shifted" in found else ""
    length = found["context_length"]
    return [
        f"prosparse generate {output}{shifted} --prompt 'Once upon a time'",
        f"prosparse sparsity {output} --text {output}/{HELDOUT} --context-length {length}  # by layer",
        f"prosparse bench {output}{shifted}  # next to other engines",
    ]
