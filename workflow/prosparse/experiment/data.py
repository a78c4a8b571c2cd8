"""Section ``data``: packages, corpora, tokenizers and mixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from prosparse.experiment.section import Count, Name, Section, check_known

#: Columns of the paper's Table 8: the data sets that a corpus may stand for.
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

#: Rows that no run trains on: to report, and to choose recipes on.
MeasuredSplit = Literal["heldout", "tuning"]

SpecialToken = Literal["bos_token", "eos_token", "pad_token"]


def is_local(name: str) -> bool:
    """Return whether a model or tokenizer is a directory (which a package may yet provide) rather than a hub id."""
    return name.startswith((".", "/", "results/")) or Path(name).is_dir()


class Package(Section):
    """A file of a Python package index, used as a data source and pinned by content."""

    version: str = Field(description="Version on the index.")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(description="Digest of the file.")
    format: Literal["wheel", "sdist"] = Field(
        default="wheel", description="Which of the version's files: a wheel or an sdist."
    )

    def directory_name(self, name: str) -> str:
        """Return the name of the directory for unpacked files: ``{name}-{version}``."""
        return f"{name}-{self.version}"

    def archive_name(self, name: str) -> str:
        """Return the name of the fetched file: ``{name}-{version}.whl`` or ``.tar.gz``."""
        return self.directory_name(name) + (".whl" if self.format == "wheel" else ".tar.gz")


class PackageSource(Section):
    """Documents read from a package by one of the readers in ``prosparse.data.sources``."""

    package: str = Field(description="A name in data.packages.")
    reader: str = Field(description="A reader of prosparse.data.sources.")
    options: dict[str, Any] = Field(default={}, description="Arguments of the reader.")


class Rows(Section):
    """How a row becomes a document."""

    template: str = Field(default="{text}", description="A format string over the row's columns.")
    items: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(
        default={},
        description="How list columns are printed: templates over an item's fields ({item} if it is not a mapping), "
        "used in turn and joined by newlines.",
    )


class HubSource(Rows):
    """A Hugging Face data set, streamed."""

    hub: str = Field(description="Its id, or a directory with the same files.")
    name: str | None = Field(default=None, description="One of its configurations.")
    files: list[str] = Field(default=[], description="File patterns; default: the configuration's.")
    split: str = Field(default="train", description="One of its splits.")
    revision: str | None = Field(default=None, description="A commit, branch or tag.")
    gated: str | None = Field(
        default=None, description="Where to accept its terms, for a data set that needs an access token."
    )


class FileSource(Rows):
    """Local files: ``.txt`` (one document each), ``.jsonl``, ``.parquet`` (one document per row)."""

    files: list[str] = Field(min_length=1, description="Paths or patterns.")


class Corpus(Section):
    """One source of documents."""

    stands_for: Literal[PAPER_DATASETS] = Field(description="The paper's data set it stands for.")  # type: ignore[valid-type]
    stand_in: bool = Field(default=True, description="Whether its data differs from the paper's.")
    kind: Literal["language_modelling", "instruction"] = Field(description="Plain text, or questions with answers.")
    source: PackageSource | HubSource | FileSource = Field(description="Where its documents come from.")
    character_limit: Count | None = Field(
        default=None, description="Maximum number of characters to read, over all shards."
    )
    shards: Count = Field(default=1, description="Jobs that read and tokenize it in parallel.")

    @model_validator(mode="after")
    def packages_are_read_whole(self) -> Self:
        if self.shards > 1 and isinstance(self.source, PackageSource):
            raise ValueError(f"shards is {self.shards}: a package is read in one piece")
        return self


class Tokenizer(Section):
    """A BPE tokenizer trained on the corpora (``vocabulary_size``), or an existing one (``pretrained``)."""

    vocabulary_size: Annotated[int, Field(ge=300)] | None = Field(
        default=None, description="Size of a tokenizer trained on the corpora."
    )
    pretrained: str | None = Field(default=None, description="A hub id or directory of an existing tokenizer.")
    # excluded when unset, so that tokenizers without a revision keep their specification
    revision: Annotated[str | None, Field(exclude_if=lambda revision: revision is None)] = Field(
        default=None, description="A commit, branch or tag on the hub."
    )
    gguf_file: str | None = Field(default=None, description="The GGUF file that holds it.")
    special_tokens: dict[SpecialToken, str] = Field(default={}, description="Replace the tokenizer's own.")

    @model_validator(mode="after")
    def one_origin(self) -> Self:
        if (self.vocabulary_size is None) == (self.pretrained is None):
            raise ValueError("give exactly one of vocabulary_size, pretrained")
        if self.pretrained is None and (self.revision or self.gguf_file or self.special_tokens):
            raise ValueError("revision, gguf_file, special_tokens: only with pretrained")
        return self


class Data(Section):
    """Text, and how it is tokenized."""

    context_length: Annotated[int, Field(ge=16)] = Field(description="Tokens per sequence.")
    tokenizers: dict[Name, Tokenizer] = Field(min_length=1, description="Tokenizers by name.")
    packages: dict[str, Package] = Field(default={}, description="Pinned files of the package index.")
    corpora: dict[Name, Corpus] = Field(min_length=1, description="Corpora by name.")
    mixtures: dict[Name, dict[Name, Annotated[float, Field(gt=0)]]] = Field(
        min_length=1, description="Corpus weights that a run trains on."
    )
    mixed: Name = Field(description='The mixture behind the "mixed" column of Table 8 and every average.')
    heldout_sequences: Annotated[int, Field(ge=4)] = Field(description="Held-out sequences per corpus.")
    tuning_sequences: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Further held-out sequences per corpus, to choose recipes on: `search` is measured on them.",
    )
    decontamination_ngram: Annotated[int, Field(ge=5)] = Field(
        default=13, description="Words that training text may not share with a benchmark or held-out row."
    )

    @model_validator(mode="after")
    def names_exist(self) -> Self:
        for mixture, weights in self.mixtures.items():
            for weighted in weights:
                check_known(weighted, self.corpora, f"mixtures.{mixture}")
        check_known(self.mixed, self.mixtures, "mixed")
        for name, corpus in self.corpora.items():
            if isinstance(corpus.source, PackageSource):
                check_known(corpus.source.package, self.packages, f"corpora.{name}.source.package")
        return self
