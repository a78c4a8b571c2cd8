"""ProSparse: intrinsic activation sparsity for gated-FFN language models.

Song et al., COLING 2025, arXiv 2402.13516.
"""

__version__ = "0.1.0"
