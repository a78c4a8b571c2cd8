"""Thresholds without training against values by hand and a float64 search over every possible threshold."""

import numpy as np
import pytest
import torch

from prosparse.method.thresholds import SHARES, common_cett, cut, quantiles, statistics, thresholds, truncation_errors


def random_layer(seed: int, tokens: int = 24):
    """x [tokens, 8], act(gate), x1 [tokens, 20] with heavy tails, and down [8, 20]."""
    generator = torch.Generator().manual_seed(seed)
    x, activated, x1 = (torch.randn(tokens, width, generator=generator) ** 3 for width in (8, 20, 20))
    down = torch.randn(8, 20, generator=generator) * torch.rand(20, generator=generator)
    return x, activated, x1, down


def test_a_threshold_cuts_what_is_at_most_as_large():
    assert cut(torch.tensor([-2.0, 1.0, 2.0, 0.5, -1.0]), 1.0).tolist() == [-2, 0, 2, 0, 0]
    of_neurons = cut(torch.tensor([[3.0, 3.0], [-1.0, -5.0]]), torch.tensor([2.0, 4.0]))
    assert of_neurons.tolist() == [[3, 0], [0, -5]]


def test_quantiles_are_the_least_magnitudes_that_reach_a_share():
    found = quantiles(torch.tensor([[4.0, 1.0], [3.0, 2.0]]), np.array([0, 0.25, 0.3, 0.5, 0.75, 1]))
    assert found.tolist() == [0, 1, 2, 2, 3, 4]
    tenths = quantiles(torch.arange(1.0, 11.0), np.array([0.1, 0.3, 0.7]))  # 0.7 x 10 is above 7 in float64
    assert tenths.tolist() == [1, 3, 7]


def test_the_truncation_error_by_hand():
    """Columns (3, 4) and (0, 2), of norms 5 and 2; the threshold 2 drops neuron 1 of one token, 0 of the other."""
    down = torch.tensor([[3.0, 0.0], [4.0, 2.0]])
    x1 = torch.tensor([[1.0, 1.0], [0.2, -3.0]])
    # outputs (3, 6) without (0, 2), and (0.6, -5.2) without (0.6, 0.8)
    expected = (2 / 45**0.5 + 1 / (0.36 + 27.04) ** 0.5) / 2
    assert truncation_errors(x1, down, [0.5, 2.0, 10]) == [0, pytest.approx(expected), 1]
    silent = torch.cat([x1, torch.zeros(2, 2)])
    assert truncation_errors(silent, down, [2.0]) == [pytest.approx(expected / 2)], "no output, no error"


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_cats_and_teal_cut_the_wanted_share_of_each_tensor(share):
    x, activated, x1, down = random_layer(1)
    layers = [statistics(x, activated, x1, down)]
    (cats,), (teal,) = (thresholds(layers, method, share) for method in ("cats", "teal"))
    assert cats.keys() == {"activation"}
    assert teal.keys() == {"input", "x1"}
    for values, threshold in ((activated, cats["activation"]), (x, teal["input"]), (x1, teal["x1"])):
        magnitudes = sorted(abs(value) for value in values.double().flatten().tolist())
        reached = next(t for rank, t in enumerate(magnitudes, 1) if rank >= share * len(magnitudes) - 1e-9)
        assert threshold == pytest.approx(reached, rel=1e-6)


def exhaustive(x1, down, cett):
    """The share of outputs below the largest threshold up to which no error exceeds ``cett``, in float64."""
    x1, down = x1.double().numpy(), down.double().numpy()
    norms = np.abs(x1) * np.linalg.norm(down, axis=0)
    whole = np.linalg.norm(x1 @ down.T, axis=1)
    share = 0.0
    for threshold in np.sort(norms, axis=None):
        lost = np.linalg.norm(np.where(norms <= threshold, x1, 0) @ down.T, axis=1)
        if (lost / whole).mean() > cett:
            break
        share = (norms <= threshold).mean()
    return share


@pytest.mark.parametrize("cett", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cett_against_every_threshold_in_float64(seed, cett):
    x, activated, x1, down = random_layer(seed)
    layer = statistics(x, activated, x1, down)
    assert layer.truncated(cett) == pytest.approx(exhaustive(x1, down, cett), abs=SHARES[1])
    reached = truncation_errors(x1, down, [layer.threshold("output", layer.truncated(cett))])
    assert reached == [pytest.approx(cett, abs=0.03)]


@pytest.mark.parametrize("sparsity", [0.4, 0.8])
def test_cett_truncates_layers_by_one_error_and_neurons_by_the_sparsity_on_average(sparsity):
    tensors = [random_layer(seed) for seed in range(3)]
    tensors = [(x, a, x1, down * scale) for scale, (x, a, x1, down) in enumerate(tensors, 1)]
    layers = [statistics(*each) for each in tensors]
    chosen = [each["output"] for each in thresholds(layers, "cett", sparsity)]
    shares, errors = [], []
    for (_, _, x1, down), threshold in zip(tensors, chosen, strict=True):
        shares.append((x1.abs() * down.norm(dim=0) <= threshold).double().mean().item())
        errors += truncation_errors(x1, down, [threshold])
    assert sum(shares) / 3 == pytest.approx(sparsity, abs=0.01)
    assert max(shares) - min(shares) > 0.01
    assert errors == pytest.approx([common_cett(layers, sparsity)] * 3, abs=0.03)


def test_a_layer_that_is_sparse_anyway_has_no_error_up_to_its_own_sparsity():
    x, activated, x1, down = random_layer(4)
    x1[:, :10] = 0
    layer = statistics(x, activated, x1, down)
    assert layer.truncated(0) == pytest.approx(0.5, abs=SHARES[1])
    assert layer.truncated(float(layer.errors[-1])) == 1
