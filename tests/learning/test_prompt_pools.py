"""Pools of prompts: steps by hand, the law of sampled runs, what curricula keep and cost, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim.learning.difficulty import group_signal
from klsim.learning.prompt_pools import (
    Phase,
    PromptPool,
    group_step,
    hardest,
    rollouts_for_success,
    train_phases,
    updates_to_reach,
)
from klsim.objectives.advantages import advantages, group_mean, group_std


@pytest.mark.parametrize(
    ("p", "q", "n"), [(0.02, 0.9, 114), (0.5, 0.75, 2), (0.5, 0.7500001, 3), (1.0, 0.999, 1), (0.9, 0.01, 1)]
)
def test_rollouts_for_success(p, q, n):
    assert float(rollouts_for_success(p, q)) == n


def test_rare_and_impossible_successes():
    found = rollouts_for_success([0.0, 1e-300, 1e-12], 0.5)
    assert found[0] == math.inf
    np.testing.assert_allclose(found[1:], math.log(2) / np.array([1e-300, 1e-12]), rtol=1e-11)


@given(st.integers(1, 12), st.data())
def test_a_group_by_its_advantages(n, data):
    """One half of the mean of ``|A|`` times the spread is the step: ``A (r - p^)`` averages to std or variance."""
    k = data.draw(st.integers(0, n))
    rewards = (np.arange(n) < k).astype(float)
    assert float(group_step(k, n, std=False)) == pytest.approx(np.var(rewards), abs=1e-15)
    if n > 1:
        a = advantages(rewards, np.zeros(n, dtype=int), baseline=group_mean, scale=group_std)
        assert float(group_step(k, n)) == pytest.approx(np.mean(a * rewards), abs=1e-14)


def test_the_mean_step_is_the_signal():
    rng, p = np.random.default_rng(0), np.array([0.02, 0.5, 0.9])
    for std in (True, False):
        steps = group_step(rng.binomial(8, p, (40_000, 3)), 8, std=std)
        error = 5 * steps.std(axis=0) / 200
        assert np.all(np.abs(steps.mean(axis=0) - group_signal(p, 8, std=std)) < error)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.data())
def test_hardest_by_sorting(counts, data):
    rate = np.array(counts) / 4
    among = np.array(data.draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts))))
    if not among.any():
        with pytest.raises(ValueError, match="size"):
            hardest(rate, 1, among)
        return
    size = data.draw(st.integers(1, int(among.sum())))
    chosen = sorted((r, i) for i, r in enumerate(rate) if among[i])[:size]
    assert set(np.flatnonzero(hardest(rate, size, among))) == {i for _, i in chosen}


def test_hardest_of_several_seeds():
    rate = np.array([[0.5, 0.0, 0.25], [0.0, 1.0, 1.0]])
    np.testing.assert_array_equal(hardest(rate, 2), [[False, True, True], [True, True, False]])


def test_steps_of_large_groups():
    assert float(group_step(10**10, 2 * 10**10)) == 0.5


class TestTraining:
    def test_one_prompt_is_a_chain_of_steps(self):
        """Its logit is a sum of steps, and certain prompts stay where they are."""
        pool = PromptPool(np.array([[-40.0, 40.0]]))
        for moved in (pool.train(50, 8, 1.0, 0), pool.sweep(8, 1.0, 0)):
            np.testing.assert_array_equal(moved.logits, pool.logits)
        assert pool.train(50, 8, 1.0, 0).rollouts == 400
        assert pool.sweep(8, 1.0, 0).rollouts == 16

    def test_two_updates_of_two_rollouts(self):
        """The law by hand: a step of lr/2 if the two differ."""
        pool, lr = PromptPool.of_success(np.full((20_000, 1), 0.3)), 0.5
        swept = pool.sweep(2, lr, 1).sweep(2, lr, 2)
        trained = pool.train(2, 2, lr, 3)
        start = math.log(3 / 7)
        p, q = 0.3, 1 / (1 + math.exp(-start - lr / 2))
        one, two = 2 * p * (1 - p), 2 * q * (1 - q)
        law = {0: (1 - one) ** 2, 1: (1 - one) * one + one * (1 - two), 2: one * two}
        for found in (swept, trained):
            steps = np.round((found.logits[:, 0] - start) / (lr / 2)).astype(int)
            for count, chance in law.items():
                share = np.mean(steps == count)
                assert abs(share - chance) < 5 * math.sqrt(chance * (1 - chance) / 20_000)

    def test_uniform_draws_among_the_kept(self):
        pool = PromptPool(np.zeros((4000, 3)))
        among = np.tile([True, False, True], (4000, 1))
        moved = pool.train(1, 8, 1.0, 0, among=among)
        assert np.all(moved.logits[:, 1] == 0)
        assert np.all(np.sum(moved.logits > 0, axis=-1) <= 1)
        signal = 1 - 2 * 0.5**8
        np.testing.assert_allclose(np.mean(moved.logits[:, [0, 2]] > 0, axis=0), signal / 2, atol=5 * 0.5 / 63)

    @pytest.mark.parametrize("transfer", [0.0, 0.25, 1.0])
    def test_transfer(self, transfer):
        pool = PromptPool(np.zeros((50, 3)), transfer=transfer)
        moved = np.sort(pool.train(1, 8, 1.0, 0).logits, axis=-1)
        np.testing.assert_allclose(moved[:, :2], transfer * moved[:, 2:] * np.ones(2), rtol=1e-14)
        rng = np.random.default_rng(5)
        step = group_step(rng.binomial(8, np.full((50, 3), 0.5)), 8)
        expected = step + transfer * (step.sum(axis=-1, keepdims=True) - step)
        np.testing.assert_allclose(pool.sweep(8, 1.0, 5).logits, expected, rtol=1e-13)

    def test_estimates_are_paid_and_unbiased(self):
        pool = PromptPool.of_success(np.full((2000, 2), [0.2, 0.7]))
        among = np.tile([True, False], (2000, 1))
        rate, paid = pool.estimate(10, 0, among)
        assert paid.rollouts == 10
        assert np.all(rate[:, 1] == 0)
        assert abs(rate[:, 0].mean() - 0.2) < 5 * math.sqrt(0.016 / 2000)
        np.testing.assert_array_equal(paid.logits, pool.logits)


class TestPhases:
    def test_the_account_by_hand(self):
        """5 prompts, groups of 4, 200 rollouts: 20 for the first estimate, 90 of 180 left (22 groups), and so on."""
        pool = PromptPool(np.linspace(-2, 2, 5)[None] * np.ones((3, 1)))
        phases = [Phase(3, 0.5), Phase(2, 1.0)]
        end, masks = train_phases(pool, phases, budget=200, group_size=4, lr=0.1, rng=0)
        assert [m.sum(axis=-1).tolist() for m in masks] == [[3, 3, 3], [2, 2, 2]]
        assert end.rollouts == 20 + 88 + 12 + 80
        assert not np.any(masks[1] & ~masks[0])
        np.testing.assert_array_equal(end.logits[~masks[0]], pool.logits[~masks[0]])

    def test_one_phase_is_uniform_sampling(self):
        pool = PromptPool(np.zeros((2, 4)))
        end, masks = train_phases(pool, [Phase(4)], budget=81, group_size=4, lr=0.1, rng=7)
        np.testing.assert_array_equal(end.logits, pool.train(20, 4, 0.1, 7).logits)
        assert end.rollouts == 80
        assert masks[0].all()

    def test_the_hardest_are_kept_where_estimates_are_sure(self):
        pool = PromptPool(np.array([40.0, -40.0, 40.0, -40.0]))
        _, masks = train_phases(pool, [Phase(2)], budget=100, group_size=2, lr=0.1, rng=0)
        np.testing.assert_array_equal(masks[0], [False, True, False, True])


class TestReaching:
    def test_with_two_rollouts_the_waits_are_geometric(self):
        """Four steps of lr/2 from 1/2: the expected waits are ``1/(2 p (1 - p))`` each."""
        p = 1 / (1 + np.exp(-0.5 * np.arange(4)))
        expected = np.sum(1 / (2 * p * (1 - p)))
        found = updates_to_reach(np.full(4000, 0.5), 0.87, group_size=2, lr=1.0, rng=0)
        assert abs(found.mean() - expected) < 5 * found.std() / math.sqrt(4000)

    def test_at_the_target_already(self):
        found = updates_to_reach([[0.9, 0.3]], 0.8, group_size=8, lr=1.0, rng=0, most=1000)
        assert found.shape == (1, 2)
        assert found[0, 0] == 0
        assert found[0, 1] > 0

    def test_giving_up(self):
        with pytest.raises(ValueError, match="most = 10: 1 prompts are below"):
            updates_to_reach([0.5], 0.9, group_size=8, lr=0.0, rng=0, most=10)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: rollouts_for_success(1.5, 0.5), ValueError, "success"),
        (lambda: rollouts_for_success(0.5, 1.0), ValueError, "confidence"),
        (lambda: group_step(9, 8), ValueError, "successes"),
        (lambda: group_step(1, 0), ValueError, "group_size"),
        (lambda: hardest([0.1, 0.2], 3), ValueError, "size = 3: must be at most the 2 prompts"),
        (lambda: hardest(0.1, 1), ValueError, "rate"),
        (lambda: hardest([0.1, math.nan], 1), ValueError, "rate"),
        (lambda: PromptPool([math.inf]), ValueError, "logits"),
        (lambda: PromptPool([]), ValueError, "logits"),
        (lambda: PromptPool([0.0], rollouts=-1), ValueError, "rollouts"),
        (lambda: PromptPool([0.0], transfer=2.0), ValueError, "transfer"),
        (lambda: PromptPool.of_success([0.0]), ValueError, "success"),
        (lambda: PromptPool([0.0]).train(-1, 8, 0.1, 0), ValueError, "updates"),
        (lambda: PromptPool([0.0]).train(1, 8, math.nan, 0), ValueError, "lr"),
        (lambda: PromptPool([0.0]).train(1, 8, math.inf, 0), ValueError, "lr = inf"),
        (lambda: PromptPool([0.0]).sweep(8, -math.inf, 0), ValueError, "lr = -inf"),
        (lambda: updates_to_reach([0.1], 0.5, group_size=8, lr=math.inf, rng=0), ValueError, "lr = inf"),
        (lambda: PromptPool([0.0]).train(1, 10**11, 0.1, 0), ValueError, "group_size = 100000000000: would need"),
        (lambda: PromptPool([0.0]).train(10**11, 8, 0.1, 0), ValueError, "updates = 100000000000: would need"),
        (lambda: PromptPool([0.0]).sweep(0, 0.1, 0), ValueError, "group_size"),
        (lambda: PromptPool(np.zeros((2, 2))).train(1, 8, 0.1, 0, among=[[True, True], [True, False]]), ValueError,
         "among: must keep equally many prompts"),
        (lambda: PromptPool([0.0]).estimate(8, 0, [False]), ValueError, "among"),
        (lambda: Phase(0), ValueError, "size"),
        (lambda: Phase(1, 1.5), ValueError, "share"),
        (lambda: train_phases(PromptPool([0.0]), [Phase(2)], budget=9, group_size=2, lr=0.1, rng=0), ValueError,
         r"phases\[0\].size"),
        (lambda: train_phases(PromptPool([0.0, 0.0]), [Phase(1)], budget=9, group_size=8, lr=0.1, rng=0), ValueError,
         "budget = 9: is exceeded by the 16 rollouts of estimates and before"),
        (lambda: train_phases([0.0], [Phase(1)], budget=9, group_size=8, lr=0.1, rng=0), TypeError, "pool"),
        (lambda: updates_to_reach([0.0], 0.5, group_size=8, lr=0.1, rng=0), ValueError, "start"),
        (lambda: updates_to_reach([0.1], 1.5, group_size=8, lr=0.1, rng=0), ValueError, "target"),
    ],
)  # fmt: skip
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text):
        call()
