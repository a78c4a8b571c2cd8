"""A synthetic experiment and its result files: numbers are made up by formula, no model is involved."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

from prosparse.experiment import lineage, loading, table2_rows
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.experiment.lineage import tokens
from prosparse.method.schedule import factor, stage_at
from prosparse.paper import page
from prosparse.paper.results.reader import Results
from prosparse.published.settings import scale_of, settings
from prosparse.published.tables import BENCHMARKS

STAGES = [
    {"until": 40, "peak": 0.0},
    {"until": 60, "peak": 0.01},
    {"until": 100, "shape": "sine", "peak": 0.1},
    {"until": 120, "shape": "sine", "peak": 0.1},
    {"until": 160, "shape": "sine", "peak": 0.4},
    {"until": 180, "shape": "sine", "peak": 0.4},
]


def _run(stages: list[dict[str, Any]], activation: str = "relu", start: str = "base") -> dict[str, Any]:
    return {"init": {"run": start}, "activation": activation, "mixture": "mixed", "stages": stages}


def _constant(peak: float) -> dict[str, Any]:
    return _run([{"until": 40}, {"until": 180, "peak": peak}])


CORPORA = {
    "prose": ("wikipedia", "language_modelling"),
    "programs": ("starcoder", "language_modelling"),
    "dialogue": ("ultrachat", "instruction"),
    "questions": ("paq", "instruction"),
}

CONFIG: dict[str, Any] = {
    "experiment": "synthetic",
    "description": "Made-up numbers that test the tables.",
    "seeds": [1],
    "seed_deviation": {"loss": 0.0005, "sparsity": 0.05, "performance": 0.05},
    "training": {"learning_rate": 1e-3, "batch_size": 8, "micro_batch_size": 8},
    "data": {
        "context_length": 256,
        "tokenizers": {"bpe": {"vocabulary_size": 4096}},
        "corpora": {
            name: {"stands_for": stands_for, "kind": kind, "source": {"files": [f"{name}.jsonl"]}}
            for name, (stands_for, kind) in CORPORA.items()
        },
        "mixtures": {"mixed": dict.fromkeys(CORPORA, 1.0)},
        "mixed": "mixed",
        "heldout_sequences": 8,
        "tuning_sequences": 8,
    },
    "architectures": {
        "tiny": {"hidden_size": 128, "intermediate_size": 352, "layers": 6, "heads": 4, "kv_heads": 4},
    },
    "runs": {
        "base": {
            "init": {"architecture": "tiny"},
            "activation": "silu",
            "mixture": "mixed",
            "stages": [{"until": 2000}],
        },
        "vanilla": _run([{"until": 40}, {"until": 180}]),
        "shifted": _run([{"until": 180}], "shiftrelu-0.1"),
        "dense": _run([{"until": 180}], "silu"),
        "distilled": {**_run([{"until": 30}], start="dense"), "distillation": {"teacher": "base", "share": 0.5}},
        "progressive": _run(STAGES),
        **{f"constant-{peak:g}": _constant(peak) for peak in (0.05, 0.1, 0.4)},
        **{
            f"final-{peak:g}": _run([{"until": 60, "peak": peak}], start="progressive")
            for peak in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
        },
        "final-early": {
            **_run([{"until": 60, "peak": 0.1}]), "init": {"run": "vanilla"},
        },
        **{f"sft-{peak:g}": _run([{"until": 40, "peak": peak}], start="progressive") for peak in (0, 0.1, 0.4)},
        "steered": _run([{"until": 100, "target_sparsity": 0.9}]),
        "constant-0.3": _constant(0.3),
        "progressive-trial": {**_run(STAGES), "label": "trial"},
    },
    "benchmarks": {"rows": "packages", "tasks": list(BENCHMARKS), "limit": 100},
    "rows": {
        "LLaMA2-7B": "base",
        "ProSparse-7B*": "progressive",
        "ProSparse-7B": "progressive@fatrelu-0.01",
        "Vanilla ReLU-7B": "vanilla",
        "Shifted ReLU-7B": "shifted",
        "Fixed L1-7B": "constant-0.1",
        "Vanilla ReLU 34.60": "vanilla",
        "ProSparse 34.60": "progressive@fatrelu-0.01",
        "7B 5e-2": "constant-0.05@fatrelu-0.01",
        "7B 1e-1": "constant-0.1@fatrelu-0.01",
        "7B 5e-1": "constant-0.4@fatrelu-0.01",
        "7B ProSparse": "progressive@fatrelu-0.01",
        "7B 0": "progressive",
        "7B 0.01": "progressive@fatrelu-0.01",
        "7B 0.03": "progressive@fatrelu-0.03",
    },
    "ours": {"Dense, same tokens": "dense", "ProSparse, t = 0.03": "progressive@fatrelu-0.03"},
    "search": ["constant-0.3", "distilled", "progressive-trial", "progressive-trial@fatrelu-0.03"],
    "stages": {"7B": ["progressive"]},
    "figures": {
        "frontier": {
            "tiny (stands for LLaMA2-7B)": {
                "original": "base",
                "training_free": [0.5, 0.9],
                "methods": {
                    "Vanilla ReLU": ["vanilla", "vanilla@fatrelu-0.03"],
                    "Shifted ReLU": ["shifted"],
                    "Constant λ": [f"constant-{peak:g}@fatrelu-0.01" for peak in (0.05, 0.1, 0.4)],
                    "Progressive λ (ProSparse)": [
                        "progressive", "progressive@fatrelu-0.01", "progressive@fatrelu-0.03",
                    ],
                },
            },
            "tiny, fine-tuned": {
                "original": "dense",
                "methods": {
                    "Vanilla ReLU": ["vanilla"],
                    "Fine-tuned": ["sft-0", "sft-0.1", "sft-0.4", "sft-0.4@fatrelu-0.03"],
                },
            },
        },
        "schedule": ["vanilla", "constant-0.1", "progressive"],
        "sparsity_curves": ["vanilla", "shifted", "constant-0.1", "progressive"],
        "final_factor": [*(f"final-{peak:g}" for peak in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)), "final-early"],
    },
    "schedules": {
        "sparsities": [85.5, 87, 89.5],
        "comparisons": {
            "shapes": {
                "title": "λ shape, tiny",
                "reference": "Progressive",
                "methods": {
                    "Constant": [f"constant-{peak:g}" for peak in (0.05, 0.1, 0.4)],
                    "Progressive": ["vanilla@fatrelu-0.01", "progressive"],
                    "Resumed": ["final-0.3", "final-1", "final-3"],
                },
            },
        },
    },
    "operators": {
        "shapes": {"7B": [4096, 11008], "13B": [5120, 13824], "1B": [1536, 3840]},
        "densities": [1, 0.5, 0.107, 0.05],
    },
    "predictors": {"kinds": ["nonzero", "top", "svd"], "rank": 64, "tokens": 400_000},
    "decoding": {
        "precisions": ["bfloat16", "q4_0"],
        "shapes": {
            "llama-7b": {
                "hidden_size": 4096, "intermediate_size": 11008, "layers": 32, "heads": 32, "kv_heads": 32,
                "tied_embeddings": False, "vocabulary_size": 32000, "rows": ["ReluLLaMA-7B", "ProSparse-7B"],
            },
        },
        "engines": {"llama_cpp": True},
    },
    "supervised_finetuning": {"without": "sft-0", "smaller": "sft-0.1", "same": "sft-0.4"},
}  # fmt: skip

# time in us of the operators at 4096 x 11008: fixed + slope x density
TIMES = {
    "sparse": (20.0, 3000.0), "gathered": (150.0, 9000.0), "dense": (3020.0, 0.0), "torch": (4600.0, 0.0),
    "rows": (5.0, 2850.0), "stream": (0.0, 2800.0),
}  # fmt: skip
STEP_COST = {"up": 1.0, "down": 1.2}  # the down projection's times are longer by this factor

# recall of a kind of predictor at predicted sparsity p, true sparsity s: 1 - (p / s) ** (power * (1 + s)) up to s
POWERS = {"nonzero": 12.0, "top": 9.0, "svd": 5.0, "marginal": 2.5}
USED = {"nonzero": 0.80, "top": 0.85, "svd": 0.6, "marginal": 0.7}  # predicted sparsity over the true one

THRESHOLD_COSTS = {"cats": 0.5, "teal": 3.0, "cett": 0.25}  # nats over the dense model at 100% sparsity

SAME_TOKENS = {"exact": True, "predicted": 0.93}
BANDWIDTH = 20.0  # GB/s
WEIGHT_BYTES = {"bfloat16": 2, "q4_0": 18 / 32}
OVERHEAD = {"torch": 0.9, "dense": 0.25, "exact": 0.27, "predicted": 0.31}  # ms a token
RATES = {"torch": 0.5, "dense": 0.95, "exact": 0.93, "predicted": 0.9}  # of the bandwidth, reading weights

FIT = (-1.1, 0.4, 3.9)  # what figure 3 should find in the synthetic runs


def spread(median: float) -> dict[str, float]:
    return {"median": median, "lower_quartile": 0.95 * median, "upper_quartile": 1.05 * median}


def around(mean: float, of_row: float, of_pair: float, run: str) -> list[float]:
    """Values of eight sequences around a mean: what they share in every run, and what is the run's own."""
    turn = [2 * math.pi * row / 8 for row in range(8)]
    own = 2 + len(run) % 2
    return [mean + of_row * math.cos(t) + of_pair * math.sin(own * t) for t in turn]


class Synthetic:
    """Writes and edits a directory of made-up results."""

    def __init__(self, directory: Path, raw: dict[str, Any] | None = None) -> None:
        self.raw = copy.deepcopy(raw or CONFIG)
        self.experiment: Experiment = loading.load(self.raw)
        self.directory = directory
        self.layout = Layout(self.experiment, directory)

    @property
    def results(self) -> Results:
        return Results(self.layout)

    def plan(self, run: str) -> tuple[float, float]:
        """(sparsity share under ReLU, loss) of a run, by formula."""
        peak = self.experiment.runs[run].stages[-1].peak
        kind = run.split("-")[0]
        table = {
            "base": (0.0, 3.50),
            "vanilla": (0.66, 3.48),
            "shifted": (0.69, 3.482),
            "dense": (0.0, 3.47),
            "distilled": (0.65, 3.49),
            "progressive": (0.885, 3.49),
            "steered": (0.9, 3.5),
            "constant": (0.83 + 0.08 * peak**0.5, 3.50 + 0.2 * peak),
            "final": ((100 - math.exp(FIT[0] * peak ** FIT[1] + FIT[2])) / 100, 3.5),
            "decay": (0.88, 3.45),
            "sft": (0.70 + min(0.2, 2 * peak), 3.40 + 0.1 * peak),
        }
        return table[kind]

    def write(self) -> Synthetic:
        needs = page.needs(self.experiment)
        for seed in self.experiment.seeds:
            for run in needs.sparsity:
                self.json(self.layout.sparsity(run, seed), self.measured(run, seed))
            for run in needs.stage_sparsity:
                self.json(self.layout.stage_sparsity(run, seed), self.staged(run, seed))
            for run, activation in needs.training_free:
                self.json(self.layout.training_free(run, activation, seed), self.thresholded(run, activation, seed))
            for run, activation in needs.benchmarks:
                self.json(self.layout.benchmarks(run, activation, seed), self.answered(run, activation, seed))
            for run, stage in needs.stages:
                self.trained(run, stage, seed)
            for run, activation in needs.prediction:
                self.json(self.layout.prediction(run, activation, seed), self.predicted(run, activation, seed))
            for run, activation in needs.predicted_benchmarks:
                path = self.layout.predicted_benchmarks(run, activation, seed)
                self.json(path, self.answered(run, activation, seed))
        if needs.precision:
            self.json(self.layout.precision(), self.rounded())
        if needs.operators:
            self.json(self.layout.operators(), self.timed(self.random_cases()))
        if needs.trained_operators:
            self.json(self.layout.trained_operators(), self.timed(self.trained_cases()))
        if needs.decoding:
            self.json(self.layout.decoding(), self.decoded())
        for shape in needs.decoding_shapes:
            self.json(self.layout.decoding(shape), self.decoded(shape))
        for corpus in self.experiment.data.corpora:
            counts = {
                "read": 1200, "after_cleaning": 1150, "duplicates_removed": 80, "benchmark_removed": 3,
                "heldout_removed": 5, "heldout_shortened": 2, "heldout_coverage": {corpus: 0.975},
                "benchmark_coverage": {"copa": {"rows": 100, "matchable": 0.98}},
                "documents": {"train": 1000, "heldout": 67}, "characters": {"train": 900_000, "heldout": 45_678},
                "provenance": self.provenance(3.0),
            }  # fmt: skip
            self.json(self.layout.documents_counts(corpus)[0], counts)
            self.json(self.layout.manifest("bpe", corpus), {"tokens": 250_000})
        return self

    @staticmethod
    def json(path: Path, value: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    def edit(self, path: Path, change: Any) -> None:
        value = json.loads(path.read_text())
        change(value)
        self.json(path, value)

    @staticmethod
    def provenance(seconds: float) -> dict[str, Any]:
        return {
            "code_revision": "synthetic", "processor": "Imaginary CPU, 2 cores", "device": "cpu", "threads": 1,
            "packages": {"python": "3.11"}, "wall_seconds": seconds,
        }  # fmt: skip

    def measured(self, run: str, seed: int) -> dict[str, Any]:
        sparsity, loss = self.plan(run)
        own = str(self.experiment.runs[run].activation)
        entries = []
        for activation in dict.fromkeys([own, "relu", "fatrelu-0.01", "fatrelu-0.03"]):
            if activation != own and run == "base":
                continue
            threshold = float(activation.partition("-")[2] or 0) if activation.startswith("fatrelu") else 0.0
            share = min(sparsity + 1.2 * threshold, 0.99) + 0.001 * seed
            cost = loss + 15 * threshold**2 + 0.002 * seed
            layers = [
                share + 0.04 * (k - 2.5) / 2.5 + threshold * (0.8 - 0.2 * k) for k in range(6)
            ] if sparsity else [0.0] * 6  # fmt: skip
            corpora = {
                name: {
                    "stands_for": stands_for,
                    "sparsity": share + offset if sparsity else 0.0,
                    "layer_sparsity": layers,
                    "loss": cost,
                    "bits_per_byte": cost / 2.5,
                    "tokens": 2048,
                    "sequences": {
                        "loss": around(cost, 0.1, 0.0005, run),
                        "sparsity": around(share + offset, 0.02, 0.001, run) if sparsity else [0.0] * 8,
                    },
                }
                for offset, (name, (stands_for, _)) in zip((-0.04, 0.0, 0.01, 0.03), CORPORA.items(), strict=True)
            }
            entries.append(
                {
                    "activation": activation, "sparsity": share if sparsity else 0.0, "layer_sparsity": layers,
                    "loss": cost, "bits_per_byte": cost / 2.5, "tokens": 8192, "corpora": corpora,
                }
            )  # fmt: skip
        return {"run": run, "seed": seed, "measurements": entries, "provenance": self.provenance(2.0)}

    def thresholded(self, run: str, activation: str, seed: int) -> dict[str, Any]:
        """A dense run under thresholds: 1 point less sparse than the target, at a cost that grows with its cube."""
        dense = next(each for each in self.measured(run, seed)["measurements"] if each["activation"] == activation)
        entries = []
        for method, whole in THRESHOLD_COSTS.items():
            targets = lineage.training_free_targets(self.experiment)[run, activation]
            settings = {f"{method}-{target:g}": target for target in targets} | {f"{method}-ppl-1%": 0.2}
            for setting, target in settings.items():
                entry, cost = copy.deepcopy(dense), whole * target**3
                for part in (entry, *entry["corpora"].values()):
                    part |= {"sparsity": target - 0.01, "layer_sparsity": [target - 0.01] * 6}
                    part |= {"input_sparsity": target if method == "teal" else 0.0, "loss": part["loss"] + cost}
                    if "sequences" in part:
                        part["sequences"] = {
                            "loss": [loss + cost for loss in part["sequences"]["loss"]],
                            "sparsity": [target - 0.01] * 8,
                        }
                entries.append({**entry, "setting": setting, "target": target, "thresholds": []})
        return {"run": run, "seed": seed, "measurements": entries, "provenance": self.provenance(5.0)}

    def staged(self, run: str, seed: int) -> dict[str, Any]:
        """A run's measurement after every stage: as sparse as its last, in proportion to the steps with lambda > 0."""
        chosen, measured = self.experiment.runs[run], self.measured(run, seed)
        own = next(each for each in measured["measurements"] if each["activation"] == str(chosen.activation))
        regularized = [self.weight(run, step) > 0 for step in range(1, chosen.stages[-1].until + 1)]
        entries = []
        for stage, _ in lineage.chain(self.experiment, run):
            step = 0 if stage is None else chosen.stages[stage].until
            left = sum(regularized[step:]) / max(sum(regularized), 1)
            entry = copy.deepcopy(own)
            for part in (entry, *entry["corpora"].values()):
                part["sparsity"] -= 0.2 * left
                part["layer_sparsity"] = [share - 0.2 * left for share in part["layer_sparsity"]]
                if "sequences" in part:
                    part["sequences"]["sparsity"] = [share - 0.2 * left for share in part["sequences"]["sparsity"]]
            entries.append({"stage": stage, "step": step, **entry})
        return {**measured, "measurements": entries}

    def answered(self, run: str, activation: str, seed: int) -> dict[str, Any]:
        chances = {"piqa": 0.5, "winogrande": 0.5, "copa": 0.5, "boolq": 0.5, "siqa": 1 / 3, "hellaswag": 0.25,
                   "mmlu": 0.25, "tydiqa": 0.1}  # fmt: skip
        scores = {}
        for name in BENCHMARKS:
            if name == "agi_eval":
                continue
            chance = chances.get(name, 0.0)
            scores[name] = {
                "score": chance + 0.02 + 0.01 * seed, "standard_error": 0.04, "n": 100, "chance": chance, "shots": 0,
                "metric": "accuracy", "task": name,
                "rows": [chance + 0.02 + 0.01 * seed + (0.4 if row % 2 else -0.4) for row in range(100)],
                "stand_in": "questions of another set" if name == "siqa" else None,
            }  # fmt: skip
        for name, generated in (("mmlu_likelihood", "mmlu"), ("bbh_likelihood", "bbh")):
            if name in self.experiment.benchmarks.tasks:
                scores[name] = scores[generated] | {"score": 0.5, "chance": 0.3, "left_out": 7, "metric": "likeliest"}
        missing = {"agi_eval": "no package holds its rows"}
        return {
            "run": run, "seed": seed, "activation": activation, "benchmarks": scores, "missing": missing,
            "provenance": self.provenance(9.0),
        }  # fmt: skip

    def share(self, run: str, activation: str, seed: int) -> float:
        """Sparsity of a pair, by formula."""
        return next(
            entry["sparsity"] for entry in self.measured(run, seed)["measurements"] if entry["activation"] == activation
        )

    def predicted(self, run: str, activation: str, seed: int) -> dict[str, Any]:
        sparsity, loss = self.share(run, activation, seed), self.plan(run)[1]
        settings = self.experiment.predictors

        def at(kind: str, share: float) -> dict[str, float]:
            recall = max(0.0, 1 - share ** (POWERS[kind] * (1 + sparsity)))
            return {
                "activation_recall": recall,
                "precision": recall * (1 - sparsity) / (1 - share * sparsity),
                "predicted_sparsity": share * sparsity,
            }

        kinds = {}
        for kind in [*settings.kinds, "marginal"]:
            used = at(kind, USED[kind])
            kinds[kind] = {
                "rank": None if kind == "marginal" else settings.rank, **used,
                "layers": [used] * 6, "loss": loss + 0.1 * (1 - used["activation_recall"]),
                "sweep": [{"decision_threshold": step / 20, **at(kind, step / 20)} for step in range(1, 20)],
            }  # fmt: skip
            if kind == settings.kinds[0]:
                for point in kinds[kind]["sweep"]:
                    point["loss"] = loss + 0.1 * (1 - point["activation_recall"])
        return {
            "run": run, "seed": seed, "activation": activation, "decision_threshold": 0.5, "sparsity": sparsity,
            "layer_sparsity": [sparsity] * 6, "loss": loss, "tokens": 8192, "kinds": kinds,
            "provenance": self.provenance(30.0),
        }  # fmt: skip

    def rounded(self) -> dict[str, Any]:
        """Loss of the decoded pairs in each precision: 4 bits cost 0.1 nats and add half a point of sparsity."""
        models = []
        for pair in dict.fromkeys(table2_rows.decoded(self.experiment).values()):
            run, _, activation = pair.partition("@")
            for precision in self.experiment.decoding.precisions:
                cost = 0.1 if precision == "q4_0" else 0.0
                share = self.share(run, activation, self.experiment.seeds[0])
                found = {"sparsity": share + cost / 20, "loss": self.plan(run)[1] + cost}
                models.append({"pair": pair, "precision": precision, **found, "bits_per_byte": 1.4, "tokens": 8192})
        return {"device": "cpu", "models": models, "provenance": self.provenance(5.0)}

    def decoded(self, shape: str | None = None) -> dict[str, Any]:
        """Of the trained models, or of a shape's synthetic ones."""
        models = []
        if shape is None:
            for row, pair in table2_rows.decoded(self.experiment).items():
                run, _, activation = pair.partition("@")
                architecture = {**self.experiment.architectures["tiny"].model_dump(), "vocabulary_size": 4096}
                sparsity = self.share(run, activation, self.experiment.seeds[0])
                predicted = row in table2_rows.predicted(self.experiment)
                given = {"pair": pair, "synthetic": False, "architecture": architecture, "sparsity": sparsity}
                if predicted:
                    used = self.predicted(run, activation, 1)["kinds"]["nonzero"]
                    given |= {key: used[key] for key in ("activation_recall", "predicted_sparsity")}
                models.append({"row": row, **given})
        else:
            chosen = self.experiment.decoding.shapes[shape]
            for setting in settings():
                if setting.name in chosen.rows:
                    given = {
                        key: float(setting.printed[name]) / 100
                        for key, name in (
                            ("sparsity", "average_sparsity"),
                            ("activation_recall", "activation_recall"),
                            ("predicted_sparsity", "predicted_sparsity"),
                        )
                    }
                    models.append(
                        {
                            "row": setting.name,
                            "synthetic": True,
                            "architecture": chosen.model_dump(exclude={"rows"}),
                            **given,
                        }
                    )
        return {
            "device": "cpu", "threads": 2, "prompts": 4, "prompt_tokens": 5, "new_tokens": 128,
            "models": [
                self.model({**model, "precision": precision})
                for model in models
                for precision in self.experiment.decoding.precisions
            ],
            "provenance": self.provenance(200.0),
        }  # fmt: skip

    def model(self, given: dict[str, Any]) -> dict[str, Any]:
        """A model's decoding, from its shape and shares."""
        shape = given["architecture"]
        hidden, intermediate, layers = (shape[key] for key in ("hidden_size", "intermediate_size", "layers"))
        size = WEIGHT_BYTES[given["precision"]]
        attention, projection = 4 * size * layers * hidden**2, size * layers * hidden * intermediate
        head, cache = size * shape["vocabulary_size"] * hidden, 4 * layers * hidden * 69
        rank = self.experiment.predictors.rank if self.experiment.predictors else 0
        rank = shape.get("rank", rank)
        active, predicted = 1 - given["sparsity"], 1 - given.get("predicted_sparsity", 0.0)
        every = {"gate": projection, "active_rows": 2 * projection}
        bytes_of = {
            "torch": every,
            "dense": every,
            "exact": {"gate": projection, "active_rows": 2 * active * projection},
            "predicted": {
                "gate": predicted * projection, "active_rows": 2 * predicted * projection,
                "predictor": size * layers * rank * (hidden + intermediate),
            },
        }  # fmt: skip
        times: dict[str, float] = {}
        modes = {}
        for mode, parts in bytes_of.items():
            if mode == "torch" and given["precision"] == "q4_0":
                continue
            if mode == "exact" and given["sparsity"] == 0:
                break
            if mode == "predicted" and "predicted_sparsity" not in given:
                break
            moved = {"attention": attention, "gate": 0, "active_rows": 0, "predictor": 0, **parts}
            moved = {key: round(value) for key, value in {**moved, "head": head, "kv_cache": cache}.items()}
            moved["all"] = sum(moved.values())
            bound = moved["all"] / BANDWIDTH / 1e6  # ms
            times[mode] = bound / RATES[mode] + OVERHEAD[mode]
            modes[mode] = {
                "tokens_per_second": spread(1e3 / times[mode]), "milliseconds_per_token": spread(times[mode]),
                "first_token_milliseconds": spread(1.5 * times[mode]), "bytes": moved,
                "times_faster_than_dense": 0.0, "bound_milliseconds": spread(bound),
                "share_of_bound": spread(bound / times[mode]), "overhead_milliseconds": OVERHEAD[mode],
            }  # fmt: skip
        for mode, arm in modes.items():
            arm["times_faster_than_dense"] = spread(times["dense"] / times[mode])
        engine = {
            "version": "0.3", "tokens_per_second": spread(900 / times["dense"]), "precision": given["precision"],
            "first_token_milliseconds": spread(2 * times["dense"]),
        }  # fmt: skip
        engines = {"powerinfer": {"missing": "its binary is not built"}} if given["synthetic"] else {}
        return {
            "scale": scale_of(given["row"]), "weight_bytes": round(attention + 3 * projection + head), **given,
            "bandwidth": spread(BANDWIDTH), "modes": modes, "engines": {"llama.cpp": engine, **engines},
            "same_tokens_as_dense": {mode: same for mode, same in SAME_TOKENS.items() if mode in modes},
        }  # fmt: skip

    def random_cases(self) -> list[dict[str, Any]]:
        return [
            {"scale": scale, "patterns": "random", **self.case(*self.experiment.operators.shapes[scale], density)}
            for scale, densities in table2_rows.densities(self.experiment).items()
            for density in densities
        ]

    def trained_cases(self) -> list[dict[str, Any]]:
        return [
            {"row": row, "patterns": pair.partition("@")[2], **self.case(128, 352, 0.1)}
            for row, pair in table2_rows.trained(self.experiment).items()
        ]

    def timed(self, cases: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "device": "cpu", "threads": 2, "dtype": "bfloat16", "rounds": 40, "last_level_cache_bytes": 32 << 20,
            "memory_bytes": 2 << 30, "large_pages": True, "cases": cases, "provenance": self.provenance(100.0),
        }  # fmt: skip

    @staticmethod
    def case(hidden: int, intermediate: int, density: float) -> dict[str, Any]:
        size = hidden * intermediate / (4096 * 11008)
        density = round(density * intermediate) / intermediate

        def time(kind: str, step: str) -> float:
            fixed, slope = TIMES[kind]
            return STEP_COST.get(step, 1.0) * (fixed + size * slope * density) * (1 if slope else size)

        names = [(kind, step) for kind in ("sparse", "dense", "gathered", "torch") for step in STEP_COST]
        moved = {kind: 2 * hidden * intermediate * (density if kind != "dense" else 1.0) for kind in TIMES}
        cold = {}
        for kind, step in [*names, ("stream", ""), ("rows", "")]:
            others = [other for other in ("torch", "dense", "gathered") if step and other != kind]
            cold[f"{kind}_{step}".rstrip("_")] = {
                "microseconds": spread(time(kind, step)),
                "gigabytes_per_second": spread(moved[kind] / time(kind, step) / 1e3),
                **{
                    f"share_of_{limit}": spread(moved[kind] / time(kind, step) / (moved[limit] / time(limit, "")))
                    for limit in ("stream", "rows")
                },
                "times_faster_than": {f"{o}_{step}": spread(time(o, step) / time(kind, step)) for o in others},
            }
        warm = {name: {"microseconds": spread(0.5 * arm["microseconds"]["median"])} for name, arm in cold.items()}
        return {
            "hidden_size": hidden, "intermediate_size": intermediate, "density": density, "cold": cold, "warm": warm,
        }  # fmt: skip

    def weight(self, run: str, step: int) -> float:
        """Lambda of a step; made up for a stage with a target."""
        stages = self.experiment.runs[run].stages
        steered = stages[stage_at(stages, step)[0]].target_sparsity is not None
        return 0.001 * step if steered else factor(stages, step)

    def trained(self, run: str, stage: int, seed: int) -> None:
        chosen = self.experiment.runs[run]
        start = chosen.stages[stage - 1].until if stage else 0
        end, _ = self.plan(run)
        lines = ["step,tokens,lambda,lm_loss,l1,l_reg_ratio,sparsity,learning_rate,tokens_per_second"]
        reached = 0.0
        for step in range(start + 5, chosen.stages[stage].until + 1, 5):
            last = chosen.stages[-1].until
            regularized = [s for s in range(1, step + 1) if self.weight(run, s) > 0]
            total = sum(self.weight(run, s) > 0 for s in range(1, last + 1))
            level = 0.66 if run != "shifted" else 0.69
            reached = level + (end - level) * (len(regularized) / total if total else 0)
            reached += 0.004 * math.sin(step) + 0.002 * seed
            amount = step * tokens(self.experiment, run) // last
            lines.append(f"{step},{amount},{self.weight(run, step)},3.6,0.1,0.01,{reached},1e-3,9000")
        directory = self.layout.checkpoint(run, stage, seed)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "ledger.csv").write_text("\n".join(lines) + "\n")
        until = chosen.stages[stage].until
        final = {"lambda": self.weight(run, until) if until else 0.0, "lm_loss": 3.6, "sparsity": reached}
        if not until:
            final |= {"lm_loss": None, "sparsity": None}
        record = {
            "run": lineage.owner(self.experiment, run, stage), "seed": seed, "stage": stage,
            "steps": until,
            "tokens": tokens(self.experiment, run, stage),
            "final": final,
            "provenance": self.provenance(20.0),
        }  # fmt: skip
        self.json(directory / "provenance.json", record)
