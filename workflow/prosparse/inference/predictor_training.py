"""Train a checkpoint's activation predictors, all layers and kinds in one pass.

The recipe is DejaVu's, which PowerInfer and the paper use: binary cross-entropy in which an inactive neuron weighs
``mean(label) + 0.005`` and an active one 1, AdamW, early stopping by recall on held-out sequences. Activations are
never stored: each epoch runs the model over the same tokens again, and keeps activations for only a few batches.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prosparse.data.mixture import Mixture, Rows, open_rows
from prosparse.experiment.specifications import PredictorSpecification
from prosparse.inference.predictors import Predictor, check_rank, decision_logit, observing, save, save_whole, svd
from prosparse.models.load import load_to_measure
from prosparse.models.third_party import configuration
from prosparse.system import devices, identity, provenance
from prosparse.system.errors import ConfigError
from prosparse.system.files import discard, write_json
from prosparse.system.locking import agree, claim, locked

VALIDATION_SHARE = 0.05
BATCHES_SHUFFLED = 4  # shuffled together, or more batches:
SEQUENCES_SHUFFLED = 8  # so that a batch mixes texts, however long the context


# -------------------------------------------------------------------------------------- labels

#: Map x1 [tokens, intermediate_size] and the share of rule ``top`` to labels of the same shape: active or not.
LabelRule = Callable[[Tensor, float], Tensor]


def nonzero_labels(x1: Tensor, top: float) -> Tensor:
    return x1 != 0


def top_labels(x1: Tensor, top: float) -> Tensor:
    """Mark each token's largest non-zeros by magnitude, at most the share ``top`` of its neurons."""
    labels = x1 != 0
    count = max(1, int(top * x1.shape[-1]))
    crowded = labels.sum(-1) > count  # other tokens keep all their non-zeros
    largest = x1[crowded].abs().topk(count, sorted=False).indices
    labels[crowded] = torch.zeros_like(labels[crowded]).scatter_(-1, largest, True)
    return labels


#: The kinds that need training.
LABEL_RULES: dict[str, LabelRule] = {"nonzero": nonzero_labels, "top": top_labels}


def logit_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Closed-form gradient of a batch's mean weighted binary cross-entropy with respect to its logits.

    ``weight * (sigmoid(logit) - label)``, divided by the number of elements; autograd takes several times as long.
    """
    probability, count = logits.sigmoid(), logits.numel()
    return torch.where(labels, (probability - 1) / count, probability * (_inactive_weight(labels) / count))


def weighted_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss itself: mean over tokens and neurons, in nats."""
    weight = torch.where(labels, 1.0, _inactive_weight(labels))
    return nn.functional.binary_cross_entropy_with_logits(logits, labels.float(), weight=weight)


def _inactive_weight(labels: Tensor) -> Tensor:
    return torch.count_nonzero(labels) / labels.numel() + 0.005


# -------------------------------------------------------------------------------------- layers


@dataclass
class _Trainee:
    """One layer's predictor of one kind, and its best weights so far."""

    predictor: Predictor
    optimizer: torch.optim.Optimizer
    best: dict[str, Tensor] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)  # held-out metrics after each epoch

    @classmethod
    def of(cls, predictor: Predictor, learning_rate: float) -> _Trainee:
        return cls(predictor, torch.optim.AdamW(predictor.parameters(), learning_rate, fused=True))

    @property
    def best_epoch(self) -> int:
        """The first epoch with the highest recall."""
        return max(range(len(self.epochs)), key=lambda epoch: self.epochs[epoch]["recall"])

    def stopped(self, patience: int) -> bool:
        return bool(self.epochs) and len(self.epochs) - 1 - self.best_epoch >= patience

    def learn(self, residual: Tensor, labels: Tensor) -> None:
        logits = self.predictor(residual)
        self.optimizer.zero_grad()
        logits.backward(logit_gradient(logits.detach(), labels))
        self.optimizer.step()

    def judge(self, values: dict[str, float]) -> None:
        self.epochs.append(values)
        if self.best_epoch == len(self.epochs) - 1:
            self.best = {name: weight.detach().clone() for name, weight in self.predictor.state_dict().items()}

    def state(self) -> dict[str, Any]:
        return {
            "predictor": self.predictor.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "epochs": self.epochs,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.predictor.load_state_dict(state["predictor"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.epochs = state["best"], state["epochs"]


# ------------------------------------------------------------------------------------ training


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
        print(f"{output}: predictors trained already, nothing to do", flush=True)
        return
    resume.mkdir(parents=True, exist_ok=True)
    with locked(resume):
        claim(resume, made_from)
        model = load_to_measure(checkpoint, specification.activation, specification.precision)
        training, validation = _sequences(specification, tokens)
        session = _Session(specification, model, training, validation)
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
            "predictors say which neurons are zero, and under silu none is: give a checkpoint trained with relu, "
            "or --activation relu, fatrelu-0.01, shiftrelu-0.1"
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
            f"predictors.tokens is {settings.tokens}, of corpora with so many sequences: {sizes}; it takes at least "
            "two different ones, one to train on and one to judge by: give more text, more tokens or a shorter context"
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


def pack(labels: Tensor) -> Tensor:
    """Pack labels [tokens, neurons] into bits: [tokens, neurons / 8, rounded up] uint8."""
    padded = nn.functional.pad(labels, (0, -labels.shape[1] % 8)).unflatten(1, (-1, 8))
    return (padded * _BITS.to(labels.device)).sum(-1, dtype=torch.uint8)


def unpack(packed: Tensor, neurons: int) -> Tensor:
    """Undo :func:`pack`."""
    return (packed[..., None] & _BITS.to(packed.device)).ne(0).flatten(1)[:, :neurons]


_BITS = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8)


class _Session:
    """The trainees of every kind and layer, and their progress."""

    def __init__(
        self, specification: PredictorSpecification, model: PreTrainedModel, training: Tensor, validation: Tensor
    ) -> None:
        self.specification, self.settings = specification, specification.settings
        self.model, self.training, self.validation = model, training, validation
        self.epochs, self.seconds = 0, 0.0
        size, neurons, layers = (
            getattr(model.config, key) for key in ("hidden_size", "intermediate_size", "num_hidden_layers")
        )
        self.active = [torch.zeros(neurons, dtype=torch.int64, device=model.device) for _ in range(layers)]
        torch.manual_seed(specification.seed)
        self.trainees = {
            kind: [
                _Trainee.of(Predictor(size, self.settings.rank, neurons).to(model.device), self.settings.learning_rate)
                for _ in range(layers)
            ]
            for kind in self.settings.kinds
            if kind in LABEL_RULES
        }

    @property
    def learning(self) -> list[tuple[str, int, _Trainee]]:
        """(kind, layer, trainee) of the trainees that have not stopped."""
        return [
            (kind, layer, trainee)
            for kind, trainees in self.trainees.items()
            for layer, trainee in enumerate(trainees)
            if not trainee.stopped(self.settings.patience)
        ]

    @property
    def finished(self) -> bool:
        # the first pass counts the marginal frequencies, even without anything to train
        return self.epochs > 0 and (self.epochs == self.settings.epochs or not self.learning)

    def epoch(self) -> None:
        clock = time.perf_counter()
        learning = self.learning
        key = np.random.SeedSequence([self.specification.seed, self.epochs])
        generator = np.random.Generator(np.random.Philox(key))
        for residuals, labels in self._buffers(generator):
            for kind, layer, trainee in learning:
                pairs = zip(
                    residuals[layer].split(self.settings.batch_size),
                    labels[kind][layer].split(self.settings.batch_size),
                    strict=True,
                )
                for residual, label in pairs:
                    trainee.learn(residual.float(), unpack(label, len(self.active[layer])))
        self._validate(learning)
        self.epochs += 1
        seconds = time.perf_counter() - clock
        self.seconds += seconds
        self._report(learning, seconds)

    def _buffers(self, generator: np.random.Generator) -> Iterator[tuple[list[Tensor], dict[str, list[Tensor]]]]:
        """Residuals and packed labels of every layer, shuffled within a few batches' worth of sequences."""
        order = torch.from_numpy(generator.permutation(len(self.training)))
        for part in order.split(max(SEQUENCES_SHUFFLED, self._sequences(BATCHES_SHUFFLED))):
            residuals, labels = self._activations(self.training[part], counting=self.epochs == 0)
            shuffled = torch.from_numpy(generator.permutation(len(residuals[0]))).to(self.model.device)
            yield (
                [residual[shuffled] for residual in residuals],
                {kind: [label[shuffled] for label in each] for kind, each in labels.items()},
            )

    def _sequences(self, batches: int) -> int:
        return max(1, batches * self.settings.batch_size // self.training.shape[1])

    @torch.no_grad()
    def _activations(self, rows: Tensor, counting: bool) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
        """Residuals and packed labels of every layer, [tokens, ...], of token ids [sequences, length].

        Skips the head, and keeps residuals in the model's precision.
        """
        residuals: list[list[Tensor]] = [[] for _ in self.active]
        labels: dict[str, list[list[Tensor]]] = {kind: [[] for _ in self.active] for kind in self.trainees}

        def keep(layer: int, residual: Tensor, x1: Tensor) -> None:
            x1 = x1.flatten(0, 1)
            residuals[layer].append(residual.flatten(0, 1))
            for kind, found in labels.items():
                found[layer].append(pack(LABEL_RULES[kind](x1, self.settings.top)))
            if counting:
                self.active[layer] += torch.count_nonzero(x1, dim=0)

        with observing(self.model, keep):
            for part in rows.split(self._sequences(1)):
                self.model.base_model(input_ids=part.to(self.model.device), use_cache=False)
        return (
            [torch.cat(parts) for parts in residuals],
            {kind: [torch.cat(parts) for parts in found] for kind, found in labels.items()},
        )

    @torch.no_grad()
    def _validate(self, learning: list[tuple[str, int, _Trainee]]) -> None:
        """Recall, predicted sparsity and loss on the held-out sequences, by each kind's own labels."""
        threshold = decision_logit(self.settings.decision_threshold)
        totals: dict[tuple[str, int], Tensor] = {}
        for part in self.validation.split(self._sequences(BATCHES_SHUFFLED)):
            residuals, labels = self._activations(part, counting=False)
            for kind, layer, trainee in learning:
                logits = trainee.predictor(residuals[layer].float())
                label = unpack(labels[kind][layer], logits.shape[1])
                predicted = logits >= threshold
                counts = [(predicted & label).sum(), label.sum(), predicted.sum()]
                values = torch.stack([*counts, weighted_loss(logits, label) * label.numel()])
                values = values.to(devices.widest_float(values.device))
                totals[kind, layer] = totals.get((kind, layer), torch.zeros_like(values)) + values
        for kind, layer, trainee in learning:
            hits, active, predicted_active, loss = totals[kind, layer].tolist()
            elements = self.validation.numel() * trainee.predictor.fc2.out_features
            trainee.judge(
                {
                    "recall": hits / active if active else 1.0,  # nothing to miss
                    "predicted_sparsity": 1 - predicted_active / elements,
                    "loss": loss / elements,
                }
            )

    def _report(self, learning: list[tuple[str, int, _Trainee]], seconds: float) -> None:
        parts = []
        for kind in self.trainees:
            last = [trainee.epochs[-1] for name, _, trainee in learning if name == kind]
            if last:
                loss, recall, sparsity = (
                    sum(values[key] for values in last) / len(last) for key in ("loss", "recall", "predicted_sparsity")
                )
                parts.append(
                    f"{kind}: loss {loss:.4f}, recall {100 * recall:.2f} %, predicted sparsity {100 * sparsity:.2f} % "
                    f"({len(last)} layers)"
                )
        left = 0 if self.finished else (self.settings.epochs - self.epochs) * seconds
        print(
            f"epoch {self.epochs}/{self.settings.epochs} | {' | '.join(parts) or 'marginal frequencies'} | "
            f"{self.training.numel() / seconds:,.0f} tokens/s | ETA at most {left:.0f} s",
            flush=True,
        )

    def save(self, path: Path) -> None:
        state = {
            "epochs": self.epochs,
            "seconds": self.seconds,
            "active": self.active,
            "trainees": {kind: [trainee.state() for trainee in each] for kind, each in self.trainees.items()},
        }
        save_whole(state, path)

    def restore(self, path: Path) -> None:
        if not path.exists():
            return
        state = torch.load(path, map_location=self.model.device, weights_only=True)
        self.epochs, self.seconds, self.active = state["epochs"], state["seconds"], state["active"]
        for kind, trainees in self.trainees.items():
            for trainee, saved in zip(trainees, state["trainees"][kind], strict=True):
                trainee.restore(saved)


def _finish(session: _Session, made_from: identity.Identity, resume: Path, output: Path, started: float) -> None:
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
