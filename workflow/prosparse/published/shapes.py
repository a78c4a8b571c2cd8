"""The shape of a gated-FFN decoder with its costs, and the paper's models.

**FLOPs** are model FLOPs, as in model FLOPs utilization (MFU): Chowdhery et al. 2022 (PaLM), appendix B. With N
parameters in matrix products (all projections and the output head, but not the embedding or the norms), L layers, d the
total width of all heads and T the context, a token costs

    forward              2 N + 4 L d T
    forward, backward    6 N + 12 L d T

A product with n weights takes n multiplications and n additions, and the backward pass costs twice the forward.
Attention counts all T keys of each query, as PaLM does.

**Weights read per token** (batch size 1): decoding reads every weight that a token uses once and reuses none of them
before the next token, so the bytes divided by the memory bandwidth bound the speed. Only projections and the output
head count: the norms, one row of the embedding and a short sequence's keys and values are below 1% together.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from prosparse.published.tables import DATA

HALF_BYTES = 2  # per weight in float16 or bfloat16
PREDICTOR_RANK = 1024  # of the paper's predictor in each layer


@dataclass(frozen=True)
class DecoderShape:
    """Shape of a gated-FFN decoder; ``vocabulary_size`` is None if only the tokenizer knows it."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary_size: int | None
    tied_embeddings: bool

    @classmethod
    def read(cls, path: Path) -> DecoderShape | None:
        """Read the shape from a checkpoint's config.json; return None if it is missing or of another family."""
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            heads = held["num_attention_heads"]
            return cls(
                held["hidden_size"],
                held["intermediate_size"],
                held["num_hidden_layers"],
                heads,
                held.get("num_key_value_heads") or heads,
                held.get("head_dim") or held["hidden_size"] // heads,
                held["vocab_size"],
                held.get("tie_word_embeddings", False),
            )
        except (OSError, ValueError, KeyError):
            return None

    # -------------------------------------------------------------------------------- weights

    @property
    def attention_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def attention(self) -> int:
        """Weights of the query, key, value and output projections of all layers."""
        return self.layers * 2 * self.hidden_size * (self.attention_width + self.kv_heads * self.head_dim)

    @property
    def projection(self) -> int:
        """Weights of one of the FFN's three projections, over all layers."""
        return self.layers * self.hidden_size * self.intermediate_size

    @property
    def ffn(self) -> int:
        return 3 * self.projection

    @property
    def layer_products(self) -> int:
        """Weights of all layers' projections."""
        return self.attention + self.ffn

    @property
    def head(self) -> int | None:
        """Weights of the output head."""
        return None if self.vocabulary_size is None else self.vocabulary_size * self.hidden_size

    @property
    def products(self) -> int | None:
        """N: the weights that multiply a token."""
        return None if self.head is None else self.layer_products + self.head

    @property
    def parameters(self) -> int | None:
        if self.head is None:
            return None
        norms = (2 * self.layers + 1) * self.hidden_size
        return (1 if self.tied_embeddings else 2) * self.head + self.layer_products + norms

    def predictors(self, rank: int) -> int:
        """Weights of one low-rank activation predictor per layer."""
        return self.layers * rank * (self.hidden_size + self.intermediate_size)

    # ---------------------------------------------------------------------------------- FLOPs

    def forward_flops(self, context: int) -> int | None:
        """FLOPs per token, attending to ``context`` keys."""
        if self.products is None:
            return None
        return 2 * self.products + 4 * self.layers * self.attention_width * context

    def training_flops(self, context: int) -> int | None:
        """FLOPs per token, forward and backward."""
        forward = self.forward_flops(context)
        return None if forward is None else 3 * forward

    def recomputed_flops(self, context: int) -> int:
        """FLOPs per token of the layers' second forward pass under activation checkpointing."""
        return 2 * self.layer_products + 4 * self.layers * self.attention_width * context

    # ------------------------------------------------------------------ weights read per token

    @property
    def dense_read(self) -> int:
        """Weights read without sparsity: every projection and the output head."""
        return _known(self.products)

    @property
    def read_without_ffn(self) -> int:
        """Weights of attention and the output head, which FFN sparsity does not save."""
        return self.attention + _known(self.head)

    def exact_read(self, density: float) -> float:
        """Weights read without a predictor: the whole gate, and the active rows of the up and down projections."""
        return self.read_without_ffn + (1 + 2 * density) * self.projection

    def predicted_read(self, rank: int, predicted_active: float, read_by_down: float | None = None) -> float:
        """Weights read with predictors: the predictors, and the rows of the neurons that they predict active.

        ``read_by_down`` is the fraction of rows that the down projection reads if it also skips neurons that turn out
        to be zero; the default is ``predicted_active``.
        """
        down = predicted_active if read_by_down is None else read_by_down
        return self.read_without_ffn + self.predictors(rank) + (2 * predicted_active + down) * self.projection


def _known(weights: int | None) -> int:
    if weights is None:
        raise ValueError("the vocabulary size is not known")
    return weights


@cache
def published_shapes() -> dict[str, DecoderShape]:
    """Return scale -> shape of the paper's model (LLaMA2: Touvron et al. 2023; MiniCPM: Hu et al. 2024)."""
    with open(DATA / "model_shapes.csv", newline="", encoding="utf-8") as file:
        return {
            row["scale"]: DecoderShape(
                hidden_size=int(row["hidden_size"]),
                intermediate_size=int(row["intermediate_size"]),
                layers=int(row["layers"]),
                heads=int(row["heads"]),
                kv_heads=int(row["kv_heads"]),
                head_dim=int(row["hidden_size"]) // int(row["heads"]),
                vocabulary_size=int(row["vocabulary_size"]),
                tied_embeddings=row["tied_embeddings"] == "true",
            )
            for row in csv.DictReader(file)
        }
