"""What the check's own steps compute: the machine, random tokens, decoding on the device."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from prosparse.gpu_check.scale import TOKENIZER, TOKENS, Scale
from prosparse.published.settings import settings
from prosparse.system.errors import UserError

PROMPT = [5, 6, 7, 8, 9]  # as many tokens as the paper's prompts have words
REPEATS = 3


def machine(needs_gpu: bool = True) -> dict[str, Any]:
    """Return the GPUs and what drives them.

    Raises:
        UserError: torch sees none; says why.
    """
    import torch
    import triton

    found: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda, "triton": triton.__version__}
    if torch.cuda.is_available():
        each = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        found["gpus"] = [f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, sm_{gpu.major}{gpu.minor}" for gpu in each]
    elif needs_gpu:
        why = "this torch was built without CUDA" if torch.version.cuda is None else "its driver reports none"
        raise UserError(f"torch {torch.__version__} sees no GPU: {why}")
    return found


def write_data(scale: Scale, work: Path, rows: int = 2048) -> None:
    """Write rows of random tokens, enough to time training, and a tokenizer of the model's size."""
    import datasets
    import torch
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    size, generator = scale.model.vocabulary_size, torch.Generator().manual_seed(0)
    ids = torch.randint(size, (rows, scale.context_length), generator=generator, dtype=torch.int32)
    datasets.Dataset.from_dict({"input_ids": ids.numpy()}).save_to_disk(work / TOKENS / "random" / "train")
    words = Tokenizer(models.WordLevel({f"t{token}": token for token in range(size)}, unk_token="t0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="t0", eos_token="t1")
    tokenizer.save_pretrained(work / TOKENIZER)


def decode(scale: Scale) -> dict[str, Any]:
    """Return tokens/s in every mode, of a model with random weights that is as sparse as a row of Table 2.

    The modes take turns; each is warmed up once. Says whether the exact mode gives the dense mode's tokens.
    """
    import torch

    from prosparse.inference.decoding import prepare
    from prosparse.inference.generation import greedy
    from prosparse.inference.synthetic import Target, synthetic
    from prosparse.system import devices

    row = scale.model.rows[0]
    printed = next(setting.printed for setting in settings() if setting.name == row)
    target = Target(
        *(float(printed[key]) / 100 for key in ("average_sparsity", "activation_recall", "predicted_sparsity"))
    )
    device, dtype = devices.fastest(), getattr(torch, scale.precision)
    with torch.no_grad():
        model, predictors = synthetic(scale.model, target, dtype)
        decoder = prepare(model.to(device), predictors)  # type: ignore[arg-type]
        seconds: dict[str, list[float]] = {mode: [] for mode in decoder.modes}
        texts: dict[str, list[int]] = {}
        for turn in range(REPEATS + 1):
            for mode in decoder.modes:
                decoder.mode = mode
                started = time.perf_counter()
                texts[mode] = greedy(
                    decoder, PROMPT, scale.new_tokens
                )  # reads every token back: nothing is left undone
                if turn:
                    seconds[mode].append(time.perf_counter() - started)
    speeds = {mode: scale.new_tokens / statistics.median(times) for mode, times in seconds.items()}
    return {
        "device": devices.name(device),
        "tokens_per_second": speeds,
        "exact_gives_the_dense_tokens": texts["exact"] == texts["dense"],
    }
