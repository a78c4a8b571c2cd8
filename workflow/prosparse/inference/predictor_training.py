"""Train a checkpoint's activation predictors, all layers and kinds in one pass.

The recipe is DejaVu's, which PowerInfer and the paper use: binary cross-entropy in which an inactive neuron weighs
``mean(label) + 0.005`` and an active one 1, AdamW, early stopping by recall on held-out sequences. Activations are
never stored: each epoch runs the model over the same tokens again, and keeps activations for only a few batches.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from prosparse.data.mixture import Mixture, Rows, open_rows
from prosparse.experiment.specifications import PredictorSpecification
from prosparse.inference.predictor_session import Session
from prosparse.inference.predictors import Predictor, check_rank, save, save_whole, svd
from prosparse.models.load import load_to_measure
from prosparse.models.third_party import configuration
from prosparse.system import devices, identity, provenance
from prosparse.system.errors import ConfigError
from prosparse.system.files import discard, write_json
from prosparse.system.locking import agree, claim, locked

VALIDATION_SHARE = 0.05


def train(checkpoint: str | Path, specification: PredictorSpecification, tokens: Path, output: Path) -> None:
    """Train a checkpoint's predictors under one activation, or resume where an earlier call stopped.

    Writes ``{kind}/model_{layer}.pt`` for every kind, ``marginal.pt`` (a list of each layer's activation frequencies on
    the training tokens, [intermediate_size] float32) and, last, ``training.json``. Saves progress after every epoch in
    ``resume``; an interrupted call and its continuation give the same predictors as an uninterrupted one, bit for bit.
    A call after the predictors are finished is a no-op.

    Args:
        checkpoint: a Hugging Face directory.
        tokens: directory of tokenized corpora, one folder each; only train rows are read.
        output: the predictors' directory.

    Raises:
        Refused: another process trains here, or the directory was made from another specification, other tokens or
            another checkpoint.
        ConfigError: too few tokens, an activation without zeros, or a rank that kind svd cannot have.
    """
    started = time.time()
    check(specification, checkpoint)
    resume = output / "resume"
    inputs: identity.Identity = {
        "checkpoint": identity.of_checkpoint(checkpoint),
        "tokens": {corpus: identity.of_tokens(tokens / corpus) for corpus in sorted(specification.mixture)},
    }
    made_from = {"specification": specification.model_dump(mode="json"), "inputs": inputs}
    if (output / "training.json").exists():
        agree(
            json.loads((output / "training.json").read_text(encoding="utf-8")).get("made_from", {}), made_from, output
        )
        discard(resume)
        print(f"{output}: predictors already trained, nothing to do", flush=True)
        return
    resume.mkdir(parents=True, exist_ok=True)
    with locked(resume):
        claim(resume, made_from)
        model = load_to_measure(checkpoint, specification.activation, specification.precision)
        training, validation = _sequences(specification, tokens)
        session = Session(specification, model, training, validation)
        session.restore(resume / "state.pt")
        if session.epochs == 0 and "svd" in specification.settings.kinds:  # first, since it may reject the rank
            save(svd(model, specification.settings.rank, validation), output / "svd")
        while not session.finished:
            session.epoch()
            session.save(resume / "state.pt")
        _finish(session, made_from, resume, output, started)


def check(specification: PredictorSpecification, checkpoint: str | Path) -> None:
    """Check what is known before loading a model.

    Raises:
        ConfigError: the activation leaves every neuron active, or kind svd cannot have the rank.
    """
    if specification.activation.name == "silu":
        raise ConfigError(
            "predictors tell which neurons are zero, and with silu none is: give a checkpoint trained with relu, "
            "or --activation relu, relu2, drelu, fatrelu-0.01, shiftrelu-0.1"
        )
    if "svd" in specification.settings.kinds:
        check_rank(specification.settings.rank, configuration(checkpoint).hidden_size)


def _sequences(specification: PredictorSpecification, tokens: Path) -> tuple[Tensor, Tensor]:
    """Token ids for training and for validation, [sequences, context_length] each, from different rows.

    Each corpus's last rows are for validation. The row before them, which may belong to the same document, and training
    rows equal to one of them are left out. No row appears twice, so a small corpus gives fewer tokens than wanted.
    """
    settings, mixture, seed = specification.settings, specification.mixture, specification.seed
    corpora = {name: open_rows(tokens / name / "train") for name in mixture}
    count = math.ceil(settings.tokens / len(next(iter(corpora.values()))[0]["input_ids"]))
    for_judging = max(1, round(VALIDATION_SHARE * count))
    training: dict[str, Rows] = {}
    validation: dict[str, Rows] = {}
    for name, rows in corpora.items():
        aside = max(1, round(VALIDATION_SHARE * len(rows)))
        if len(rows) == 1:  # keep it for training
            aside = 0
        gap = 1 if len(rows) > aside + 1 else 0
        training[name] = rows.select(range(len(rows) - aside - gap))
        validation[name] = rows.select(range(len(rows) - aside, len(rows))) if aside else ()
    judged = _drawn(validation, mixture, for_judging, seed)
    learned = _drawn(training, mixture, count - for_judging, seed)
    known = {row.numpy().tobytes() for row in judged}
    learned = [row for row in learned if row.numpy().tobytes() not in known]
    if not learned or not judged:
        sizes = ", ".join(f"{name} {len(rows)}" for name, rows in corpora.items())
        raise ConfigError(
            f"predictors.tokens is {settings.tokens}, and the corpora have these numbers of sequences: {sizes}; at "
            "least two different ones are needed, one to train on and one to validate on: give more text, more "
            "tokens or a shorter context"
        )
    if (found := len(learned) + len(judged)) < count:
        print(
            f"warning: the text has only {found} different sequences for predictors, not the {count} of "
            "predictors.tokens",
            flush=True,
        )
    return torch.stack(learned), torch.stack(judged)


def _drawn(corpora: Mapping[str, Rows], mixture: dict[str, float], count: int, seed: int) -> list[Tensor]:
    """At most ``count`` rows by the mixture's weights, none twice."""
    weights = {name: weight for name, weight in mixture.items() if len(corpora[name])}
    if not weights or not count:
        return []
    samples = Mixture(corpora, weights, count, seed)
    return [samples[index]["input_ids"] for index in samples.first_reads()]


def _finish(session: Session, made_from: identity.Identity, resume: Path, output: Path, started: float) -> None:
    kinds = {}
    for kind, trainees in session.trainees.items():
        save([Predictor.of(each.best["fc1.weight"], each.best["fc2.weight"]) for each in trainees], output / kind)
        kinds[kind] = {
            "epochs": max(len(trainee.epochs) for trainee in trainees),
            "recall": sum(trainee.epochs[trainee.best_epoch]["recall"] for trainee in trainees) / len(trainees),
            "layers": [{"best_epoch": each.best_epoch + 1, "epochs": each.epochs} for each in trainees],
        }
    tokens = session.training.numel()
    save_whole([active.cpu() / tokens for active in session.active], output / "marginal.pt")
    specification = session.specification
    write_json(
        output / "training.json",
        {
            "activation": str(specification.activation),
            "seed": specification.seed,
            "rank": session.settings.rank,
            "training_tokens": tokens,
            "validation_tokens": session.validation.numel(),
            "seconds": session.seconds,  # for all trained kinds together
            "kinds": kinds,  # trained ones; each epoch's metrics are on the validation tokens, by the kind's own labels
            "made_from": made_from,
            "provenance": provenance.record(
                specification.model_dump(mode="json"), started, devices.name(session.model.device)
            ),
        },
    )
    discard(resume)


def load_marginal(output: Path) -> list[Tensor]:
    """Each layer's activation frequencies on the training tokens, [intermediate_size] float32."""
    return torch.load(output / "marginal.pt", weights_only=True)
