"""How much of each corpus was read, and how much remains after filtering."""

from __future__ import annotations

import statistics
from typing import Any

from prosparse.experiment.data import PackageSource
from prosparse.paper.markdown import markdown_table
from prosparse.paper.results.reader import Results
from prosparse.published.tables import LABELS


def corpora(results: Results) -> list[str]:
    counted = {
        "read": "Read",
        "after_cleaning": "After cleaning",
        "duplicates_removed": "Duplicates",
        "benchmark_removed": "In a benchmark",
        "heldout_removed": "In held-out text",
        "heldout_shortened": "Shortened",
        "documents": "Kept",
        "characters": "Characters kept",
    }
    tokenizers = list(results.experiment.data.tokenizers)
    rows = []
    for name, corpus in results.experiment.data.corpora.items():
        counts = results.corpora[name]
        manifests = [results.manifest(tokenizer, name) for tokenizer in tokenizers]
        source = corpus.source
        where = f"{source.package} (package)" if isinstance(source, PackageSource) else getattr(source, "hub", "files")
        commits = sorted({str(shard["commit"])[:12] for shard in counts or [] if shard.get("commit")})
        rows.append(
            [
                f"`{name}`",
                " ".join([where, *commits]),
                LABELS[corpus.stands_for] + (" (stand-in)" if corpus.stand_in else ""),
                corpus.kind.replace("_", " "),
                *(_total(counts and [shard[key] for shard in counts]) for key in counted),
                *(_total(manifest and manifest["tokens"]) for manifest in manifests),
                _percent(statistics.fmean(shard["heldout_coverage"][name] for shard in counts) if counts else None),
            ]
        )
    tokens = ["Tokens"] if len(tokenizers) == 1 else [f"Tokens ({tokenizer})" for tokenizer in tokenizers]
    header = ["Corpus", "Source", "Stands for", "Kind", *counted.values(), *tokens, "Recognized"]
    notes = [
        "Counts are of documents unless stated otherwise. In a benchmark: training documents removed for a word",
        "n-gram of a benchmark row. In held-out text: those removed because they share one with a held-out document",
        "of any corpus and would lose more than half of their text without it. Shortened: those that lost only the",
        "lines in question. Recognized: held-out documents with an n-gram that is not a phrase of many training",
        "documents.",
        *_benchmark_coverage(results),
    ]
    return [*markdown_table(header, rows, numbers=len(counted) + len(tokens) + 1), "", " ".join(notes)]


def _benchmark_coverage(results: Results) -> list[str]:
    """Show how much of each benchmark the training text was checked against; all corpora and shards share it."""
    found = next((counts[0]["benchmark_coverage"] for counts in results.corpora.values() if counts), None)
    if found is None:
        return []
    shares = [f"{name} {_percent(row['matchable'])} of {row['rows']:,}" for name, row in found.items()]
    return [f"Benchmark rows that can be recognized inside a text: {', '.join(shares)}."]


def _percent(share: float | None) -> str:
    return "missing" if share is None else f"{100 * share:.1f}%"


def _total(value: Any) -> str:
    """Return a count, or the sum of its parts (shards, train and held-out)."""
    return "missing" if value is None else f"{_sum(value):,}"


def _sum(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value
    return value if isinstance(value, int) else sum(map(_sum, parts))
