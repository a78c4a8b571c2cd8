"""Shard weights, gradients and optimizer state over processes (FSDP2), by accelerate.

Checkpoints match a single process's: full weights in safetensors, full optimizer state in one file. Any number of
processes, sharded or not, can therefore resume from any other's checkpoint.

The arithmetic also matches a single process's. FSDP's own mixed precision casts a layer's inputs and all its weights to
bfloat16, including embeddings, norms and the residual stream, which autocast leaves in float32. We gather weights in
float32 instead and let autocast run the matrix products in bfloat16, as without sharding. The price is traffic: per
weight and step (two gathers, one gradient reduction), 12 bytes instead of 8.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainingArguments

from prosparse.experiment.training import Training
from prosparse.training import distributed


def arguments(training: Training) -> dict[str, Any]:
    """Extra TrainingArguments for sharding."""
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "reshard_after_forward": True,
            "activation_checkpointing": training.activation_checkpointing,
            "cpu_ram_efficient_loading": True,  # the first process sends its weights to the others
        },
        # otherwise the gradients of a step's micro-batches accumulate unsharded: a whole model in each process
        "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}},
    }


def configure(chosen: TrainingArguments) -> None:
    """Set what TrainingArguments has no option for; call it before creating the Trainer."""
    assert chosen.fsdp_plugin_args is not None
    if chosen.bf16:
        # accelerate's own policy would gather weights, reduce gradients and return the loss in bfloat16
        chosen.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy()
    if chosen.device.type == "cpu":
        # FSDP2 works on CPUs, but accelerate offers it only to processes with an accelerator
        PartialState().distributed_type = DistributedType.MULTI_GPU


def autocast(chosen: TrainingArguments) -> torch.autocast:
    """The forward pass's precision, which accelerate handles only without sharding.

    Caching is off: bfloat16 copies of gathered weights would otherwise live until the end of the forward pass.
    """
    return torch.autocast(chosen.device.type, torch.bfloat16, enabled=chosen.bf16, cache_enabled=False)


def forget() -> None:
    """Undo accelerate's changes to the environment, so that later models load their weights in every process."""
    for name in ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING"):
        os.environ.pop(name, None)


def whole(state: dict[str, Any]) -> dict[str, Any]:
    """Convert a sharded optimizer's ``state_dict`` to an unsharded one on the CPU; only the first process gets tensors.

    All processes must call it. Gathers one tensor at a time.
    """

    def gathered(value: Any) -> Any:
        value = value.full_tensor() if isinstance(value, DTensor) else value
        return value.cpu() if distributed.is_first() and isinstance(value, Tensor) else None

    moments = {index: {name: gathered(value) for name, value in each.items()} for index, each in state["state"].items()}
    return {**state, "state": moments}


def sharded(state: dict[str, Any], parameters: Sequence[DTensor]) -> dict[str, Any]:
    """Convert an unsharded optimizer's ``state_dict`` to this process's shards.

    Sends nothing: of a memory-mapped ``state``, each process reads only its part.

    Args:
        parameters: in the optimizer's order.
    """

    def share(value: Any, parameter: DTensor) -> Any:
        if not isinstance(value, Tensor) or not value.dim():
            return value
        # copy, so that nothing keeps the file open
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None).clone()

    return {
        **state,
        "state": {
            index: {name: share(value, parameters[index]) for name, value in each.items()}
            for index, each in state["state"].items()
        },
    }
