"""Reward laws of sources against exact rational arithmetic, and large deviations against their definitions."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest

from klsim.memoryless import MarkovSource, MemorylessSource, law_kl, tilt_law

P3, R3 = np.log([0.5, 0.3, 0.2]), np.array([0.0, 0.37, 1.0])


def exact_lattice(weights, steps, m):
    """Integer weights of all sums of m letters, by one big-integer power."""
    bits = 64 + m * int(sum(weights)).bit_length()
    packed = sum(w << (k * bits) for w, k in zip(weights, steps)) ** m
    mask = (1 << bits) - 1
    return [(packed >> (k * bits)) & mask for k in range(m * max(steps) + 1)]


@pytest.mark.parametrize(
    ("weights", "steps", "m"),
    [([7, 3], [0, 1], 400), ([50, 30, 20], [0, 37, 100], 100), ([25, 25, 20, 20, 10], [0, 1, 2, 3, 5], 120)],
)
def test_lattice_law_is_exact_to_the_far_tails(weights, steps, m):
    total = sum(weights)
    law = MemorylessSource(np.log(np.array(weights) / total), np.array(steps, dtype=float)).lattice_law(m)
    exact = exact_lattice(weights, steps, m)
    assert law.log_prob.min() < -130
    assert len(law.value) == sum(e > 0 for e in exact)
    for value, log_prob in zip(law.value, law.log_prob):
        want = mpmath.log(exact[round(value)]) - m * mpmath.log(total)
        assert abs(float(log_prob) - float(want)) <= 1e-13 * (1 + abs(float(want))) * math.sqrt(m)


def test_one_letter_is_a_constant_reward():
    with pytest.raises(ValueError, match="reward: is constant on the support"):
        MemorylessSource(np.array([0.0, -np.inf]), np.array([0.0, 1.0]))


def test_windows_agree_with_types_at_large_m():
    source = MemorylessSource(np.log([0.7, 0.3]), np.array([0.0, 1.0]))
    types, lattice = source.type_law(100_000), source.lattice_law(100_000)
    np.testing.assert_allclose(lattice.log_prob, types.log_prob, rtol=1e-11, atol=1e-11)


@pytest.mark.slow
def test_a_million_letters():
    law = MemorylessSource(np.log([0.7, 0.3]), np.array([0.0, 1.0])).lattice_law(1_000_000)
    assert law.log_prob.min() == pytest.approx(1e6 * math.log(0.3), rel=1e-12)
    assert float(np.logaddexp.reduce(law.log_prob)) == pytest.approx(0.0, abs=1e-9)


def test_too_sparse_a_lattice_is_refused():
    source = MemorylessSource(np.log([0.5, 0.5]), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="lattice"):
        MemorylessSource(P3, np.array([0.0, 1.0, math.pi])).lattice_law(10)
    assert source.lattice_law(1).value.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("letters", [2, 3, 4])
def test_types_against_enumeration(letters):
    rng = np.random.default_rng(letters)
    log_p, reward = np.log(rng.dirichlet(np.ones(letters))), rng.standard_normal(letters)
    law = MemorylessSource(log_p, reward).type_law(5)
    totals: dict[float, float] = {}
    for word in itertools.product(range(letters), repeat=5):
        key = round(float(reward[list(word)].sum()), 9)
        totals[key] = totals.get(key, 0.0) + math.exp(log_p[list(word)].sum())
    assert len(totals) == len(law.value)
    np.testing.assert_allclose(np.exp(law.log_prob), [totals[k] for k in sorted(totals)], rtol=1e-12)


def test_equal_sums_are_one_value_even_where_the_tolerance_underflows():
    """Rewards 0, 1, 2 in the smallest unit of a float: five sums of two letters, from six types."""
    letters, unit = [0.5, 0.3, 0.2], 5e-324
    law = MemorylessSource(np.log(letters), unit * np.arange(3.0)).type_law(2)
    np.testing.assert_array_equal(law.value, unit * np.arange(5.0))
    np.testing.assert_allclose(np.exp(law.log_prob), np.convolve(letters, letters), rtol=1e-14)


def test_aligned_source_and_cumulants():
    source = MemorylessSource(P3, R3)
    phi = source.aligned(0.15)
    assert phi.alpha == pytest.approx(1.30472, abs=1e-5)
    assert phi.kl == pytest.approx(0.15, rel=1e-12)
    h = 1e-5
    slope = (source.scaled_cumulant(phi.alpha + h) - source.scaled_cumulant(phi.alpha - h)) / (2 * h)
    assert phi.reward == pytest.approx(slope, abs=1e-9)
    assert source.kl(phi.alpha) == pytest.approx(phi.alpha * phi.reward - source.scaled_cumulant(phi.alpha), abs=1e-12)
    boundary = source.aligned(5.0)
    assert boundary.alpha == math.inf
    assert boundary.kl == pytest.approx(math.log(5))
    np.testing.assert_array_equal(np.exp(source.tilted(-math.inf)), [1, 0, 0])


def test_rate_function():
    source = MemorylessSource(P3, R3)
    mean = source.mean()
    assert source.rate_function(mean) == pytest.approx(0.0, abs=1e-20)
    assert source.rate_function(1.0) == pytest.approx(math.log(5))
    assert source.rate_function(1.5) == math.inf
    grid = np.linspace(-60, 60, 20001)
    cumulant = np.array([source.scaled_cumulant(a) for a in grid])
    for x in (0.1, 0.5, 0.8):
        assert source.rate_function(x) == pytest.approx(np.max(grid * x - cumulant), abs=1e-6)


def test_tilting_a_law_tilts_the_source():
    source = MemorylessSource(P3, R3)
    law = source.type_law(30)
    tilted = tilt_law(law, 1.3)
    direct = MemorylessSource(source.tilted(1.3), R3).type_law(30)
    np.testing.assert_allclose(tilted.log_prob, direct.log_prob, atol=1e-11)
    assert law_kl(tilted, law.log_prob) == pytest.approx(30 * source.kl(1.3), rel=1e-10)


class TestMarkov:
    chain = MarkovSource([[0.8, 0.2], [0.5, 0.5]], [[0.0, 2.0], [1.0, 3.0]], [0.7, 0.3])

    def test_law_against_enumeration(self):
        law = self.chain.lattice_law(4)
        totals = dict.fromkeys(law.value.tolist(), 0.0)
        for word in itertools.product(range(2), repeat=5):
            mass, reward = self.chain.initial[word[0]], 0.0
            for i, j in itertools.pairwise(word):
                mass, reward = mass * self.chain.transition[i, j], reward + self.chain.reward[i, j]
            totals[reward] += mass
        np.testing.assert_allclose(np.exp(law.log_prob), list(totals.values()), rtol=1e-12)

    def test_perron_derivative(self):
        h = 1e-5
        slope = (self.chain.scaled_cumulant(0.4 + h) - self.chain.scaled_cumulant(0.4 - h)) / (2 * h)
        assert self.chain.mean(0.4) == pytest.approx(slope, abs=1e-9)
        alpha = self.chain.alpha_for_budget(0.1)
        assert alpha == pytest.approx(0.2142, abs=1e-4)
        with pytest.raises(ValueError, match="limit"):
            self.chain.alpha_for_budget(5.0)

    def test_no_budget_is_spent_on_a_constant_reward(self):
        with pytest.raises(ValueError, match=r"delta = 0\.1: is at or above the limit"):
            MarkovSource(self.chain.transition, np.full((2, 2), 3.0), self.chain.initial).alpha_for_budget(0.1)

    def test_the_extreme_means_are_those_of_cycles_of_the_chain(self):
        """Loops pay 9 and -9, but the chain has none: its only cycle pays 1 and 2."""
        forced = MarkovSource([[0.0, 1.0], [1.0, 0.0]], [[9.0, 1.0], [2.0, -9.0]], [0.5, 0.5])
        assert forced.mean(math.inf) == forced.mean(-math.inf) == 1.5
        assert (self.chain.mean(math.inf), self.chain.mean(-math.inf)) == (3.0, 0.0)

    def test_too_long_a_recursion_is_refused(self):
        """100 000 steps on a lattice of as many points, four transitions each: 2 · 10^10 additions."""
        steps = MarkovSource([[0.5, 0.5], [0.5, 0.5]], [[0.0, 1.0], [0.0, 1.0]], [0.5, 0.5])
        with pytest.raises(ValueError, match="m = 100000: the recursion would take"):
            steps.lattice_law(100_000)

    @pytest.mark.parametrize("scale", [1e-8, 1e-2, 1e8])
    @pytest.mark.parametrize("delta", [1e-6, 0.1])
    def test_a_budget_has_no_unit_of_reward(self, scale, delta):
        small = MarkovSource(self.chain.transition, scale * self.chain.reward, self.chain.initial)
        alpha = small.alpha_for_budget(delta)
        assert alpha * scale == pytest.approx(self.chain.alpha_for_budget(delta), rel=1e-9)
        assert alpha * small.mean(alpha) - small.scaled_cumulant(alpha) == pytest.approx(delta, rel=1e-6)


def test_a_slack_budget_is_never_negative():
    """The mass of the best letters can round to 1 + 2e-16."""
    log_p = np.array([-0.19357470431622836, -700.0, -21.936468400147525, -1.7373183146983084])
    assert MemorylessSource(log_p, np.array([0.0, -2.0, 0.0, 0.0])).delta_max == 0.0


@pytest.mark.parametrize("rewards", [[2.0, 3.0, 5.0], [-5.0, -3.0, -2.0]])
def test_the_extreme_rewards_are_means_of_infinite_tilts(rewards):
    """Above and below zero alike; letters without mass do not count."""
    source = MemorylessSource(np.array([*np.log([0.2, 0.5, 0.3]), -np.inf]), np.array([*rewards, 100.0]))
    low, high = min(rewards), max(rewards)
    assert (source.alpha_for_mean(low), source.alpha_for_mean(high)) == (-math.inf, math.inf)
    assert source.mean(source.alpha_for_mean(0.5 * (low + high))) == pytest.approx(0.5 * (low + high), rel=1e-12)
