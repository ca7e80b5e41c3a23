"""Conservative FB: CQL in one state by hand and at extremes, penalties, stationary tables, linear fits, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.planning import conservative_fb as cfb

RNG = np.random.default_rng(0)
RHO, R = RNG.dirichlet(np.ones(4)), RNG.standard_normal(4)
LOGS, TARGET = np.log(RNG.dirichlet(np.full(3, 2.0), 4)), RNG.standard_normal((4, 3, 4))
STATES = np.full(4, 0.25)
ROWS, PHI = RNG.dirichlet(np.ones(4), (4, 3)), RNG.standard_normal((4, 3, 5))
DATA = np.array([[True, True, False], [True, True, True], [False, True, False], [False, False, False]])
TASKS = np.stack([R, -R])


def stationarity(q, v, behaviour, weight):
    return behaviour * (q - v) + weight * (np.exp(log_normalize(q)) - behaviour)


def test_values_by_hand():
    """One state, even behaviour, (2, 0), weight .2: (1.861, .139), the two moving by as much."""
    found = cfb.conservative_values([2.0, 0.0], np.log([0.5, 0.5]), 0.2)
    np.testing.assert_allclose(found, [1.861, 0.139], atol=5e-4)
    assert cfb.conservative_values([2.0, 0.0], np.log([0.5, 0.5]), 0.0).tolist() == [2.0, 0.0]


@pytest.mark.parametrize("weight", [1e-12, 1e-3, 1.0, 1e3, 1e9])
@pytest.mark.parametrize("behaviour", [[0.2, 0.3, 0.5], [1e-9, 1e-3, 0.999 - 1e-9], [1 / 3, 1 / 3, 1 / 3]])
def test_values_are_stationary(weight, behaviour):
    v, behaviour = np.array([3.0, -40.0, 500.0]), np.array(behaviour) / np.sum(behaviour)
    q = cfb.conservative_values(v, np.log(behaviour), weight)
    np.testing.assert_allclose(stationarity(q, v, behaviour, weight), 0, atol=1e-10 * max(weight, np.abs(q).max()))


def test_values_that_are_far_apart():
    """The best is left alone, up to the behaviour; the others move by the weight."""
    found = cfb.conservative_values([0.0, 3000.0], np.log([0.5, 0.5]), 0.2)
    np.testing.assert_allclose(found, [0.2, 2999.8], atol=1e-11)


def test_large_weights_give_the_behaviour():
    """As the weight grows softmax q tends to the behaviour."""
    q = cfb.conservative_values([1.0, 0.0, 2.0], np.log([0.2, 0.3, 0.5]), 1e8)
    np.testing.assert_allclose(np.exp(log_normalize(q)), [0.2, 0.3, 0.5], rtol=1e-6)


def test_tables_are_stationary():
    weights = STATES[:, None, None] * np.exp(LOGS)[..., None] * RHO
    for reward, penalty in ((None, lambda m: cfb.measure_penalty(m, LOGS, STATES, RHO)),
                            (R, lambda m: cfb.value_penalty(m, LOGS, STATES, RHO, R))):  # fmt: skip
        found = cfb.conservative_density(TARGET, LOGS, 0.7, RHO, reward)
        np.testing.assert_allclose(weights * (found - TARGET) + 0.7 * penalty(found)[1], 0, atol=1e-13)


def test_direction():
    found = cfb.conservative_direction([0.0, math.log(3.0)], [0.5, 0.5])
    np.testing.assert_allclose(found, [-0.25, 0.25])
    np.testing.assert_allclose(cfb.conservative_direction(TARGET, 0.0, axis=1).sum(axis=1), 1)


def test_linear_fits_without_penalty_agree():
    m = cfb.linear_fb(PHI, ROWS, 0.9, RHO, TASKS, DATA, rounds=5)
    assert m.shape == (2, 4, 3, 4)
    q = cfb.linear_values(PHI, ROWS, 0.9, RHO, TASKS, DATA, rounds=5)
    np.testing.assert_allclose(np.einsum("nsat,nt->nsa", m, RHO * TASKS), q, atol=1e-10 * np.abs(m).max())


def test_first_round_is_ridge_regression():
    flat, mask = PHI.reshape(12, 5), DATA.ravel().astype(float)
    weights = np.linalg.solve(
        flat.T @ (mask[:, None] * flat) + 0.5 * np.eye(5), flat.T @ (mask[:, None] * (ROWS / RHO).reshape(12, 4))
    )
    found = cfb.linear_fb(PHI, ROWS, 0.9, RHO, TASKS, DATA, ridge=0.5, rounds=1)
    np.testing.assert_allclose(found[0], 0.5 * (flat @ weights).reshape(4, 3, 4), rtol=1e-9)


def test_batches_of_fits():
    features, data = np.stack([PHI, 2 * PHI]), np.stack([DATA, ~DATA])
    both = cfb.linear_values(features, ROWS, 0.9, RHO, TASKS, data, alpha=0.3, rounds=4)
    alone = cfb.linear_values(2 * PHI, ROWS, 0.9, RHO, TASKS, ~DATA, alpha=0.3, rounds=4)
    np.testing.assert_allclose(both[1], alone, rtol=1e-9)
    both = cfb.linear_fb(features, np.stack([ROWS, ROWS]), 0.9, RHO, TASKS, data, alpha=0.3, rounds=4)
    alone = cfb.linear_fb(PHI, ROWS, 0.9, RHO, TASKS, DATA, alpha=0.3, rounds=4)
    np.testing.assert_allclose(both[0], alone, rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cfb.conservative_direction([math.inf, 0.0], [0.5, 0.5]), "values"),
        (lambda: cfb.conservative_direction([1.0, 0.0], [-0.5, 0.5]), "behaviour"),
        (lambda: cfb.conservative_direction([1.0, 0.0], [0.5, 0.3, 0.2]), "broadcast"),
        (lambda: cfb.conservative_values([1.0, 0.0], [0.0, -math.inf], 1.0), "log_behaviour.*positive"),
        (lambda: cfb.conservative_values([1.0, 0.0], np.log([0.5, 0.5]), -1.0), "weight"),
        (lambda: cfb.conservative_values([1.0, math.nan], np.log([0.5, 0.5]), 1.0), "values"),
        (lambda: cfb.conservative_values([1.0, 0.0, 1.0], np.log([0.5, 0.5]), 1.0), "last axes"),
        (lambda: cfb.conservative_values([1.0, 0.0], np.log([0.5, 0.4]), 1.0), "log_behaviour.*sum"),
        (lambda: cfb.value_penalty(TARGET[0], LOGS, STATES, RHO, R), "density: must be"),
        (lambda: cfb.value_penalty(TARGET, LOGS[:2], STATES, RHO, R), "log_behaviour: must be"),
        (lambda: cfb.value_penalty(TARGET, LOGS, STATES[:2] * 2, RHO, R), "states: must be"),
        (lambda: cfb.value_penalty(TARGET, LOGS, STATES, RHO, R[:2]), "reward: must be"),
        (lambda: cfb.value_penalty(TARGET, LOGS, STATES, RHO, TASKS), "reward: must be"),
        (lambda: cfb.measure_penalty(TARGET, LOGS, 2 * STATES, RHO), "states.*sum to 1"),
        (lambda: cfb.measure_penalty(TARGET, LOGS, STATES, RHO[None]), "rho: must be"),
        (lambda: cfb.measure_penalty(TARGET[None], LOGS, STATES, RHO), "density: must be"),
        (lambda: cfb.conservative_density(TARGET, LOGS, -0.1, RHO), "alpha"),
        (lambda: cfb.conservative_density(TARGET, LOGS, 0.1, RHO[None]), "rho: must be"),
        (lambda: cfb.conservative_density(TARGET, LOGS, 0.1, RHO, TASKS), "reward: must be"),
        (lambda: cfb.linear_values(PHI[0], ROWS, 0.9, RHO, TASKS, DATA), "features: must be"),
        (lambda: cfb.linear_values(PHI, ROWS[:2], 0.9, RHO, TASKS, DATA), "transition: must be"),
        (lambda: cfb.linear_values(PHI * math.nan, ROWS, 0.9, RHO, TASKS, DATA), "features"),
        (lambda: cfb.linear_values(PHI, ROWS, 0.9, RHO, R, DATA), "reward: must be"),
        (lambda: cfb.linear_values(PHI, ROWS, 1.0, RHO, TASKS, DATA), "discount"),
        (lambda: cfb.linear_values(PHI, ROWS, 0.9, RHO, TASKS, DATA, ridge=0.0), "ridge"),
        (lambda: cfb.linear_values(PHI, ROWS, 0.9, RHO, TASKS, DATA, rounds=0), "rounds"),
        (lambda: cfb.linear_values(PHI, ROWS, 0.9, RHO, TASKS, DATA, alpha=math.nan), "alpha"),
        (lambda: cfb.linear_fb(PHI, ROWS, 0.9, RHO, TASKS, DATA, penalty="both"), "penalty"),
        (lambda: cfb.linear_fb(np.stack([PHI] * 3), ROWS, 0.9, RHO, TASKS, np.stack([DATA] * 2)), "broadcast"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_masks_are_boolean():
    with pytest.raises(TypeError, match="data"):
        cfb.linear_values(PHI, ROWS, 0.9, RHO, TASKS, DATA.astype(float))
