"""A whole config file.

A *run* is a chain of training stages from one starting point: a pretrained base, an activation substitution, each
regularized stage and each baseline are runs. A *pair* is the unit of measurement: a run's last checkpoint under an
activation, written ``run`` or ``run@activation``.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from prosparse.experiment.activation import Activation
from prosparse.experiment.calibration import Calibration
from prosparse.experiment.data import Data
from prosparse.experiment.decoding import Decoding
from prosparse.experiment.figures import Figures
from prosparse.experiment.measurement import Benchmarks, Operators, Predictors
from prosparse.experiment.model import Architecture, PretrainedInit, RunInit, ScratchInit
from prosparse.experiment.schedules import Schedules
from prosparse.experiment.section import Count, Name, Precision, Section, Seed, check_known
from prosparse.experiment.training import Run
from prosparse.published.tables import row_keys
from prosparse.system.errors import ConfigError


class SupervisedFinetuning(Section):
    """Runs compared for claim 10."""

    without: Name = Field(description="SFT with λ = 0.")
    smaller: Name = Field(description="SFT with a λ smaller than λ_S.")
    same: Name = Field(description="SFT with λ_S.")


class SeedDeviation(Section):
    """How much a difference between two runs varies over seeds, measured elsewhere, for an experiment with one seed.

    Standard deviations of a paired difference.
    """

    loss: Annotated[float, Field(ge=0)] = Field(description="Of held-out loss, nats/token.")
    sparsity: Annotated[float, Field(ge=0)] = Field(description="Of sparsity, percentage points.")
    performance: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Of average performance, percentage points."
    )


class Hardware(Section):
    """What ``snakemake plan`` estimates costs for."""

    gpu: str = Field(description="Name of the GPU.")
    gpus: Count = Field(description="GPUs that train one run.")
    memory_gigabytes: Annotated[float, Field(gt=0)] = Field(description="Memory of one GPU.")
    teraflops: Annotated[float, Field(gt=0)] = Field(description="Its dense bfloat16 peak.")
    utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.4, description="Share of the peak that training reaches."
    )


class Experiment(Section):
    """A whole config file."""

    experiment: Name = Field(description="Its name, and that of its folder in results/.")
    description: str = Field(description="One sentence for the page.")
    seeds: list[Seed] = Field(min_length=1, description="Every run is trained once per seed.")
    seed_deviation: SeedDeviation | None = Field(
        default=None,
        description="What one seed cannot show: how much a difference between runs varies over seeds. With several "
        "seeds it is measured instead.",
    )
    optimizer_states: Literal["all", "last"] = Field(
        default="all",
        description="last: a finished stage's AdamW states, two thirds of its size, are removed once every stage that "
        "continues it is finished.",
    )
    threads: Count = Field(default=1, description="CPU threads per training job.")
    data: Data = Field(description="Corpora, tokenizers and mixtures.")
    architectures: dict[Name, Architecture] = Field(default={}, description="Model shapes by name.")
    runs: dict[Name, Run] = Field(min_length=1, description="Runs by name.")
    benchmarks: Benchmarks = Field(description="Which benchmarks are answered.")
    rows: dict[str, str] = Field(description="Published row -> the pair that stands for it.")
    benchmarked: list[str] = Field(
        default=[], description="Pairs that answer the benchmarks; default: all in rows and ours."
    )
    ours: dict[str, str] = Field(default={}, description="Label -> pair, for comparisons the paper does not have.")
    search: list[str] = Field(default=[], description="Pairs: the short runs that chose the recipe.")
    stages: dict[Literal["7B", "13B", "1B"], list[Name]] = Field(
        default={}, description="Scale -> runs whose stages are Tables 6 and 7."
    )
    vanilla: dict[Literal["13B", "1B"], str] = Field(
        default={}, description="Scale -> Vanilla ReLU pair at equal tokens; that of 7B is in `rows`."
    )
    calibration: dict[Literal["7B", "13B", "1B"], Calibration] = Field(
        default={},
        description="Scale of the paper -> how λ of the model that stands for it is calibrated: the peaks of its runs "
        "are the paper's, and are multiplied by one number.",
    )
    figures: Figures = Field(default=Figures(), description="Which runs the figures draw.")
    schedules: Schedules = Field(default=Schedules(), description="Methods compared at equal sparsity.")
    operators: Operators | None = Field(default=None, description="Time the sparse FFN operators.")
    predictors: Predictors | None = Field(default=None, description="Train activation predictors.")
    decoding: Decoding | None = Field(default=None, description="Time decoding.")
    supervised_finetuning: SupervisedFinetuning | None = Field(default=None, description="Runs of claim 10.")
    hardware: Hardware | None = Field(default=None, description="The hardware that costs are estimated for.")
    release: list[str] = Field(default=[], description="Pairs that get a folder to upload, with a model card.")
    bases: list[Name] = Field(
        default=[], description="Runs whose last checkpoints `snakemake bases` writes to workflow/bases; one tokenizer."
    )
    precision: Precision = Field(default="float32", description="Precision of the measured models.")

    @field_validator("seeds")
    @classmethod
    def seeds_are_distinct(cls, seeds: list[int]) -> list[int]:
        if repeated := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
            raise ValueError(f"each seed may appear once; repeated: {', '.join(map(str, repeated))}")
        return seeds

    @model_validator(mode="after")
    def references_exist(self) -> Self:
        for name, run in self.runs.items():
            check_known(run.mixture, self.data.mixtures, f"runs.{name}.mixture")
            self._check_tokenizer(name)
            if isinstance(run.init, ScratchInit | PretrainedInit) and run.init.architecture is not None:
                check_known(run.init.architecture, self.architectures, f"runs.{name}.init.architecture")
            if run.distillation is not None:
                check_known(run.distillation.teacher, self.runs, f"runs.{name}.distillation.teacher")
            if isinstance(run.init, RunInit):
                check_known(run.init.run, self.runs, f"runs.{name}.init.run")
                stages = len(self.runs[run.init.run].stages)
                if run.init.stage is not None and run.init.stage >= stages:
                    raise ValueError(
                        f"runs.{name}.init.stage is {run.init.stage}: {run.init.run} has stages 0 to {stages - 1}"
                    )
            self._check_acyclic(name)
        for name in self.runs:  # every name they refer to exists by now
            self._check_shared_tokenizer(name)
        for row, pair in self.rows.items():
            check_known(row, row_keys(), "rows")
            self.pair(pair, f"rows.{row}")
        for label, pair in self.ours.items():
            self.pair(pair, f"ours.{label}")
        for size, pair in self.vanilla.items():
            self.pair(pair, f"vanilla.{size}")
        for key in ("search", "benchmarked", "release"):
            for pair in getattr(self, key):
                self.pair(pair, key)
        for scale, runs in self.stages.items():
            for run_name in runs:
                check_known(run_name, self.runs, f"stages.{scale}")
        for key in ("schedule", "sparsity_curves", "final_factor"):
            for run_name in getattr(self.figures, key):
                check_known(run_name, self.runs, f"figures.{key}")
        for run_name in self.figures.final_factor:
            if self.runs[run_name].stages[-1].steered:
                raise ValueError(f"figures.final_factor: {run_name} ends with a target_sparsity; allowed: with a peak")
        for label, frontier in self.figures.frontier.items():
            self.pair(frontier.original, f"figures.frontier.{label}.original")
            for method, pairs in frontier.methods.items():
                for pair in pairs:
                    self.pair(pair, f"figures.frontier.{label}.methods.{method}")
        for name, comparison in self.schedules.comparisons.items():
            for method, pairs in comparison.methods.items():
                for pair in pairs:
                    self.pair(pair, f"schedules.comparisons.{name}.methods.{method}")
        for base in self.bases:
            check_known(base, self.runs, "bases")
        if len(tokenizers := {self.tokenizer(base) for base in self.bases}) > 1:
            raise ValueError(f"bases: all must have the same tokenizer, but they have {', '.join(sorted(tokenizers))}")
        for scale, calibration in self.calibration.items():
            key = f"calibration.{scale}.run"
            check_known(calibration.run, self.runs, key)
            first, *rest = self.runs[calibration.run].stages
            if first.regularized or not first.until or not any(stage.peak for stage in rest):
                raise ValueError(f"{key}: {calibration.run} needs a stage 0 without λ and a later stage with a peak")
        self._check_search()
        if self.supervised_finetuning is not None:
            for key, run_name in self.supervised_finetuning:
                check_known(run_name, self.runs, f"supervised_finetuning.{key}")
        return self

    def _check_search(self) -> None:
        """Runs that choose the recipe are measured on tuning rows, reported runs on held-out rows."""
        searched = {self.pair(pair)[0] for pair in self.search}
        if searched and not self.data.tuning_sequences:
            raise ValueError("data.tuning_sequences: search needs at least 1, rows that are not reported")
        reported = {
            "rows": self.rows.values(),
            "ours": self.ours.values(),
            "vanilla": self.vanilla.values(),
            "figures.frontier": self.figures.frontier_pairs(),
            "figures.final_factor": self.figures.final_factor,
            "schedules": self.schedules.pairs(),
        }
        for where, pairs in reported.items():
            for pair in pairs:
                if (run := self.pair(pair)[0]) in searched:
                    raise ValueError(f"{where}: {run} is in search, whose runs are measured on tuning rows only")

    def _check_acyclic(self, name: str, seen: tuple[str, ...] = ()) -> None:
        if name in seen:
            raise ValueError(f"runs.{name}: a cycle, {' -> '.join([*seen, name])}")
        run = self.runs[name]
        behind = [run.init.run] if isinstance(run.init, RunInit) else []
        behind += [run.distillation.teacher] if run.distillation is not None else []
        for other in behind:
            if other in self.runs:
                self._check_acyclic(other, (*seen, name))

    def _check_tokenizer(self, name: str) -> None:
        tokenizers, chosen = self.data.tokenizers, self.runs[name].tokenizer
        if chosen is not None:
            check_known(chosen, tokenizers, f"runs.{name}.tokenizer")
        elif len(tokenizers) > 1:
            raise ValueError(f"runs.{name}.tokenizer: name one of {', '.join(tokenizers)}")

    def _check_shared_tokenizer(self, name: str) -> None:
        run, own = self.runs[name], self.tokenizer(name)
        others = {"init.run": run.init.run} if isinstance(run.init, RunInit) else {}
        others |= {"distillation.teacher": run.distillation.teacher} if run.distillation is not None else {}
        for key, other in others.items():
            if self.tokenizer(other) != own:
                raise ValueError(
                    f"runs.{name}.tokenizer is {own}: that of {key} {other} is {self.tokenizer(other)}, "
                    "and token ids differ between tokenizers"
                )

    def tokenizer(self, run: str) -> str:
        """Return the name of a run's tokenizer."""
        return self.runs[run].tokenizer or next(iter(self.data.tokenizers))

    def answers_benchmarks(self, run: str, activation: Activation | str) -> bool:
        """Return whether a pair answers the benchmarks. Its sparsity and held-out loss are measured either way."""
        chosen = [(name, str(own)) for name, own in map(self.pair, self.benchmarked)]
        return bool(self.benchmarks.tasks) and (not chosen or (run, str(activation)) in chosen)

    def pair(self, text: str, where: str = "pair") -> tuple[str, Activation]:
        """Parse ``run`` (under its own activation) or ``run@activation`` into (run, activation)."""
        run, _, activation = text.partition("@")
        check_known(run, self.runs, where)
        try:
            return run, Activation.parse(activation) if activation else self.runs[run].activation
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
