"""``prosparse sparsity``: measures activation sparsity and held-out loss."""

from __future__ import annotations

import math

import torch

from prosparse.commands.inputs import check_context_length, text_files, trained_on
from prosparse.commands.text import packed
from prosparse.data.tokens import predicted_bytes, spread
from prosparse.experiment.activation import Activation
from prosparse.inference.rounded import round_weights
from prosparse.measure.sparsity import measure
from prosparse.method.activations import substitute
from prosparse.models.load import load_to_measure, own_activation
from prosparse.models.third_party import configuration
from prosparse.models.third_party import tokenizer as open_tokenizer
from prosparse.operators.quantized import FORMATS

BAR = 40  # columns of a bar for 100%


def print_sparsity(
    checkpoint: str,
    activations: list[Activation] | None,
    files: list[str],
    context_length: int,
    sequences: int,
    precision: str | None,
) -> None:
    """Print the sparsity, also by layer, and the loss under each activation (default: the checkpoint's own).

    Args:
        precision: q8_0 or q4_0 to round the weights as decoding does.
    """
    texts = text_files(files)
    if known := trained_on(checkpoint, texts):
        print(
            f"warning: this is not a held-out loss: {checkpoint} was trained on {', '.join(map(str, known))}",
            flush=True,
        )
    check_context_length(configuration(checkpoint), context_length)
    rows = spread(packed(texts, checkpoint, context_length), sequences)
    model = load_to_measure(checkpoint)
    if precision is not None:
        round_weights(model, FORMATS[precision])
    bytes_per_token = predicted_bytes(rows, open_tokenizer(checkpoint)) / (len(rows) * (context_length - 1))
    for activation in activations or [own_activation(model.config)]:
        substitute(model, activation)
        found = measure(model, torch.tensor(rows["input_ids"]), batch_size=1)
        print(
            f"{activation}: sparsity {100 * found['sparsity']:.2f}% | loss {found['loss']:.4f} nats per token, "
            f"{found['loss'] / math.log(2) / bytes_per_token:.4f} bits per byte | {found['tokens']:,} tokens",
            *_bars(found["layer_sparsity"]),
            sep="\n",
            flush=True,
        )


def _bars(layers: list[float]) -> list[str]:
    """Draw each layer's sparsity, the first layer above."""
    return [f"  layer {index:3}  {100 * share:5.1f}%  {_bar(share)}" for index, share in enumerate(layers)]


def _bar(share: float) -> str:
    """Draw a share of 40 columns in steps of an eighth of one."""
    full, eighths = divmod(round(share * BAR * 8), 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[eighths].strip()
