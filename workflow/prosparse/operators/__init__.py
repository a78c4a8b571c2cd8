"""FFN operators for decoding that skip inactive neurons.

::

    from prosparse.operators import linear, sparse_ffn

    down_weight_transposed = down_proj.weight.t().contiguous()  # once
    gate = linear(x, gate_proj.weight)                          # step (1) stays dense; x is [1 to 8, hidden_size]
    y = sparse_ffn(x, gate, up_proj.weight, down_weight_transposed, threshold)

``sparse_up`` is the paper's step (2), ``sparse_down`` its step (3), and ``sparse_ffn`` does both. With a predictor's
logits, ``linear(x, gate_proj.weight, logits, threshold)`` also skips the neurons predicted inactive in step (1).
``dense_ffn`` and ``linear`` without a score read every row and serve as baselines for the sparse operators. The
tensors' device selects the implementation: Triton kernels on GPUs (gpu.py), native kernels on CPUs (cpu.cpp).
All are torch operators that work with torch.compile and torch.export. They have no gradient: use them for inference
only. ``reference`` defines exactly what they compute, NaN and infinities included.
"""

import torch

from prosparse.operators import cpu, interface

cpu.register()
if torch.cuda.is_available():  # also of AMD GPUs, which torch calls so
    from prosparse.operators import gpu  # noqa: F401  (registers itself)

MAX_BATCH = interface.MAX_BATCH
sparse_up = torch.ops.prosparse.sparse_up.default
sparse_down = torch.ops.prosparse.sparse_down.default
sparse_ffn = torch.ops.prosparse.sparse_ffn.default
dense_ffn = torch.ops.prosparse.dense_ffn.default
linear = torch.ops.prosparse.linear.default
