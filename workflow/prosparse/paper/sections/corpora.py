"""What was read of each corpus, and what remains of it."""

from __future__ import annotations

from typing import Any

from prosparse.config import PackageSource
from prosparse.paper.markdown import markdown_table
from prosparse.paper.results.reader import Results
from prosparse.published.tables import LABELS


def corpora(results: Results) -> list[str]:
    counted = {
        "read": "Read",
        "after_cleaning": "After cleaning",
        "duplicates_removed": "Duplicates",
        "contaminated_removed": "Contaminated",
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
            ]
        )
    tokens = ["Tokens"] if len(tokenizers) == 1 else [f"Tokens ({tokenizer})" for tokenizer in tokenizers]
    header = ["Corpus", "Source", "Stands for", "Kind", *counted.values(), *tokens]
    note = (
        "Counts are of documents unless stated otherwise. Contaminated: shares a word n-gram with a benchmark row; "
        "removed."
    )
    return [*markdown_table(header, rows, numbers=len(counted) + len(tokens)), "", note]


def _total(value: Any) -> str:
    """A count, or the sum of a count's parts (shards, train and held-out)."""
    return "missing" if value is None else f"{_sum(value):,}"


def _sum(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value
    return value if isinstance(value, int) else sum(map(_sum, parts))
