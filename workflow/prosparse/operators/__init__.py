"""Sparse operators for the FFN of a ReLU-activated model: what makes its decoding faster.

::

    from prosparse.operators import sparse_ffn

    down_weight_transposed = down_proj.weight.t().contiguous()  # once
    gate = x @ gate_proj.weight.T                               # step (1) stays dense; x is [1 to 8, hidden_size]
    y = sparse_ffn(x, gate, up_proj.weight, down_weight_transposed, threshold)

``sparse_up`` is the paper's step (2), ``sparse_down`` its step (3), ``sparse_ffn`` both. The tensors' device picks
the implementation: Triton kernels on NVIDIA GPUs (gpu.py), native ones on CPUs (cpu.cpp). They are torch operators,
known to torch.compile and torch.export, for inference only: they have no gradient. ``reference`` says exactly what
they compute and what becomes of NaN and infinities.
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
