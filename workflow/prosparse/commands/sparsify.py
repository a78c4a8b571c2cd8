"""``prosparse sparsify``: makes a checkpoint as sparse as asked, and reports the cost"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml

from prosparse.commands import defaults, sparsify_report
from prosparse.commands.defaults import Settings
from prosparse.commands.inputs import check_context_length, output_folder, text_files
from prosparse.commands.text import FEWEST_HELDOUT, hold_out, packed, read_texts, write_tokens
from prosparse.commands.train import Run, train_stages
from prosparse.experiment.activation import Activation
from prosparse.experiment.recipe import OwnRecipe
from prosparse.experiment.recipe import read as read_recipe
from prosparse.experiment.training import Stage
from prosparse.models.load import load, own_activation
from prosparse.models.third_party import configuration
from prosparse.models.third_party import tokenizer as open_tokenizer
from prosparse.system import identity
from prosparse.system.errors import ConfigError
from prosparse.system.files import discard, write_text
from prosparse.training import checkpoints, reporting
from prosparse.training.reporting import Tracker

RECIPE = "recipe.yaml"
CONTROL = "control"


@dataclass(frozen=True)
class Sparsification:
    """What to make sparse, on which text, and where to write it; ``control``: also train the control."""

    checkpoint: str
    text: list[str]
    heldout_text: list[str]
    output: Path
    settings: Settings
    control: bool
    report_to: Tracker | None


def sparsify(wanted: Sparsification) -> None:
    """Train a checkpoint to the target and its control on the same tokens, then measure both; resumes.

    ``output`` becomes the sparse checkpoint, with the summary as ``README.md`` and ``summary.json``. Its folder
    ``control`` is Vanilla ReLU: the same training without a penalty.

    Raises:
        ConfigError: a file is missing, the text is too short, the context length is one that the model cannot have, or
            the tracker is not installed.
        UnsupportedArchitecture: the model has FFN computation that is not gated.
        Refused: ``output`` holds other files, or the results of a call with other arguments.
    """
    reporting.check(wanted.report_to)
    texts, heldout = text_files(wanted.text), []
    if wanted.heldout_text:
        heldout = text_files(wanted.heldout_text, "--heldout-text")
        if shared := {file.resolve() for file in texts} & {file.resolve() for file in heldout}:
            raise ConfigError(f"--heldout-text: {min(shared)} is also trained on")
    check_context_length(configuration(wanted.checkpoint), wanted.settings.context_length)
    open_tokenizer(wanted.checkpoint)
    output = wanted.output
    asked = {**asdict(wanted.settings), "heldout": identity.of_texts(heldout)}
    with output_folder(output, identity.of_command("sparsify", asked, wanted.checkpoint, texts)):
        if sparsify_report.is_there(output, wanted.control):
            print(f"{output}: already sparse, nothing to do; {output / 'README.md'} has the summary")
            return
        recipe = _recipe(wanted, texts, heldout)
        run = Run(
            recipe, wanted.checkpoint, output / "tokens", output / "tokenizer", wanted.settings.seed, wanted.report_to
        )
        print(*_plan(run, wanted.control), sep="\n", flush=True)
        train_stages(run, output)
        control = output / CONTROL if wanted.control else None
        if control is not None:
            print("the control: Vanilla ReLU, on the same tokens without a penalty", flush=True)
            control.mkdir(exist_ok=True)
            without = recipe.model_copy(update={"stages": [Stage(until=run.steps)]})
            train_stages(replace(run, recipe=without), control)
        found = sparsify_report.measure_all(wanted.checkpoint, output, control, run)
        sparsify_report.write(found, output)
        for folder in (output, control):
            if folder is not None:
                (folder / "stage0" / checkpoints.OPTIMIZER).unlink(missing_ok=True)
    print("\n".join(["", *sparsify_report.lines(found, str(output))]))


def _recipe(wanted: Sparsification, texts: list[Path], heldout: list[Path]) -> OwnRecipe:
    """Choose the recipe and write it, the held-out text and the tokens; keeps the choices of an earlier call."""
    output, length = wanted.output, wanted.settings.context_length
    if (output / RECIPE).exists():
        return read_recipe(output / RECIPE)
    model = load(wanted.checkpoint, dtype="auto")  # refuses what is not supported
    parameters, own = model.num_parameters(), own_activation(model.config)
    del model
    documents = read_texts(texts)
    trained, held = (documents, read_texts(heldout)) if heldout else hold_out(documents, length)
    unseen = set(held)
    trained = [text for text in trained if text not in unseen]
    if not trained:
        raise ConfigError("--heldout-text has every document of --text: nothing is left to train on")
    if (sequences := len(packed(held, wanted.checkpoint, length)) if held else 0) < FEWEST_HELDOUT:
        raise ConfigError(
            f"the held-out text fills {sequences} sequences of {length} tokens, and at least {FEWEST_HELDOUT} are "
            "needed: give more --text or --heldout-text, or a smaller --context-length"
        )
    rows = write_tokens(lambda: trained, wanted.checkpoint, length, output / "tokens")
    try:
        activation = Activation(name="relu") if own.name == "silu" else own
        recipe = defaults.recipe(wanted.settings, activation, parameters, rows)
    except ConfigError:
        discard(output / "tokens")  # another call may bring more text
        raise
    write_text(output / sparsify_report.HELDOUT, "".join(json.dumps({"text": text}) + "\n" for text in held))
    text = "# chosen by `prosparse sparsify`; `prosparse train` takes it, too\n"
    write_text(output / RECIPE, text + yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    return recipe


def _plan(run: Run, control: bool) -> list[str]:
    """Say what is trained, and how."""
    training, length = run.recipe.training, run.recipe.context_length
    sequences = "sequence" if training.batch_size == 1 else "sequences"
    return [
        f"{run.steps * training.batch_size * length:,} tokens in {run.steps:,} steps of {training.batch_size} "
        f"{sequences} of {length} tokens, {'twice: for the sparse model and for its control' if control else 'once'}",
        f"learning rate {training.learning_rate:g}, {training.precision}{', compiled' * training.compile}; "
        "each training run prints its remaining time (ETA)",
    ]
