"""The paper's points of performance over sparsity, against its tables as read from the paper."""

from __future__ import annotations

from prosparse.published.frontier import published_original, published_points


def printed(scale, method, comparable=True):
    return [
        (point.sparsity, point.performance)
        for point in published_points(scale)
        if point.method == method and point.comparable is comparable
    ]


def test_points_of_7b():
    assert published_original("7B") == 37.96
    assert printed("7B", "ReluLLaMA") == [(66.98, 37.62)]
    assert printed("7B", "Vanilla ReLU") == [(66.04, 41.40)]
    assert printed("7B", "Shifted ReLU") == [(69.59, 41.33)]
    assert printed("7B", "Constant λ") == [(85.95, 37.83), (88.62, 36.34), (93.15, 33.86)]
    sweep = [(88.11, 38.31), (88.62, 38.20), (89.32, 38.46), (90.35, 38.07), (90.95, 38.12)]
    assert printed("7B", "Progressive λ (ProSparse)") == sweep


def test_points_of_13b_and_1b():
    assert (published_original("13B"), published_original("1B")) == (44.06, 44.44)
    assert printed("13B", "Constant λ") == [(86.23, 43.87), (88.96, 42.85), (92.65, 40.13)]
    assert len(printed("13B", "Progressive λ (ProSparse)")) == 5  # Table 9's; Tables 1 and 5 repeat two of them
    assert printed("1B", "Progressive λ (ProSparse)") == [(86.25, 44.72), (87.89, 44.72)]


def test_fixed_l1_and_the_longer_runs_are_points_of_their_own():
    assert printed("7B", "Constant λ", comparable=False) == [(91.46, 33.24)]
    assert printed("7B", "Progressive λ (ProSparse)", comparable=False) == [(88.29, 40.67)]
    assert printed("7B", "Vanilla ReLU", comparable=False) == [(64.93, 41.52)]
    assert printed("7B", "Shifted ReLU", comparable=False) == [(68.35, 41.40)]
