"""Sparsity without training: its methods, and what their thresholds are calibrated on"""

from __future__ import annotations

from typing import Literal, get_args

#: Thresholds on |act(gate)|, on the inputs of all projections, and on the neurons' outputs.
Method = Literal["cats", "teal", "cett"]
METHODS: tuple[Method, ...] = get_args(Method)

CALIBRATION_TOKENS = 16_384  # of training text; TEAL's authors take 20,480
SEARCH_STEPS = 6  # passes over it to find the largest sparsity at this cost
PERPLEXITY_COST = 0.01  # of the setting that Sparsing Law calls CETT-PPL-1%
AT_COST = "ppl-1%"
