"""``prosparse train``: trains a checkpoint on text through a recipe's stages."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from prosparse.commands.inputs import check_context_length, output_folder, text_files
from prosparse.commands.text import read_texts, write_tokens
from prosparse.data.tokenizer import copy_tokenizer
from prosparse.experiment.layout import LEDGER, PROVENANCE
from prosparse.experiment.model import PretrainedInit
from prosparse.experiment.recipe import OwnRecipe
from prosparse.experiment.recipe import read as read_recipe
from prosparse.experiment.specifications import StageSpecification
from prosparse.experiment.training import Stage, without_bands
from prosparse.models.third_party import configuration
from prosparse.models.third_party import tokenizer as open_tokenizer
from prosparse.system import identity
from prosparse.system.files import copy, write_through
from prosparse.training import checkpoints, ledger, reporting
from prosparse.training.job import StageJob
from prosparse.training.reporting import Tracker
from prosparse.training.result import outcome
from prosparse.training.stage import train_stage


@dataclass(frozen=True)
class Run:
    """A checkpoint to train through a recipe's stages, on the tokens of a folder."""

    recipe: OwnRecipe
    checkpoint: str
    tokens: Path
    tokenizer: Path
    seed: int
    report_to: Tracker | None

    @property
    def steps(self) -> int:
        return self.recipe.stages[-1].until


def train_checkpoint(
    checkpoint: str, recipe: Path, files: list[str], output: Path, seed: int, report_to: Tracker | None = None
) -> None:
    """Train a checkpoint through the stages of a recipe; keeps finished stages and resumes an interrupted one.

    ``output`` becomes the last stage's checkpoint, with the ledger of all stages. Its folders ``stage{index}`` hold the
    stages themselves.

    Raises:
        ConfigError: an invalid recipe, a missing file, a context length the model cannot have, too little text, or a
            tracker that is not installed.
        Refused: ``output`` holds other files, or the results of a call with other arguments.
    """
    reporting.check(report_to)
    wanted = read_recipe(recipe)
    texts = text_files(files)
    check_context_length(configuration(checkpoint), wanted.context_length)
    open_tokenizer(checkpoint)
    weights = wanted.model_copy(update={"stages": without_bands(wanted.stages)})
    asked = {"recipe": weights.model_dump(mode="json"), "seed": seed}
    with output_folder(output, identity.of_command("train", asked, checkpoint, texts)):
        if (output / PROVENANCE).exists():
            print(f"{output}: already trained, nothing to do")
            return
        run = Run(wanted, checkpoint, output / "tokens", output / "tokenizer", seed, report_to)
        rows = write_tokens(partial(read_texts, texts), checkpoint, wanted.context_length, run.tokens)
        sequences = run.steps * wanted.training.batch_size
        print(
            f"{sequences:,} sequences of {wanted.context_length} tokens in {run.steps:,} steps; "
            f"the text has {rows:,}: {sequences / rows:.2f} epochs",
            flush=True,
        )
        train_stages(run, output)
        steps = ledger.read(output / LEDGER, run.steps)
    print(
        f"{output}: trained",
        *_before_and_after(steps),
        *_outcome(wanted.stages[-1], output),
        f"its ledger.csv has every logged step; next: prosparse sparsity {output}",
        sep="\n",
    )


def train_stages(run: Run, output: Path) -> None:
    """Train the stages in ``output/stage{index}`` and make ``output`` the last one's checkpoint, unless it is there."""
    if (output / PROVENANCE).exists():
        return
    if not (run.tokenizer / "tokenizer_config.json").exists():
        copy_tokenizer(run.checkpoint, run.tokenizer)
    wanted, stages = run.recipe, [output / f"stage{index}" for index in range(len(run.recipe.stages))]
    for index, directory in enumerate(stages):
        stage = wanted.stages[index]
        print(f"stage {index} of {len(stages) - 1}: lambda {stage.factor_text}, until step {stage.until:,}", flush=True)
        specification = StageSpecification(
            seed=run.seed,
            start=PretrainedInit(pretrained=run.checkpoint),
            activation=wanted.activation,
            mixture={"text": 1.0},
            context_length=wanted.context_length,
            stages=without_bands(wanted.stages[: index + 1]),
            total_steps=run.steps,
            training=wanted.training,
        )
        previous = stages[index - 1] if index else None
        job = StageJob(specification, run.tokens, run.tokenizer, previous, directory)
        train_stage(replace(job, expected_sparsity=stage.expected_sparsity, report_to=run.report_to))
    checkpoints.install(stages[-1], output, excluding=(*checkpoints.OPTIMIZATION, LEDGER, PROVENANCE))
    ledger.join([stage / LEDGER for stage in stages], output / LEDGER)
    write_through(output)
    copy(stages[-1] / PROVENANCE, output / PROVENANCE)  # last, since it marks the job as finished


def _outcome(stage: Stage, output: Path) -> list[str]:
    """Say whether the last stage reached its target, if it has one."""
    if stage.target_sparsity is None:
        return []
    final = json.loads((output / PROVENANCE).read_text(encoding="utf-8"))["final"]
    return [f"  {outcome(stage.target_sparsity, final)}"]


def _before_and_after(steps: list[dict[str, str]]) -> list[str]:
    """Print what the first and the last logged step measured on their batches."""
    if not steps:
        return []
    return [
        f"  {words} (step {row['step']}): sparsity {100 * float(row['sparsity']):.2f}%, "
        f"loss {float(row['lm_loss']):.4f}, lambda {float(row['lambda']):g}"
        for words, row in (("before", steps[0]), ("after ", steps[-1]))
    ]
