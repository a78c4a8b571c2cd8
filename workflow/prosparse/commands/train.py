"""``prosparse train``: trains a checkpoint on text through a recipe's stages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from prosparse.commands.inputs import check_context_length, output_folder, text_files
from prosparse.commands.text import write_tokens
from prosparse.data.tokenizer import copy_tokenizer
from prosparse.experiment.layout import LEDGER, PROVENANCE
from prosparse.experiment.model import PretrainedInit
from prosparse.experiment.recipe import read as read_recipe
from prosparse.experiment.specifications import StageSpecification
from prosparse.experiment.training import Stage, without_bands
from prosparse.models.third_party import configuration
from prosparse.models.third_party import tokenizer as open_tokenizer
from prosparse.system import identity
from prosparse.system.files import copy, write_through
from prosparse.training import checkpoints, ledger
from prosparse.training.job import StageJob
from prosparse.training.result import outcome
from prosparse.training.stage import train_stage


def train_checkpoint(checkpoint: str, recipe: Path, files: list[str], output: Path, seed: int) -> None:
    """Train a checkpoint through the stages of a recipe; keeps finished stages and resumes an interrupted one.

    ``output`` becomes the last stage's checkpoint, with the ledger of all stages. Its folders ``stage{index}`` hold the
    stages themselves.

    Raises:
        ConfigError: an invalid recipe, a missing file, a context length the model cannot have, or too little text.
        Refused: ``output`` holds other files, or the results of a call with other arguments.
    """
    wanted = read_recipe(recipe)
    bands = [stage.expected_sparsity for stage in wanted.stages]
    wanted = wanted.model_copy(update={"stages": without_bands(wanted.stages)})
    texts = text_files(files)
    check_context_length(configuration(checkpoint), wanted.context_length)
    open_tokenizer(checkpoint)
    asked = {"recipe": wanted.model_dump(mode="json"), "seed": seed}
    with output_folder(output, identity.of_command("train", asked, checkpoint, texts)):
        if (output / PROVENANCE).exists():
            print(f"{output}: already trained, nothing to do")
            return
        tokens, tokenizer = output / "tokens", output / "tokenizer"
        rows = write_tokens(texts, checkpoint, wanted.context_length, tokens)
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
            stage = wanted.stages[index]
            print(
                f"stage {index} of {len(stages) - 1}: lambda {stage.factor_text}, until step {stage.until:,}",
                flush=True,
            )
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
            previous = stages[index - 1] if index else None
            job = StageJob(specification, tokens, tokenizer, previous, directory)
            train_stage(replace(job, expected_sparsity=bands[index]))
        checkpoints.install(stages[-1], output, excluding=(*checkpoints.OPTIMIZATION, LEDGER, PROVENANCE))
        ledger.join([stage / LEDGER for stage in stages], output / LEDGER)
        write_through(output)
        copy(stages[-1] / PROVENANCE, output / PROVENANCE)  # last, since it marks the job as finished
        steps = ledger.read(output / LEDGER, wanted.stages[-1].until)
    print(
        f"{output}: trained",
        *_before_and_after(steps),
        *_outcome(wanted.stages[-1], output),
        f"its ledger.csv has every logged step; next: prosparse sparsity {output}",
        sep="\n",
    )


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
