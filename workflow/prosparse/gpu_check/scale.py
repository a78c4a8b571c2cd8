"""The size of a check: full on a GPU, or a rehearsal on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prosparse.experiment.decoding import Shape
from prosparse.experiment.measurement import Operators
from prosparse.experiment.section import Precision

#: SmolLM2-135M with random weights: a real model's shape, without a download.
SMOLLM2 = Shape(
    hidden_size=576, intermediate_size=1536, layers=30, heads=9, kv_heads=3, vocabulary_size=49152, rank=144,
    rows=["ProSparse-7B"],
)  # fmt: skip
#: Folders of training's data, in the work folder.
TOKENS, TOKENIZER = Path("tokens"), Path("tokenizer")


@dataclass(frozen=True)
class Scale:
    """What the parts compute, and for how long."""

    operators: Operators | None  # None: config.yaml's, the paper's shapes
    model: Shape
    precision: Precision  # of matrix products in training, and of decoded weights
    compile: bool
    context_length: int
    batch_size: int  # sequences per step
    micro_batch_size: int
    training_seconds: int
    new_tokens: int
    tests: str  # pytest's -k
    rehearsed: bool = False
    patience: int = 1  # times the parts' limits


#: For a GPU.
WHOLE = Scale(
    operators=None, model=SMOLLM2, precision="bfloat16", compile=True, context_length=1024, batch_size=64,
    micro_batch_size=8, training_seconds=90, new_tokens=128, tests="",
)  # fmt: skip

#: Every line of it on a CPU, in a minute or two; its numbers mean nothing.
REHEARSAL = Scale(
    operators=Operators(
        shapes={"7B": (64, 192), "13B": (64, 192), "1B": (64, 192)}, densities=[1, 0.5], rounds=4, memory_limit=1 << 20
    ),
    model=SMOLLM2.model_copy(update={
        "hidden_size": 32, "intermediate_size": 96, "layers": 2, "heads": 2, "kv_heads": 1, "vocabulary_size": 256,
        "rank": 8,
    }),
    precision="float32", compile=False, context_length=32, batch_size=8, micro_batch_size=2, training_seconds=0,
    new_tokens=8, tests="blocks_of_the_real_size or registered_for_cuda", rehearsed=True, patience=5,
)  # fmt: skip
