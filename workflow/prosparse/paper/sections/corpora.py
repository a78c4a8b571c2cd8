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
        covered = _counted(counts, "heldout_coverage")
        commits = sorted({str(shard["commit"])[:12] for shard in counts or [] if shard.get("commit")})
        rows.append(
            [
                f"`{name}`",
                " ".join([where, *commits]),
                LABELS[corpus.stands_for] + (" (stand-in)" if corpus.stand_in else ""),
                corpus.kind.replace("_", " "),
                *(_total(_counted(counts, key)) for key in counted),
                *(_total(manifest and manifest["tokens"]) for manifest in manifests),
                _percent(statistics.fmean(shares[name] for shares in covered) if covered else None),
            ]
        )
    tokens = ["Tokens"] if len(tokenizers) == 1 else [f"Tokens ({tokenizer})" for tokenizer in tokenizers]
    header = ["Corpus", "Source", "Stands for", "Kind", *counted.values(), *tokens, "Recognized"]
    notes = [
        "Counts are of documents unless stated otherwise. In a benchmark: training documents removed because they "
        "share",
        "a word n-gram with a benchmark row. In held-out text: those removed because they share one with a held-out",
        "document of any corpus and would otherwise lose more than half of their text. Shortened: those that lost only",
        "the lines in question. Recognized: held-out documents that the check can find in training text, because they",
        "have an n-gram that is not a phrase of many training documents.",
        *_benchmark_coverage(results),
    ]
    return [*markdown_table(header, rows, numbers=len(counted) + len(tokens) + 1), "", " ".join(notes)]


def _counted(shards: list[dict[str, Any]] | None, key: str) -> list[Any] | None:
    """Return what each shard counted; None if one did not count it."""
    found = [shard.get(key) for shard in shards or []]
    return None if not found or None in found else found


def _benchmark_coverage(results: Results) -> list[str]:
    """Show how much of each benchmark the training text was checked against; all corpora and shards share it."""
    found = next(filter(None, (_counted(counts, "benchmark_coverage") for counts in results.corpora.values())), None)
    if found is None:
        return []
    shares = [f"{name} {_percent(row['matchable'])} of {row['rows']:,}" for name, row in found[0].items()]
    return [f"Benchmark rows that the check can find in training text: {', '.join(shares)}."]


def _percent(share: float | None) -> str:
    return "missing" if share is None else f"{100 * share:.1f}%"


def _total(value: Any) -> str:
    """Return a count, or the sum of its parts (shards, train and held-out)."""
    return "missing" if value is None else f"{_sum(value):,}"


def _sum(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value
    return value if isinstance(value, int) else sum(map(_sum, parts))
