"""Parameters and FLOPs against published counts and sums by hand."""

from __future__ import annotations

import pytest
from helpers.paper_scale import LLAMA2_7B, MINICPM_1B

from prosparse.experiment.model import Architecture
from prosparse.plan.costs import of_architecture


def test_parameters_of_llama2_7b_are_those_published():
    assert of_architecture(Architecture(**LLAMA2_7B)).parameters == 6_738_415_616


def test_parameters_of_minicpm_1b_are_those_published():
    """1,247,442,432 without the embedding: MiniCPM's technical report (Hu et al. 2024), table of its sizes."""
    assert of_architecture(Architecture(**MINICPM_1B)).parameters == 1_247_442_432 + 73440 * 1536


def test_training_flops_of_llama2_7b_by_hand():
    """Every product of one token written out: 2 FLOPs a weight forward, twice that backward."""
    d, f, vocabulary, context = 4096, 11008, 32000, 4096
    layer = 0
    for rows, columns in [(d, d)] * 4 + [(f, d), (f, d), (d, f)]:
        layer += 2 * rows * columns
    layer += 2 * context * 128 * 32  # scores: each of 32 heads, a query of 128 with every key
    layer += 2 * context * 128 * 32  # their product with the values
    forward = 32 * layer + 2 * vocabulary * d
    assert of_architecture(Architecture(**LLAMA2_7B)).training_flops(context) == 3 * forward
    # near the rule of thumb: 6 a parameter, and 16 % for attention at this context
    assert 3 * forward == pytest.approx(6 * 6.607e9 + 12 * 32 * 4096 * 4096, rel=1e-3)


def test_training_flops_of_minicpm_1b_by_hand():
    d, f, keys, vocabulary, context = 1536, 3840, 8 * 64, 73440, 4096
    products = 2 * d * d + 2 * keys * d + 3 * f * d
    attention = 2 * (2 * context * 1536)
    forward = 52 * (2 * products + attention) + 2 * vocabulary * d
    assert of_architecture(Architecture(**MINICPM_1B)).training_flops(context) == 3 * forward
