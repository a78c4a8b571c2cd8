"""``prosparse predictors``: trains activation predictors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prosparse.commands.inputs import check_context_length, output_folder, text_files
from prosparse.commands.text import read_texts, write_tokens
from prosparse.experiment.activation import Activation
from prosparse.experiment.measurement import Predictors
from prosparse.experiment.specifications import PredictorSpecification
from prosparse.inference.predictor_training import check as check_predictors
from prosparse.inference.predictor_training import train as train_predictors
from prosparse.models.load import own_activation
from prosparse.models.third_party import configuration
from prosparse.system import identity
from prosparse.system.errors import ConfigError
from prosparse.system.problems import describe


def train_checkpoint_predictors(
    checkpoint: str,
    activation: Activation | None,
    files: list[str],
    settings: dict[str, Any],
    context_length: int,
    output: Path,
) -> None:
    """Train predictors of each kind into ``output/{kind}`` with the paper's recipe; resumes an interrupted training.

    Args:
        settings: some fields of :class:`Predictors`.

    Raises:
        ConfigError: an activation without zeros, a rank or context length the model cannot have, a missing file, or too
            little text.
        Refused: ``output`` holds other files, or the results of a call with other arguments.
    """
    try:
        wanted = Predictors.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(describe(error, Predictors)) from None
    texts, config = text_files(files), configuration(checkpoint)
    chosen = activation or own_activation(config)
    specification = PredictorSpecification(activation=chosen, settings=wanted, mixture={"text": 1.0}, seed=0)
    check_predictors(specification, checkpoint)
    check_context_length(config, context_length)
    asked = {"specification": specification.model_dump(mode="json"), "context_length": context_length}
    with output_folder(output, identity.of_command("predictors", asked, checkpoint, texts)):
        write_tokens(partial(read_texts, texts), checkpoint, context_length, output / "tokens")
        train_predictors(checkpoint, specification, output / "tokens", output)
    print(f"next: prosparse generate {checkpoint} --predictors {output / wanted.kinds[0]} --prompt ...")
