"""Advantage estimators and aggregations."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from klsim import _validate
from klsim import objectives as o
from klsim.objectives.advantages import (
    advantages,
    batch_mean,
    batch_std,
    group_std,
    leave_one_out_mean,
    no_baseline,
    prompt_weights,
    std_weight,
)

R = np.array([1.0, 0.0, 0.0, 3.0, 1.0])
G = np.array([7, 7, 7, 2, 2])


def test_by_hand():
    assert np.allclose(advantages(R, G), [2 / 3, -1 / 3, -1 / 3, 1, -1])
    assert np.allclose(advantages(R, G, baseline=leave_one_out_mean), [1, -0.5, -0.5, 2, -2])
    assert np.allclose(advantages(R, G, baseline=no_baseline), R)
    std = np.sqrt(2) / 3
    assert np.allclose(advantages(R, G, scale=group_std), [2 / 3 / std, -1 / 3 / std, -1 / 3 / std, 1, -1])
    assert np.allclose(advantages(R, G, baseline=batch_mean, scale=batch_std), (R - 1) / R.std())
    assert np.allclose(advantages(R, G, scale=batch_std, epsilon=0.5), advantages(R, G) / (R.std() + 0.5))


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_the_deviation_of_a_batch_has_no_range(scale):
    """Also where the squares of the rewards overflow or vanish."""
    np.testing.assert_allclose(batch_std(scale * R, G), np.full(5, scale * R.std()), rtol=1e-14)


def test_torch_agrees():
    found = advantages(torch.tensor(R), torch.tensor(G), scale=group_std)
    assert np.allclose(found.numpy(), advantages(R, G, scale=group_std), atol=1e-15)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_invariances(scale):
    rng = np.random.default_rng(0)
    rewards, group = rng.standard_normal(48), np.repeat(np.arange(6), 8)
    moved = scale * (rewards + group)
    std = partial(advantages, scale=group_std)
    assert np.allclose(std(moved, group), std(rewards, group), atol=1e-7)
    assert np.allclose(advantages(moved, group) / scale, advantages(rewards, group), atol=1e-7)
    assert not np.allclose(advantages(moved, group, scale=batch_std), advantages(rewards, group, scale=batch_std))


def test_equal_rewards_give_zero_not_noise():
    assert np.all(advantages(np.full(6, 0.1), np.zeros(6, dtype=int), scale=group_std) == 0)
    assert np.any(advantages(np.array([0.1, 0.1 + 1e-9]), np.zeros(2, dtype=int), scale=group_std) != 0)


@pytest.mark.parametrize(("p", "size"), [(0.02, 4), (0.1, 8), (0.5, 8), (0.9, 4)])
def test_std_weight_by_enumerating_all_reward_vectors(p, size):
    total = 0.0
    for rewards in itertools.product([0.0, 1.0], repeat=size):
        r = np.array(rewards)
        chance = np.prod(np.where(r == 1, p, 1 - p))
        a = (r - r.mean()) / r.std() if 0 < r.mean() < 1 else np.zeros(size)
        total += chance * np.mean(a * (r / p - (1 - r) / (1 - p)))
    assert np.isclose(std_weight(p, size), total, rtol=1e-12)
    assert np.isclose(prompt_weights(partial(advantages, scale=group_std), [p], size)[0], total, rtol=1e-12)


def test_std_weight_limits():
    assert np.allclose(std_weight([0.01, 0.3, 0.99], 2), 1.0)
    assert np.allclose(std_weight([0.01, 0.3, 0.99], 3), np.sqrt(2))
    assert np.isclose(std_weight(0.3, 4000), 1 / np.sqrt(0.21), rtol=1e-3)
    assert np.isclose(std_weight(1e-9, 9), np.sqrt(8), rtol=1e-6)
    with pytest.raises(ValueError, match=r"success.*\(0, 1\)"):
        std_weight(1.0, 4)


def test_the_memory_of_std_weight_is_counted(monkeypatch):
    """Three rates and groups of four: twelve terms of 40 bytes."""
    monkeypatch.setattr(_validate, "LARGEST", 3 * 4 * 40)
    assert std_weight([0.2, 0.5, 0.7], 4).shape == (3,)
    monkeypatch.setattr(_validate, "LARGEST", 3 * 4 * 40 - 1)
    with pytest.raises(ValueError, match="group_size = 4: would need"):
        std_weight([0.2, 0.5, 0.7], 4)


def test_prompt_weights_of_mean_baselines():
    p = np.array([0.2, 0.7])
    assert np.allclose(prompt_weights(advantages, p, 4), [3 / 4 / 2] * 2)
    assert np.allclose(prompt_weights(partial(advantages, baseline=leave_one_out_mean), p, 4), [0.5, 0.5])


def test_ten_million_counts_are_the_most():
    """Ten counts of each of seven prompts are 10^7: the estimator is asked; eleven are more: it is not."""

    def asked(rewards, group):
        raise ValueError("asked")

    with pytest.raises(ValueError, match="asked"):
        prompt_weights(asked, np.full(7, 0.5), 9)
    with pytest.raises(ValueError, match=r"group_size = 10: has more than 10\^7 counts"):
        prompt_weights(asked, np.full(7, 0.5), 10)
    for prompts, size in ((1, 10**7), (24, 1), (10**4, 2**62)):
        with pytest.raises(ValueError, match=r"has more than 10\^7 counts"):
            prompt_weights(asked, np.full(prompts, 0.5), size)
    with pytest.raises(ValueError, match="asked"):
        prompt_weights(asked, np.full(23, 0.5), 1)


def test_aggregations_by_hand():
    values = np.array([[1.0, 2.0, 100.0], [4.0, 5.0, 6.0]])
    mask = np.array([[True, True, False], [True, True, True]])
    assert o.sequence_sum(values, mask) == (3 + 15) / 2
    assert o.sequence_mean(values, mask) == (1.5 + 5) / 2
    assert o.token_mean(values, mask) == 18 / 5
    assert o.fixed_length(3)(values, mask) == 3.0
    with pytest.raises(ValueError, match="length"):
        o.fixed_length(0)


@pytest.mark.parametrize("p", [5e-324, 1e-308, 1e-5, 0.3, 1 - 2**-53])
@pytest.mark.parametrize("size", [2, 3, 64, 500])
def test_the_weight_of_group_normalisation_at_extremes(p, size):
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60):
        exact = mpmath.mpf(p)
        mean = sum(
            mpmath.binomial(size, c) * exact**c * (1 - exact) ** (size - c) * mpmath.sqrt(c * (size - c)) / size
            for c in range(1, size)
        )
        assert float(std_weight(p, size)) == pytest.approx(float(mean / (exact * (1 - exact))), rel=1e-12)
