"""Find what would stop jobs before the first one starts: access, disk, memory.

Only certain failures refuse a run: checkpoints that exceed the disk, weights and optimizer states that exceed a GPU, a
missing access token. The plan shows what is only estimated.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from prosparse.experiment.calibrated import refusal, uncalibrated
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.layout import Layout
from prosparse.plan.costs import CHECKPOINT_BYTES, STATE_BYTES, WEIGHT_BYTES
from prosparse.plan.downloads import Remote
from prosparse.plan.jobs import Job
from prosparse.system.errors import ConfigError


def refusals(layout: Layout, jobs: Iterable[Job], remotes: Iterable[Remote], local: bool) -> list[str]:
    """Say why the unfinished jobs cannot succeed, one sentence per reason; empty if nothing is known to stop them.

    Args:
        local: whether jobs run on this machine, so that its memory matters.
    """
    experiment, directory = layout.experiment, layout.directory
    waiting = [job for job in jobs if not job.done]
    return [
        *_access(remotes),
        *_read_only(directory, waiting),
        *_disk(experiment, directory, waiting),
        *_gpu_memory(experiment, waiting),
        *_answering(experiment, waiting),
        *(_host_memory(experiment, waiting) if local else []),
        *_batches(experiment, waiting),
        *_uncalibrated(experiment, waiting),
    ]


def doubts(layout: Layout, jobs: Iterable[Job]) -> list[str]:
    """Say what may not fit according to the plan's estimates, although nothing certain refuses it."""
    experiment, directory = layout.experiment, layout.directory
    waiting, found = [job for job in jobs if not job.done], []
    hardware = experiment.hardware
    for run, memory in {job.run: job.memory for job in waiting if job.memory is not None}.items():
        if hardware is not None and memory.state < hardware.memory_gigabytes * 1e9 < memory.total:
            found.append(
                f"runs.{run}: about {memory.total / 1e9:,.0f} GB of each {hardware.gpu} with "
                f"{hardware.memory_gigabytes:g} GB: lower training.micro_batch_size or set activation_checkpointing"
            )
    for run, answering in {job.run: job.answering for job in waiting if job.answering is not None}.items():
        prompt = answering.token.total * experiment.data.context_length
        if hardware is not None and answering.weights < hardware.memory_gigabytes * 1e9 < answering.weights + prompt:
            found.append(
                f"runs.{run}: a prompt of {experiment.data.context_length:,} tokens takes about {prompt / 1e9:,.1f} GB "
                f"next to {answering.weights / 1e9:,.0f} GB of weights on one {hardware.gpu} with "
                f"{hardware.memory_gigabytes:g} GB: benchmarks may not be answered"
            )
    needed, free = sum(job.disk or 0 for job in waiting), free_disk(directory)
    if needed > free and not _disk(experiment, directory, waiting):
        found.append(f"disk: about {needed / 1e9:,.0f} GB are still to be written, {free / 1e9:,.0f} GB are free")
    return found


def _access(remotes: Iterable[Remote]) -> list[str]:
    closed: dict[str, Remote] = {}
    for remote in remotes:
        if remote.gated and remote.needed:
            closed.setdefault(remote.name, remote)
    if not closed or _token():
        return []
    return [
        f"{remote.key}: the {remote.kind} {remote.name} needs an access token: accept its terms ({remote.gated}), "
        "then `hf auth login` or set HF_TOKEN"
        for remote in closed.values()
        if not _cached(remote)
    ]


def _token() -> str | None:
    from huggingface_hub import get_token  # slow to import, so only when something is gated

    return get_token()


def _cached(remote: Remote) -> bool:
    """Return whether this machine's hub cache holds a model or tokenizer."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if remote.kind not in ("model", "tokenizer"):
        return False
    try:
        return isinstance(try_to_load_from_cache(remote.name, "config.json", revision=remote.revision), str)
    except HFValidationError:  # not a valid id
        return False


def free_disk(directory: Path) -> int:
    """Return the free bytes where ``directory`` is or will be."""
    return shutil.disk_usage(_existing(directory)).free


def _existing(directory: Path) -> Path:
    """Return the directory, or its closest parent that exists."""
    return next(path for path in (directory, *directory.absolute().parents) if path.exists())


def _read_only(directory: Path, waiting: list[Job]) -> list[str]:
    existing = _existing(directory)
    if not waiting or os.access(existing, os.W_OK | os.X_OK):
        return []
    return [f"disk: {existing} is not writable: change its permissions, or make results a link to a folder that is"]


def _for_a_while(experiment: Experiment, job: Job) -> int:
    """Return the bytes that exist only for a while: the previous checkpoint, and an optimizer state that is removed."""
    states = CHECKPOINT_BYTES - WEIGHT_BYTES
    both = CHECKPOINT_BYTES + (states if experiment.optimizer_states == "last" and job.stage else 0)
    return both * (job.parameters or 0)


def _disk(experiment: Experiment, directory: Path, waiting: list[Job]) -> list[str]:
    stages = [job for job in waiting if job.stage is not None]
    needed = sum(_remaining(directory, job) for job in stages)
    needed += max((_for_a_while(experiment, job) for job in stages if job.tokens), default=0)
    free = free_disk(directory)
    if needed <= free:
        return []
    return [
        f"disk: {directory} has {free / 1e9:,.0f} GB free, checkpoints still to be written need "
        f"{needed / 1e9:,.0f} GB in addition to data and caches, mostly AdamW's states, which finished stages keep "
        "too: "
        "set optimizer_states: last, make results a link to a larger disk, or ask for fewer targets"
    ]


def _remaining(directory: Path, job: Job) -> int:
    """Return the bytes that a stage will add; the next checkpoint replaces any existing one."""
    resume = (directory / job.output).parent / "resume"
    written = sum(path.stat().st_size for path in resume.rglob("*") if path.is_file()) if resume.exists() else 0
    return max(0, (job.disk or 0) - written)


def _gpu_memory(experiment: Experiment, waiting: list[Job]) -> list[str]:
    hardware = experiment.hardware
    found = []
    for run, job in {job.run: job for job in waiting if job.memory is not None}.items():
        assert job.memory is not None
        if hardware is not None and job.memory.state > hardware.memory_gigabytes * 1e9:
            spread = experiment.runs[run].training.fsdp
            advice = "more GPUs (hardware.gpus)" if spread else "set training.fsdp, which spreads them over the GPUs"
            found.append(
                f"runs.{run}: weights, gradients and AdamW take {job.memory.state / 1e9:,.0f} GB of each "
                f"{hardware.gpu} with {hardware.memory_gigabytes:g} GB: {advice}"
            )
    return found


def _answering(experiment: Experiment, waiting: list[Job]) -> list[str]:
    """A model answers benchmarks on one device."""
    hardware = experiment.hardware
    weights = {job.run: job.answering.weights for job in waiting if job.answering is not None}
    return [
        f"runs.{run}: its weights in {experiment.precision} take {size / 1e9:,.0f} GB of one {hardware.gpu} with "
        f"{hardware.memory_gigabytes:g} GB, so benchmarks cannot be answered: lower precision, or use a larger GPU"
        for run, size in weights.items()
        if hardware is not None and size > hardware.memory_gigabytes * 1e9
    ]


def _host_memory(experiment: Experiment, waiting: list[Job]) -> list[str]:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return []
    present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # with GPUs, only the weights pass through host memory
    on_gpus = experiment.hardware is not None
    size, trained = (WEIGHT_BYTES, "float32 weights") if on_gpus else (STATE_BYTES, "weights, gradients and AdamW")
    # an untrained start is loaded in the dtype in which it is saved
    needs = [
        (size * job.parameters, trained, job.run) if job.tokens else (job.disk or 0, "weights as released", job.run)
        for job in waiting
        if job.parameters
    ]
    needed, what, run = max(needs, default=(0, "", ""))
    if needed <= present:
        return []
    return [
        f"memory: runs.{run} needs {needed / 1e9:,.0f} GB for {what}, this machine has {present / 1e9:,.0f} GB: "
        "run it on another machine or through a cluster profile"
    ]


def _uncalibrated(experiment: Experiment, waiting: list[Job]) -> list[str]:
    """One sentence per model: the first of its runs that cannot be trained yet."""
    first: dict[str, str] = {}
    for job in waiting:
        if job.stage is not None and (scale := uncalibrated(experiment, job.run, job.stage)) is not None:
            first.setdefault(scale, job.run)
    return [refusal(experiment, scale, run) for scale, run in first.items()]


def _batches(experiment: Experiment, waiting: list[Job]) -> list[str]:
    if experiment.hardware is None:
        return []
    found = []
    for run in dict.fromkeys(job.run for job in waiting if job.stage is not None and job.tokens):
        try:
            experiment.runs[run].training.accumulation_steps(experiment.hardware.gpus)
        except ConfigError as error:
            found.append(f"runs.{run}.{error} (hardware.gpus)")
    return found
