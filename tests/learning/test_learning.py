"""Learning steps against autograd and torch's optimisers; runs against their fixed points."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from klsim.distributions import log_normalize, tilt
from klsim.divergences import kl
from klsim.learning import (
    SGD,
    Adam,
    NaturalGradient,
    SimulatorConfig,
    centre,
    counts_surrogate_gradient,
    exact_tree_ascent,
    population_gradient,
    score_function_gradient,
    set_surrogate_gradient,
    simulate_tokens,
    train_tree,
)
from klsim.problems.token_tree import sequence_log_probs

LOGITS, REWARD, COUNTS = np.array([0.3, -1.0, 0.8, 0.0]), np.array([1.0, -1.0, 0.5, 2.0]), np.array([2, 0, 3, 1])


def autograd(f):
    z = torch.tensor(LOGITS, requires_grad=True)
    f(torch.log_softmax(z, -1)).backward()
    return z.grad.numpy()


def test_gradients_by_autograd():
    log_pi, reward, counts = log_normalize(LOGITS), torch.tensor(REWARD), torch.tensor(COUNTS, dtype=torch.float64)
    cases = (
        (population_gradient(log_pi, REWARD), lambda lp: (lp.exp() * reward).sum()),
        (score_function_gradient(log_pi, COUNTS, REWARD), lambda lp: (counts * reward * lp).sum() / 6),
        (counts_surrogate_gradient(log_pi, COUNTS, REWARD), lambda lp: (counts * reward * lp.exp()).sum() / 6),
        (set_surrogate_gradient(log_pi, COUNTS, REWARD), lambda lp: ((counts > 0) * reward * lp.exp()).sum() / 6),
    )
    for ours, loss in cases:
        np.testing.assert_allclose(ours, autograd(loss), atol=1e-15)


def test_population_gradients_of_a_batch():
    log_pi = log_normalize(np.stack([LOGITS, LOGITS[::-1], 2 * LOGITS]))
    found = population_gradient(log_pi, np.stack([REWARD, 2 * REWARD, -REWARD]))
    for row, p, reward in zip(found, log_pi, (REWARD, 2 * REWARD, -REWARD)):
        np.testing.assert_allclose(row, population_gradient(p, reward), rtol=1e-14)


def test_score_function_is_unbiased():
    log_pi = log_normalize(LOGITS)
    pi, total = np.exp(log_pi), np.zeros(4)
    for draw in itertools.product(range(4), repeat=3):
        counts = np.bincount(draw, minlength=4)
        total += np.prod(pi[list(draw)]) * score_function_gradient(
            log_pi, counts, centre(REWARD, counts, baseline="leave_one_out")
        )
    np.testing.assert_allclose(total, population_gradient(log_pi, REWARD), atol=1e-14)


def test_centring():
    mean = (2 * 1 + 3 * 0.5 + 2) / 6
    np.testing.assert_allclose(centre(REWARD, COUNTS), REWARD - mean)
    np.testing.assert_allclose(centre(REWARD, COUNTS, baseline="leave_one_out"), (REWARD - mean) * 6 / 5)
    assert np.sum(COUNTS * centre(REWARD, COUNTS, scale="std") ** 2) / 6 == pytest.approx(1.0)
    np.testing.assert_array_equal(centre(np.ones(4), COUNTS, scale="std"), np.zeros(4))


def test_adam_is_torchs():
    z, optimiser = LOGITS.copy(), Adam(lr=0.01, epsilon=1e-6, weight_decay=0.05)
    tensor = torch.tensor(LOGITS, requires_grad=True)
    theirs = torch.optim.AdamW([tensor], lr=0.01, eps=1e-6, weight_decay=0.05)
    rng = np.random.default_rng(0)
    for _ in range(20):
        gradient = rng.standard_normal(4)
        z, optimiser = optimiser.step(z, gradient)
        tensor.grad = torch.tensor(-gradient)
        theirs.step()
    np.testing.assert_allclose(z, tensor.detach().numpy(), rtol=1e-12)


def test_natural_gradient_is_the_fisher_step():
    log_pi = log_normalize(LOGITS)
    pi, g = np.exp(log_pi), population_gradient(log_pi, REWARD)
    fisher = np.diag(pi) - np.outer(pi, pi)
    step = NaturalGradient(1.0).step(LOGITS, g)[0] - LOGITS
    np.testing.assert_allclose(fisher @ step, g, atol=1e-15)
    np.testing.assert_allclose(SGD(0.5).step(LOGITS, g)[0], LOGITS + 0.5 * g)


TREE_RNG = np.random.default_rng(1)


class TestTrees:
    ref = tuple(log_normalize(TREE_RNG.standard_normal((2**t, 2))) for t in range(3))
    reward = TREE_RNG.standard_normal(8)

    def test_exact_ascent_with_a_penalty_reaches_the_tilt(self):
        run = exact_tree_ascent(self.ref, self.ref, reward=self.reward, beta=0.5, natural=True, lr=0.3, steps=400)
        target = tilt(sequence_log_probs(self.ref), self.reward, 0.5)
        assert float(kl(sequence_log_probs(run.final), target)) < 1e-20

    def test_sampled_steps_average_to_the_exact_one(self):
        exact = exact_tree_ascent(self.ref, self.ref, reward=self.reward, beta=0.5, steps=1, lr=1e-3)
        moves = []
        for seed in range(400):
            run = train_tree(self.ref, self.ref, reward=self.reward, beta=0.5, batch=64, steps=1, lr=1e-3, rng=seed)
            moves.append(np.concatenate(run.final) - np.concatenate(self.ref))
        moves = np.array(moves)
        z = (moves.mean(axis=0) - (np.concatenate(exact.final) - np.concatenate(self.ref))) / (moves.std(axis=0) / 20)
        assert np.abs(z).max() < 5

    def test_target_credit_reaches_the_target(self):
        target = tilt(sequence_log_probs(self.ref), self.reward, 0.5)
        run = train_tree(
            self.ref,
            self.ref,
            log_target=target,
            credit="target",
            baseline="none",
            steps=3000,
            lr=0.5,
            lr_decay=300,
            rng=0,
        )
        assert float(kl(target, sequence_log_probs(run.final))) < 1e-3

    def test_recording_does_not_change_the_run(self):
        options = {"reward": self.reward, "beta": 0.1, "steps": 60, "lr_decay": 20.0, "rng": 3}
        whole = train_tree(self.ref, self.ref, **options)
        parts = train_tree(self.ref, self.ref, record=(10, 37), **options)
        np.testing.assert_allclose(np.concatenate(parts.final), np.concatenate(whole.final), rtol=1e-10)
        assert parts.steps.tolist() == [10, 37, 60]

    @pytest.mark.parametrize("bad", [{"batch": 1}, {"credit": "dpg"}, {"credit": "target"}, {"reward": np.zeros(7)}])
    def test_bad_settings(self, bad):
        with pytest.raises(ValueError):
            train_tree(self.ref, self.ref, **({"reward": self.reward} | bad))


def test_a_simulator_run_can_be_cut_and_continued():
    config = SimulatorConfig(tokens=500, correct=50, rollouts=8)
    whole = simulate_tokens(config, 150)
    first = simulate_tokens(config, 100)
    second = simulate_tokens(config, 50, first.state)
    np.testing.assert_array_equal(np.concatenate([first.correct_mass, second.correct_mass]), whole.correct_mass)
    np.testing.assert_array_equal(second.state.logits, whole.state.logits)
    with pytest.raises(ValueError, match="multiple of 50"):
        simulate_tokens(config, 10, simulate_tokens(config, 30).state)


@pytest.mark.parametrize(
    "bad", [{"correct": 0}, {"rollouts": 0}, {"optimiser": "adam"}, {"lr": 0.0}, {"epsilon": -1.0}]
)
def test_bad_configs(bad):
    with pytest.raises(ValueError):
        SimulatorConfig(**bad)
