"""Where results are stored: no other module of the package spells out these paths.

The rules repeat the paths of their outputs, as readers of Snakemake expect; a test compares them with this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prosparse.experiment import lineage
from prosparse.experiment.activation import Activation
from prosparse.experiment.data import Tokenizer
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.model import PretrainedInit
from prosparse.system.errors import ConfigError
from prosparse.system.identity import MANIFEST

RESULTS = Path("results")
PACKAGES = RESULTS / "packages"

#: Files of a checkpoint's directory: what it was made from, which marks it as finished, and how its training went.
PROVENANCE = "provenance.json"
LEDGER = "ledger.csv"

#: What `snakemake publish` copies, as patterns in an experiment's directory: no weights, tokens or logs.
PUBLISHED = (
    "README.md",
    "details.md",
    "index.html",
    "config.json",
    "claims.*",
    "acceleration.md",
    "tables/*",
    "figures/*",
    "calibration/*",
    "release/*/README.md",
    "measurements/**/*.json",
    "checkpoints/**/ledger.csv",
    "checkpoints/**/provenance.json",
    "data/documents/*/*.json",
    "data/tokens/**/manifest.json",
    "predictors/*/seed*/*/training.json",
    "timings/**/*.tsv",
)

#: Results that record their job's working time: folder in ``timings`` -> pattern in an experiment's directory.
TIMED = {
    "train": "checkpoints/*/seed*/stage*/provenance.json",
    "sparsity": "measurements/*/seed*/sparsity.json",
    "stage_sparsity": "measurements/*/seed*/stages.json",
    "training_free": "measurements/*/seed*/training_free/*.json",
    "benchmarks": "measurements/*/seed*/benchmarks/*.json",
    "predictors": "predictors/*/seed*/*/training.json",
    "prediction": "measurements/*/seed*/prediction/*.json",
    "predicted_benchmarks": "measurements/*/seed*/predicted_benchmarks/*.json",
    "documents": "data/documents/*/*.json",
    "tokens": "data/tokens/*/*/shards/*/manifest.json",
}


@dataclass(frozen=True)
class Layout:
    """The files of one experiment, under ``directory``."""

    experiment: Experiment
    directory: Path

    @classmethod
    def of(cls, experiment: Experiment) -> Layout:
        """Return the layout under ``results/{experiment}``, where the rules write."""
        return cls(experiment, RESULTS / experiment.experiment)

    def relative(self, path: Path) -> str:
        return str(path.relative_to(self.directory))

    def published(self) -> Path:
        """Return the directory of the committed copy."""
        return self.directory.parent / "published" / self.directory.name

    # ------------------------------------------------------------------------------- data

    def archive(self, package: str) -> Path:
        """Return a fetched package."""
        return PACKAGES / self.experiment.data.packages[package].archive_name(package)

    def unpacked(self, package: str) -> Path:
        """Return the directory of files unpacked from a package."""
        return PACKAGES / self.experiment.data.packages[package].directory_name(package)

    def start_gguf(self, run: str) -> Path | None:
        """Return the package's GGUF file that a run starts from; None if it starts from anything else."""
        init = self.experiment.runs[run].init
        return self._gguf(f"runs.{run}.init", init) if isinstance(init, PretrainedInit) else None

    def tokenizer_gguf(self, name: str) -> Path | None:
        """Return the package's GGUF file that holds a tokenizer; None if it comes from anywhere else."""
        return self._gguf(f"data.tokenizers.{name}", self.experiment.data.tokenizers[name])

    def _gguf(self, key: str, origin: PretrainedInit | Tokenizer) -> Path | None:
        directory = Path(origin.pretrained or "")
        if origin.gguf_file is None or not directory.is_relative_to(PACKAGES):
            return None
        known = [self.unpacked(package) for package in self.experiment.data.packages]
        if directory not in known:
            raise ConfigError(
                f"{key}.pretrained: {directory} belongs to no package in data.packages; allowed: "
                f"{', '.join(map(str, known))}"
            )
        return directory / origin.gguf_file

    def check_packages(self) -> None:
        """Raise ConfigError, before any work, for a GGUF file whose directory belongs to no package."""
        for run in self.experiment.runs:
            self.start_gguf(run)
        for tokenizer in self.experiment.data.tokenizers:
            self.tokenizer_gguf(tokenizer)

    def benchmark_rows(self) -> Path:
        """Return the row counts, next to the rows themselves."""
        return self.directory / "data/benchmark_rows/rows.json"

    def candidates(self, corpus: str, shard: int) -> Path:
        return self.directory / f"data/candidates/{corpus}/{shard}.parquet"

    def documents(self, corpus: str, shard: int) -> Path:
        return self.directory / f"data/documents/{corpus}/{shard}.parquet"

    def documents_counts(self, corpus: str) -> list[Path]:
        """Return the counts of each of a corpus's shards, next to its documents."""
        shards = self.experiment.data.corpora[corpus].shards
        return [self.documents(corpus, shard).with_suffix(".json") for shard in range(shards)]

    def tokenizer(self, name: str) -> Path:
        return self.directory / f"data/tokenizers/{name}/tokenizer.json"

    def tokens(self, tokenizer: str) -> Path:
        """Return the directory of all corpora's tokens under a tokenizer."""
        return self.directory / f"data/tokens/{tokenizer}"

    def manifest(self, tokenizer: str, corpus: str) -> Path:
        """Return the description of a corpus's tokens, next to them."""
        return self.tokens(tokenizer) / corpus / MANIFEST

    def shard_manifest(self, tokenizer: str, corpus: str, shard: int) -> Path:
        return self.tokens(tokenizer) / corpus / f"shards/{shard}" / MANIFEST

    # --------------------------------------------------------------------------- training

    def checkpoint(self, run: str, stage: int | None, seed: int) -> Path:
        """Return a stage's directory, which another run may own; ``stage`` None means the last."""
        owner, index = lineage.checkpoint(self.experiment, run, stage)
        return self.directory / f"checkpoints/{owner}/seed{seed}/stage{index}"

    def provenance(self, run: str, stage: int | None, seed: int) -> Path:
        """Return the file that a stage writes last."""
        return self.checkpoint(run, stage, seed) / PROVENANCE

    def ledger(self, run: str, stage: int | None, seed: int) -> Path:
        return self.checkpoint(run, stage, seed) / LEDGER

    def predictors(self, run: str, activation: Activation | str, seed: int) -> Path:
        """Return the record of the predictors' training, next to one folder per kind."""
        return self.directory / f"predictors/{run}/seed{seed}/{activation}/training.json"

    def decoding_predictors(self, run: str, activation: Activation | str, seed: int) -> Path:
        """Return the folder of the kind that mode ``predicted`` decodes with."""
        assert self.experiment.predictors is not None
        return self.predictors(run, activation, seed).parent / self.experiment.predictors.kinds[0]

    def calibration(self, scale: str, suffix: str) -> Path:
        return self.directory / f"calibration/{scale}.{suffix}"

    # ----------------------------------------------------------------------- measurements

    def sparsity(self, run: str, seed: int) -> Path:
        return self.directory / f"measurements/{run}/seed{seed}/sparsity.json"

    def stage_sparsity(self, run: str, seed: int) -> Path:
        return self.directory / f"measurements/{run}/seed{seed}/stages.json"

    def training_free(self, run: str, activation: Activation | str, seed: int) -> Path:
        return self.directory / f"measurements/{run}/seed{seed}/training_free/{activation}.json"

    def benchmarks(self, run: str, activation: Activation | str, seed: int) -> Path:
        return self.directory / f"measurements/{run}/seed{seed}/benchmarks/{activation}.json"

    def prediction(self, run: str, activation: Activation | str, seed: int) -> Path:
        return self.directory / f"measurements/{run}/seed{seed}/prediction/{activation}.json"

    def predicted_benchmarks(self, run: str, activation: Activation | str, seed: int) -> Path:
        return self.directory / f"measurements/{run}/seed{seed}/predicted_benchmarks/{activation}.json"

    def decoding(self, shape: str | None = None) -> Path:
        """Return the times of the trained models, or of a shape's synthetic ones."""
        name = "decoding.json" if shape is None else f"decoding/{shape}.json"
        return self.directory / "measurements" / name

    def precision(self) -> Path:
        """Return the loss and sparsity of the trained models in each precision."""
        return self.directory / "measurements/precision.json"

    def operators(self) -> Path:
        return self.directory / "measurements/operators.json"

    def trained_operators(self) -> Path:
        return self.directory / "measurements/trained_operators.json"

    def compiled_operators(self) -> Path:
        return self.directory / "measurements/compiled_operators.json"

    def overhead(self) -> Path:
        return self.directory / "measurements/overhead.json"

    def powerinfer(self) -> Path:
        """Return PowerInfer's program, which experiments share."""
        return RESULTS / "engines/powerinfer/build/bin/main"

    def timings(self) -> list[Path]:
        """Return the benchmarks that Snakemake has written, one per finished job."""
        return sorted((self.directory / "timings").rglob("*.tsv"))

    # ------------------------------------------------------------------------------ pages

    def table(self, name: str, suffix: str) -> Path:
        return self.directory / f"tables/{name}.{suffix}"

    def figure(self, name: str, suffix: str) -> Path:
        return self.directory / f"figures/{name}.{suffix}"

    def claims(self, suffix: str) -> Path:
        return self.directory / f"claims.{suffix}"

    def acceleration(self) -> Path:
        return self.directory / "acceleration.md"

    def page(self) -> Path:
        return self.directory / "README.md"

    def details(self) -> Path:
        """Return what the page's numbers rest on: stand-ins, corpora, machine, times."""
        return self.directory / "details.md"

    def html(self) -> Path:
        """Return the page to open in a browser."""
        return self.directory / "index.html"

    def config(self) -> Path:
        """Return the resolved config, which every other page is written from."""
        return self.directory / "config.json"

    def compare(self, suffix: str) -> Path:
        """Return the comparison with the committed copy."""
        return self.directory / f"compare.{suffix}"

    def plan(self, suffix: str) -> Path:
        return self.directory / f"plan.{suffix}"

    def release(self, pair: str) -> Path:
        """Return the folder to upload of ``run@activation``."""
        return self.directory / f"release/{pair}"
