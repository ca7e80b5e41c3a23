"""Prompt bandits: shared weights move other prompts, tabular ones do not."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.estimators import pass_at_k_exact
from klsim.learning import SGD, Adam, ascend_prompts, draw_answers, group_gradient, population_gradient, train_prompts
from klsim.problems import PromptBandit

RNG = np.random.default_rng(0)
LOGITS, REWARD = RNG.standard_normal((5, 4)), (RNG.random((5, 4)) < 0.4).astype(float)
SHARED = PromptBandit(LOGITS, REWARD, RNG.standard_normal((5, 2)))


def test_zero_weights_are_the_base_policy():
    np.testing.assert_allclose(SHARED.log_policy(), log_normalize(LOGITS))
    np.testing.assert_allclose(SHARED.log_policy(np.zeros((4, 2))), log_normalize(LOGITS))
    np.testing.assert_allclose(SHARED.success(), np.sum(np.exp(log_normalize(LOGITS)) * REWARD, axis=1))


def test_an_exact_step_is_the_gradient_of_the_summed_reward():
    step = train_prompts(SHARED, SGD(1.0), steps=1).final
    h = 1e-6
    for index in np.ndindex(4, 2):
        shift = np.zeros((4, 2))
        shift[index] = h
        numeric = (SHARED.success(shift).sum() - SHARED.success(-shift).sum()) / (2 * h)
        assert step[index] == pytest.approx(numeric, abs=1e-9)


def test_sampled_steps_average_to_the_exact_one():
    """The group-mean baseline shrinks the expectation by (N - 1)/N."""
    exact = train_prompts(SHARED, SGD(1.0), steps=1).final
    runs = np.array(
        [train_prompts(SHARED, SGD(1.0), steps=1, rollouts=4, scale="none", rng=s).final for s in range(3000)]
    )
    z = (runs.mean(axis=0) - 0.75 * exact) / (runs.std(axis=0) / np.sqrt(3000))
    assert np.abs(z).max() < 5


def test_tabular_prompts_do_not_interfere():
    reward = np.zeros((5, 4))
    reward[0, 1] = 1.0
    tabular = PromptBandit.tabular(LOGITS, reward)
    moved = tabular.log_policy(train_prompts(tabular, SGD(1.0), steps=50).final)
    np.testing.assert_allclose(moved[1:], log_normalize(LOGITS)[1:], atol=1e-15)
    assert moved[0, 1] > log_normalize(LOGITS)[0, 1]


def test_recording_and_reproducibility():
    run = train_prompts(SHARED, SGD(0.1), steps=20, rollouts=4, record=(0, 5), rng=1)
    again = train_prompts(SHARED, SGD(0.1), steps=20, rollouts=4, rng=1)
    assert run.steps.tolist() == [0, 5, 20]
    np.testing.assert_array_equal(run.final, again.final)
    np.testing.assert_array_equal(run.weights[0], np.zeros((4, 2)))


WORLDS = PromptBandit(
    RNG.standard_normal((3, 5, 4)), (RNG.random((3, 5, 4)) < 0.4).astype(float), RNG.standard_normal((3, 5, 2))
)


def alone(k):
    return PromptBandit(WORLDS.base_logits[k], WORLDS.reward[k], WORLDS.features[k])


@pytest.mark.parametrize("optimiser", [SGD(0.5), Adam(0.1)])
def test_a_batch_of_worlds_moves_as_each_alone(optimiser):
    together = train_prompts(WORLDS, optimiser, steps=10, record=(3,))
    for k in range(3):
        run = train_prompts(alone(k), optimiser, steps=10, record=(3,))
        for ours, theirs in zip(together.weights, run.weights):
            np.testing.assert_allclose(ours[k], theirs, atol=1e-13)
        np.testing.assert_allclose(WORLDS.success(together.final)[k], alone(k).success(run.final), atol=1e-14)


def test_pass_at_k_and_modes_of_a_batch():
    weights = RNG.standard_normal(WORLDS.weight_shape)
    p, base = np.exp(WORLDS.log_policy(weights)), np.exp(WORLDS.log_policy())
    found = WORLDS.pass_at_k(np.array([1, 4, 64])[:, None, None], weights)
    np.testing.assert_allclose(found[0], WORLDS.success(weights))
    np.testing.assert_allclose(found[2], pass_at_k_exact(WORLDS.success(weights), 64))
    for index in np.ndindex(3, 5):
        right = WORLDS.reward[index] == 1
        kept = (p[index] > 0.5 * base[index])[right]
        assert WORLDS.modes_kept(weights, 0.5)[index] == pytest.approx(kept.mean() if right.any() else 1.0)
    assert np.all(WORLDS.modes_kept(np.zeros(WORLDS.weight_shape), 0.99) == 1)


def test_selected_prompts_share_the_weights():
    weights = RNG.standard_normal(WORLDS.weight_shape)
    for prompts in (slice(1, 3), [4, 0, 4]):
        np.testing.assert_allclose(WORLDS.select(prompts).log_policy(weights), WORLDS.log_policy(weights)[:, prompts])


def test_answers_are_drawn_from_the_policy_and_groups_from_answers():
    log_policy = WORLDS.log_policy()
    counts = draw_answers(log_policy, 10_000, 0)
    np.testing.assert_array_equal(counts.sum(axis=-1), 10_000)
    off = np.log([0.5 + 2e-9, 0.5 + 2e-9, 1e-30])  # legal: its mass is 1 to the tolerance of the door
    assert draw_answers(off, 10, 0).sum() == 10
    p = np.exp(log_policy)
    assert np.all(np.abs(counts / 10_000 - p) <= 5 * np.sqrt(p * (1 - p) / 10_000) + 1e-12)
    # a large group estimates the exact gradient; a bonus is added as it is: -log pi gives that of the entropy
    many = np.mean(
        [group_gradient(log_policy, WORLDS.reward, 4000, s, scale="none", bonus=-log_policy) for s in range(25)], 0
    )
    exact = population_gradient(log_policy, WORLDS.reward - log_policy)
    assert np.abs(many - exact).max() < 5 * 6 / np.sqrt(100_000)


def test_any_direction_can_be_followed():
    def entropy(log_policy, rng):
        return population_gradient(log_policy, -log_policy)

    tabular = PromptBandit.tabular(WORLDS.base_logits, WORLDS.reward)
    end = tabular.log_policy(ascend_prompts(tabular, entropy, SGD(1.0), steps=400).final)
    np.testing.assert_allclose(end, -np.log(4), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PromptBandit(LOGITS, REWARD[:, :3], np.eye(5)), "base_logits"),
        (lambda: PromptBandit(LOGITS, REWARD, np.eye(4)), "features"),
        (lambda: PromptBandit(LOGITS, REWARD * np.nan, np.eye(5)), "reward"),
        (lambda: SHARED.log_policy(np.zeros((2, 4))), "weights"),
        (lambda: train_prompts(SHARED, SGD(1.0), steps=-1), "steps"),
        (lambda: train_prompts(SHARED, SGD(1.0), steps=1, rollouts=1, baseline="leave_one_out"), "rollouts"),
        (lambda: PromptBandit(LOGITS, REWARD / 2, np.eye(5)).pass_at_k(2), "reward.*0 or 1"),
        (lambda: SHARED.modes_kept(np.zeros((4, 2)), 1.5), "fraction"),
        (lambda: SHARED.select([5]), "prompts"),
        (lambda: SHARED.weight_gradient(np.zeros((4, 5))), "direction"),
        (lambda: ascend_prompts(SHARED, lambda log_policy, rng: log_policy[:1], SGD(1.0), steps=1), "direction"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
