"""Predictors in training: every kind and layer, their metrics and saved state."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from prosparse.experiment.specifications import PredictorSpecification
from prosparse.inference.predictor_labels import LABEL_RULES, logit_gradient, pack, unpack, weighted_loss
from prosparse.inference.predictors import Predictor, decision_logit, observing, save_whole
from prosparse.system import devices

BATCHES_SHUFFLED = 4  # shuffled together, or more batches:
SEQUENCES_SHUFFLED = 8  # so that a batch mixes texts, however long the context


@dataclass
class Trainee:
    """One layer's predictor of one kind, and its best weights so far."""

    predictor: Predictor
    optimizer: torch.optim.Optimizer
    best: dict[str, Tensor] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)  # held-out metrics after each epoch

    @classmethod
    def of(cls, predictor: Predictor, learning_rate: float) -> Trainee:
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


class Session:
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
                Trainee.of(Predictor(size, self.settings.rank, neurons).to(model.device), self.settings.learning_rate)
                for _ in range(layers)
            ]
            for kind in self.settings.kinds
            if kind in LABEL_RULES
        }

    @property
    def learning(self) -> list[tuple[str, int, Trainee]]:
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
    def _validate(self, learning: list[tuple[str, int, Trainee]]) -> None:
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

    def _report(self, learning: list[tuple[str, int, Trainee]], seconds: float) -> None:
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
