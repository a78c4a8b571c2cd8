"""Weights, gradients and optimizer state spread over processes (FSDP2), by accelerate.

Checkpoints stay what one process writes: whole weights in safetensors, whole optimizer state in one
file. So any number of processes, sharded or not, continues what any other wrote.

It also computes what one process computes. FSDP's own mixed precision casts the inputs and all weights of a layer to
bfloat16: embeddings, norms and the residual stream too, which autocast leaves in float32. So weights are gathered in
float32 and autocast takes its matrix products in bfloat16, as without sharding. The price is traffic: of what a step
sends per weight (two gathers, one sum of gradients), 12 bytes instead of 8.
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
    """What TrainingArguments is given more."""
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "reshard_after_forward": True,
            "activation_checkpointing": training.activation_checkpointing,
            "cpu_ram_efficient_loading": True,  # the first process's weights are sent to the others
        },
        # else the gradients of a step's micro-batches add up unsharded: a whole model in each process
        "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}},
    }


def configure(chosen: TrainingArguments) -> None:
    """What TrainingArguments has no word for; call it before the Trainer is made."""
    assert chosen.fsdp_plugin_args is not None
    if chosen.bf16:
        # accelerate's own policy would gather weights, sum gradients and return the loss in bfloat16
        chosen.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy()
    if chosen.device.type == "cpu":
        # FSDP2 works on CPUs, but accelerate offers it to processes with accelerators alone
        PartialState().distributed_type = DistributedType.MULTI_GPU


def autocast(chosen: TrainingArguments) -> torch.autocast:
    """The forward pass's precision, which accelerate sees to only where it does not shard.

    Nothing is cached: bfloat16 copies of gathered weights would outlive them until the end of the forward pass.
    """
    return torch.autocast(chosen.device.type, torch.bfloat16, enabled=chosen.bf16, cache_enabled=False)


def forget() -> None:
    """Take back what accelerate left in the environment: later models must load their weights in every process."""
    for name in ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING"):
        os.environ.pop(name, None)


def whole(state: dict[str, Any]) -> dict[str, Any]:
    """A sharded optimizer's ``state_dict`` as an unsharded one's, on the CPU; only in the first process it has tensors.

    All processes must call it. Tensors are gathered one at a time.
    """

    def gathered(value: Any) -> Any:
        value = value.full_tensor() if isinstance(value, DTensor) else value
        return value.cpu() if distributed.is_first() and isinstance(value, Tensor) else None

    moments = {index: {name: gathered(value) for name, value in each.items()} for index, each in state["state"].items()}
    return {**state, "state": moments}


def sharded(state: dict[str, Any], parameters: Sequence[DTensor]) -> dict[str, Any]:
    """An unsharded optimizer's ``state_dict`` as this process's shares of it.

    Nothing is sent: a ``state`` that is mapped into memory is read only where it is needed.

    Args:
        parameters: in the optimizer's order.
    """

    def share(value: Any, parameter: DTensor) -> Any:
        if not isinstance(value, Tensor) or not value.dim():
            return value
        # a copy, so that nothing keeps the file
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None).clone()

    return {
        **state,
        "state": {
            index: {name: share(value, parameters[index]) for name, value in each.items()}
            for index, each in state["state"].items()
        },
    }
