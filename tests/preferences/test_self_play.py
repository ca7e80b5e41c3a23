"""Self-play dynamics: steps by hand, fixed points, averages, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from klsim.distributions import log_normalize
from klsim.divergences import kl
from klsim.preferences import (
    exploitability,
    magnetic_descent,
    nash_md,
    proximal_play,
    regularized_nash,
    sppo,
    sppo_step,
)

CYCLE = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
LOG_REF = np.log([0.6, 0.3, 0.1])


def test_steps_by_hand():
    one = sppo(CYCLE, LOG_REF, 0.7, 1).log_policies
    assert np.array_equal(one[0], LOG_REF)
    weight = np.exp(LOG_REF) * np.exp(0.7 * CYCLE @ np.exp(LOG_REF))
    np.testing.assert_allclose(np.exp(one[1]), weight / weight.sum(), rtol=1e-13)
    start = np.log([0.2, 0.2, 0.6])
    mixture = 0.2**0.65 * np.array([1, 1, 3**0.65]) * np.array([0.6, 0.3, 0.1]) ** 0.35
    mixture /= mixture.sum()
    weight = mixture * np.exp(0.7 * CYCLE @ mixture)
    found = nash_md(CYCLE, LOG_REF, 0.5, 0.7, 1, log_policy=start).log_policies[1]
    np.testing.assert_allclose(np.exp(found), weight / weight.sum(), rtol=1e-12)
    weight = (np.exp(start) * np.exp(0.35 * LOG_REF) * np.exp(0.7 * CYCLE @ np.exp(start))) ** (1 / 1.35)
    found = magnetic_descent(CYCLE, LOG_REF, 0.5, 0.7, 1, log_policy=start).log_policies[1]
    np.testing.assert_allclose(np.exp(found), weight / weight.sum(), rtol=1e-12)


def test_the_average_is_that_of_the_policies_played():
    run = sppo(CYCLE, LOG_REF, 0.3, 4)
    np.testing.assert_allclose(np.exp(run.log_average), np.exp(run.log_policies[:4]).mean(axis=0), rtol=1e-13)


def test_where_the_last_policies_go():
    nash = regularized_nash(CYCLE, LOG_REF, 0.2).log_policy
    np.testing.assert_allclose(magnetic_descent(CYCLE, LOG_REF, 0.2, 0.5, 400).log_policies[-1], nash, atol=1e-10)
    assert np.abs(nash_md(CYCLE, LOG_REF, 0.2, 0.5, 400).log_policies[-1] - nash).max() > 1e-3
    game = regularized_nash(CYCLE, LOG_REF, 1e-5).log_policy
    assert kl(game, proximal_play(CYCLE, LOG_REF, 0.05, 60).log_policies[-1]) < 1e-4
    away = kl(game[None], sppo(CYCLE, LOG_REF, 0.5, 300).log_policies)
    assert away[-1] > away[0]
    assert exploitability(sppo(CYCLE, LOG_REF, 0.05, 3000).log_average, CYCLE, LOG_REF, 0.0) < 0.02


@pytest.mark.parametrize("rate", [1e-6, 0.1, 1.0, 10.0])
def test_sppo_s_loss_by_another_optimiser(rate):
    aim = rate * (CYCLE @ np.exp(LOG_REF) - 0.5)
    found = sppo_step(CYCLE, LOG_REF, rate)

    def loss(x):
        return np.exp(LOG_REF) @ (log_normalize(x) - LOG_REF - aim) ** 2

    other = minimize(loss, LOG_REF + aim, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-16}).x
    assert loss(found) <= loss(other) + 1e-14
    np.testing.assert_allclose(np.exp(found).sum(), 1.0, atol=1e-12)


def test_no_support_stays_no_support():
    ref = log_normalize([0.0, -np.inf, 1.0])
    for run in (
        sppo(CYCLE, ref, 0.5, 3),
        nash_md(CYCLE, ref, 0.5, 0.5, 3),
        magnetic_descent(CYCLE, ref, 0.5, 0.5, 3),
        proximal_play(CYCLE, ref, 0.5, 3),
    ):
        assert np.all(run.log_policies[:, 1] == -np.inf)
        assert run.log_average[1] == -np.inf
        assert not np.isnan(run.log_policies).any()
    assert sppo_step(CYCLE, ref, 0.5)[1] == -np.inf
    assert sppo(np.array([[0.5]]), np.zeros(1), 1e6, 2).log_policies.tolist() == [[0.0]] * 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sppo(CYCLE, LOG_REF[:2], 0.5, 3), "log_policy"),
        (lambda: sppo(CYCLE, LOG_REF, 0.0, 3), "rate"),
        (lambda: sppo(CYCLE, LOG_REF, 0.5, 0), "steps"),
        (lambda: sppo_step(CYCLE, LOG_REF, 11.0), "rate"),
        (lambda: nash_md(CYCLE, LOG_REF, 0.5, 2.5, 3), "rate"),
        (lambda: nash_md(CYCLE, LOG_REF, 0.0, 0.5, 3), "tau"),
        (lambda: magnetic_descent(CYCLE, LOG_REF, 0.5, 0.5, 3, log_policy=log_normalize([0.0, 0, -np.inf])), "support"),
        (lambda: proximal_play(CYCLE, LOG_REF, 0.0, 3), "tau"),
        (lambda: proximal_play(CYCLE + 1, LOG_REF, 0.1, 3), "preference"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
