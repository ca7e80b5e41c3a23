"""Training on mixtures of sources: a step against the library's losses, weights against the rewards, common random numbers, bad input."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from klsim.learning.replay import Mixture, train_mixtures
from klsim.learning.reweighting import objective_weights
from klsim.problems import PromptBandit


def problem(worlds=(2,), prompts=3, answers=3, inputs=2, seed=0):
    rng = np.random.default_rng(seed)
    shape = (*worlds, prompts)
    reward = np.eye(answers)[rng.integers(0, answers, shape)]
    return PromptBandit(rng.standard_normal((*shape, answers)), reward, rng.standard_normal((*shape, inputs)))


def uniforms(worlds=(2,), steps=6, sources=2, seed=1):
    return np.random.default_rng(seed).random((*worlds, steps, sources, 4, 1 + 5))


def test_a_step_by_hand():
    """One prompt, two answers: a right one, three wrong ones; advantages sqrt(3), -1/sqrt(3)."""
    bandit = PromptBandit(np.zeros((1, 2)), np.array([[0.0, 1.0]]), np.ones((1, 1)))
    u = np.array([0.0, 0.1, 0.2, 0.3, 0.9]).reshape(1, 1, 1, 5)
    run = train_mixtures([bandit], [Mixture((1.0,)), Mixture((0.5,))], u, lr=2.0)
    step = math.sqrt(3) / 4
    np.testing.assert_allclose(run.parameters[0][:, :, 0], [[-2 * step, 2 * step], [-step, step]])
    assert run.reward.ravel().tolist() == [0.25, 0.25]
    # answers that all agree move nothing
    agreed = train_mixtures([bandit], [Mixture((1.0,))], np.full((1, 1, 1, 5), 0.1), lr=2.0)
    assert not agreed.parameters[0].any()


def test_the_scale_of_rewards_does_not_matter():
    """Also where their squares are not representable."""
    bandit, u = problem(), uniforms(sources=1)
    plain = train_mixtures([bandit], [Mixture((1.0,))], u, lr=0.3).parameters[0]
    for scale in (1e-300, 1e300):
        scaled = PromptBandit(bandit.base_logits, scale * bandit.reward, bandit.features)
        found = train_mixtures([scaled], [Mixture((1.0,))], u, lr=0.3).parameters[0]
        np.testing.assert_allclose(found, plain, rtol=1e-12)


def test_the_penalty_pulls_back_to_the_base():
    bandit, u = problem(), uniforms(steps=200, sources=1)
    free, held = train_mixtures([bandit], [Mixture((1.0,)), Mixture((1.0,), beta=(5.0,))], u, lr=0.1).parameters[0]
    assert np.linalg.norm(held) < 0.5 * np.linalg.norm(free)
    still = train_mixtures([bandit], [Mixture((0.0,), beta=(1.0,))], u, lr=0.1)
    assert np.abs(still.parameters[0]).max() < 1e-12


def test_mixtures_and_worlds_do_not_mix():
    sources, u = [problem(), problem(seed=3)], uniforms()
    plans = [Mixture((1.0, 0.0)), Mixture((1.0, 1.0), beta=(0.1, 0.0), temperature=0.5, track="loss")]
    both = train_mixtures(sources, plans, u, lr=0.3, window=2, record=(0, 3))
    assert both.steps.tolist() == [0, 3, 6]
    assert both.success.shape == (2, 2, 3, 2)
    for m, plan in enumerate(plans):
        alone = train_mixtures(sources, [plan], u, lr=0.3, window=2, record=(0, 3))
        np.testing.assert_allclose(alone.parameters[0][0], both.parameters[0][m], atol=1e-12)
    for w in range(2):
        one = [PromptBandit(p.base_logits[w], p.reward[w], p.features[w]) for p in sources]
        alone = train_mixtures(one, plans, u[w], lr=0.3, window=2, record=(0, 3))
        np.testing.assert_allclose(alone.success, both.success[:, w], atol=1e-12)
        np.testing.assert_allclose(alone.weights, both.weights[:, w], atol=1e-12)


def test_blocks_share_weights_or_do_not():
    sources, u = [problem(), problem(seed=3)], uniforms()
    apart = train_mixtures(sources, [Mixture((1.0, 1.0))], u, lr=0.3, blocks=(0, 1))
    first = train_mixtures(sources, [Mixture((1.0, 0.0))], u, lr=0.3)
    np.testing.assert_allclose(apart.parameters[0], first.parameters[0], atol=1e-12)
    shared = train_mixtures(sources, [Mixture((1.0, 1.0))], u, lr=0.3)
    assert np.abs(shared.parameters[0] - first.parameters[0]).max() > 0.01


def test_success_and_weights_are_those_of_the_run():
    sources, u = [problem(), problem(seed=3)], uniforms()
    plan = Mixture((1.0, 1.0), temperature=0.5, track="loss")
    run = train_mixtures(sources, [plan], u, lr=0.3, window=2, record=(0,))
    for k, source in enumerate(sources):
        np.testing.assert_allclose(run.success[0, :, 0, k], source.success().mean(axis=-1))
        np.testing.assert_allclose(run.success[0, :, 1, k], source.success(run.parameters[0][0]).mean(axis=-1))
    assert np.all(run.weights[..., :4, :] == 1)
    history = 1 - np.swapaxes(run.reward, -1, -2)
    np.testing.assert_allclose(run.weights[..., 5, :], objective_weights(history[..., 1:5], 2, 0.5, floor=1e-3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Mixture(()), "beta: must have one entry a source"),
        (lambda: Mixture((1.0,), beta=(1.0, 2.0)), "beta: must have one entry a source"),
        (lambda: Mixture((-1.0,)), "share[0]"),
        (lambda: Mixture((1.0,), temperature=0.0), "temperature"),
        (lambda: Mixture((1.0,), track="gain"), "track"),
        (lambda: train_mixtures([], [Mixture((1.0,))], uniforms(), lr=1.0), "sources: needs"),
        (lambda: train_mixtures([problem()], [Mixture((1.0, 1.0))], uniforms(), lr=1.0), "mixtures[0]: has 2 shares"),
        (lambda: train_mixtures([problem()], [Mixture((1.0,))], uniforms(), lr=1.0), "uniforms: must hold 1 sources"),
        (lambda: train_mixtures([problem()], [Mixture((1.0,))], uniforms(steps=0, sources=1), lr=1.0), "uniforms: must"),
        (lambda: train_mixtures([problem((3,))], [Mixture((1.0,))], uniforms(), lr=1.0), "uniforms: must be"),
        (lambda: train_mixtures([problem(), problem(answers=4)], [Mixture((1, 1))], uniforms(), lr=1.0), "sources[1]"),
        (lambda: train_mixtures([problem()], [Mixture((1.0,))], uniforms(sources=1) + 1, lr=1.0), "uniforms"),
        (lambda: train_mixtures([problem()], [Mixture((1.0,))], uniforms(sources=1), lr=math.inf), "lr"),
        (lambda: train_mixtures([problem()], [Mixture((1.0,))], uniforms(sources=1), lr=1_000_000.5), "lr = 1000000.5"),
        (lambda: train_mixtures([problem()], [Mixture((1.0,))], uniforms(sources=1), lr=1.0, blocks=(1,)), "blocks"),
        (lambda: train_mixtures([problem()], [Mixture((1.0,))], uniforms(sources=1), lr=1.0, record=(7,)), "record"),
        (lambda: train_mixtures([problem()], [Mixture((1.0,))], uniforms(sources=1), lr=1.0, floor=0.0), "floor"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
