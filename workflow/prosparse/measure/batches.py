"""Batches with a bounded number of tokens, halved when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import psutil
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers import PreTrainedModel

from prosparse.measure.token_memory import TokenMemory
from prosparse.system.errors import UserError

Row = TypeVar("Row")
Result = TypeVar("Result")


def token_memory(model: PreTrainedModel) -> TokenMemory:
    """Memory per token that ``model`` reads."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    intermediate_size = getattr(config, "intermediate_size", None)
    return TokenMemory.of(
        layers=config.num_hidden_layers,
        kv_width=(getattr(config, "num_key_value_heads", None) or heads) * head_size,
        hidden_size=config.hidden_size,
        # some families have a list: one per layer or expert
        intermediate_size=intermediate_size if isinstance(intermediate_size, int) else 4 * config.hidden_size,
        vocabulary_size=config.vocab_size,
        size=model.dtype.itemsize,
    )


def free_memory(device: torch.device) -> int:
    """Bytes available to a batch on ``device``, including memory that torch has reserved but not used."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return psutil.virtual_memory().available


class TokenBudget:
    """At most ``tokens`` tokens per batch, rows times padded length; a longer row gets a batch of its own."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    @classmethod
    def for_model(cls, model: PreTrainedModel, tokens: int) -> TokenBudget:
        """``tokens``, or fewer if the device's free memory cannot hold as many."""
        return cls(min(tokens, token_memory(model).tokens(free_memory(model.device))))

    def batches(
        self, rows: Iterable[Row], length: Callable[[Row], int], compute: Callable[[list[Row]], Result]
    ) -> Iterator[tuple[list[Row], Result]]:
        """Yield each batch with the result of ``compute``, longest rows first.

        When memory runs out, halves this and all later batches.

        Raises:
            UserError: a single row does not fit in memory.
        """
        waiting = sorted(rows, key=length, reverse=True)
        start = 0
        while start < len(waiting):
            longest = length(waiting[start])
            batch = waiting[start : start + max(1, self.tokens // max(1, longest))]
            try:
                result = compute(batch)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if len(batch) == 1:
                    reason = str(error).partition("\n")[0]
                    raise UserError(f"out of memory with a single sequence of {longest} tokens: {reason}") from None
                self.tokens = len(batch) // 2 * longest
            else:
                yield batch, result
                start += len(batch)
                continue
            # not in the handler, where the exception's frames still hold the batch's tensors
            clear_device_cache()
            print(f"out of memory: at most {self.tokens} tokens per batch from here on", flush=True)
