"""Operators for the FFN of a ReLU-activated model that skip what is not active: what makes its decoding faster.

::

    from prosparse.operators import linear, sparse_ffn

    down_weight_transposed = down_proj.weight.t().contiguous()  # once
    gate = linear(x, gate_proj.weight)                          # step (1) stays dense; x is [1 to 8, hidden_size]
    y = sparse_ffn(x, gate, up_proj.weight, down_weight_transposed, threshold)

``sparse_up`` is the paper's step (2), ``sparse_down`` its step (3), ``sparse_ffn`` both; with a predictor's logits,
``linear(x, gate_proj.weight, logits, threshold)`` skips the neurons predicted inactive in step (1) too. ``dense_ffn``
and ``linear`` without a score read every row: what the sparse ones are measured against. The tensors' device picks the
implementation: Triton kernels on NVIDIA GPUs (gpu.py), native ones on CPUs (cpu.cpp). They are torch operators, known
to torch.compile and torch.export, for inference only: they have no gradient. ``reference`` says exactly what they
compute and what becomes of NaN and infinities.
"""

import torch

from prosparse.operators import cpu, interface

cpu.register()
if torch.version.cuda is not None and torch.cuda.is_available():
    from prosparse.operators import gpu  # noqa: F401  (registers itself)

MAX_BATCH = interface.MAX_BATCH
sparse_up = torch.ops.prosparse.sparse_up.default
sparse_down = torch.ops.prosparse.sparse_down.default
sparse_ffn = torch.ops.prosparse.sparse_ffn.default
dense_ffn = torch.ops.prosparse.dense_ffn.default
linear = torch.ops.prosparse.linear.default
