"""Prompt bandits: shared weights move other prompts, tabular ones do not."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.learning import SGD, train_prompts
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PromptBandit(LOGITS, REWARD[:, :3], np.eye(5)), "base_logits"),
        (lambda: PromptBandit(LOGITS, REWARD, np.eye(4)), "features"),
        (lambda: PromptBandit(LOGITS, REWARD * np.nan, np.eye(5)), "reward"),
        (lambda: SHARED.log_policy(np.zeros((2, 4))), "weights"),
        (lambda: train_prompts(SHARED, SGD(1.0), steps=-1), "steps"),
        (lambda: train_prompts(SHARED, SGD(1.0), steps=1, rollouts=1, baseline="leave_one_out"), "rollouts"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
