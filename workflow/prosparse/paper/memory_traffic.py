"""What decoding one token must read from memory, by arithmetic from a model's shape.

With one sequence every weight that a token uses is read once, and nothing that is read is used
again before the next token: bytes over the memory's rate bound the speed. Counted are the weights
of the projections; a norm's weights, the embedding's one row and a short sequence's keys and values
are together below 1 % and left out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A LLaMA2 model with as many key and value heads as query heads; ``rank`` is of each layer's predictor."""

    hidden_size: int
    intermediate_size: int
    layers: int
    vocabulary_size: int
    rank: int

    # all in weights

    @property
    def attention(self) -> int:
        """Query, key, value and output projections."""
        return self.layers * 4 * self.hidden_size**2

    @property
    def projection(self) -> int:
        """One of the three projections of the gated FFN."""
        return self.layers * self.hidden_size * self.intermediate_size

    @property
    def ffn(self) -> int:
        return 3 * self.projection

    @property
    def head(self) -> int:
        return self.vocabulary_size * self.hidden_size

    @property
    def predictor(self) -> int:
        return self.layers * self.rank * (self.hidden_size + self.intermediate_size)

    @property
    def dense(self) -> int:
        return self.attention + self.ffn + self.head

    @property
    def without_ffn(self) -> int:
        """No FFN sparsity can do with less."""
        return self.attention + self.head

    def exact(self, density: float) -> float:
        """The whole gate, and of the up and down projections the rows of the active neurons."""
        return self.without_ffn + (1 + 2 * density) * self.projection

    def predicted(self, predicted_active: float, read_by_down: float | None = None) -> float:
        """The predictor, and the rows of the neurons that it calls active.

        ``read_by_down`` is the share of rows that the down projection reads, where it also skips
        the neurons that turn out to be zero.
        """
        down = predicted_active if read_by_down is None else read_by_down
        return self.without_ffn + self.predictor + (2 * predicted_active + down) * self.projection


#: The shapes are LLaMA2's (Touvron et al. 2023, and its released configurations), the rank is the paper's.
LLAMA2 = {
    "7B": Shape(hidden_size=4096, intermediate_size=11008, layers=32, vocabulary_size=32000, rank=1024),
    "13B": Shape(hidden_size=5120, intermediate_size=13824, layers=40, vocabulary_size=32000, rank=1024),
}

BYTES = 2  # of a weight in float16 or bfloat16
