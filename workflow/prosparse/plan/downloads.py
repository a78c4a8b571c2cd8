"""What an experiment downloads: packages, models, tokenizers, data sets and benchmarks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from prosparse.experiment.data import HubSource, is_local
from prosparse.experiment.layout import Layout
from prosparse.experiment.model import PretrainedInit
from prosparse.plan.costs import RELEASED_BYTES, decoder
from prosparse.plan.jobs import Job


@dataclass(frozen=True)
class Remote:
    """Something to download. ``gated`` says where to accept its terms.

    ``size`` is in bytes; for a data set it counts the characters read, about one byte each.
    """

    kind: str  # model, tokenizer, data set, package, benchmark
    name: str
    revision: str | None
    size: int | None
    gated: str | None
    needed: bool  # by an unfinished job
    key: str  # in the config


def remotes(layout: Layout, jobs: Iterable[Job]) -> list[Remote]:
    """Return what the jobs download, and whether an unfinished one still needs it."""
    experiment, listed = layout.experiment, list(jobs)
    data = experiment.data
    waiting = {job.corpus for job in listed if job.corpus and not job.done}
    found: dict[tuple[str, str], Remote] = {}

    def add(remote: Remote) -> None:
        same = found.get((remote.kind, remote.name))
        found[remote.kind, remote.name] = replace(remote, needed=remote.needed or bool(same and same.needed))

    for job in listed:
        init = experiment.runs[job.run].init if job.stage == 0 else None
        if isinstance(init, PretrainedInit) and not is_local(init.pretrained):
            shape = decoder(layout, job.run)
            size = None if shape is None or shape.parameters is None else RELEASED_BYTES * shape.parameters
            key = f"runs.{job.run}.init"
            add(Remote("model", init.pretrained, init.revision, size, init.gated, not job.done, key))
    for own, tokenizer in data.tokenizers.items():
        if (name := tokenizer.pretrained) is not None and not is_local(name):
            gates = [remote.gated for remote in found.values() if remote.name == name]
            key = f"data.tokenizers.{own}"
            add(Remote("tokenizer", name, tokenizer.revision, None, next(iter(gates), None), bool(waiting), key))
    for name, corpus in data.corpora.items():
        if isinstance(source := corpus.source, HubSource) and not is_local(source.hub):
            key = f"data.corpora.{name}.source"
            size = corpus.character_limit
            add(Remote("data set", source.hub, source.revision, size, source.gated, name in waiting, key))
    for name, package in data.packages.items():
        add(Remote("package", name, package.version, None, None, bool(waiting), f"data.packages.{name}"))
    return list(found.values())
