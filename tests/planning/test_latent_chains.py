"""Latent chains: by hand, over all paths, switching costs and their limits, bad input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klsim.distributions import log_normalize
from klsim.planning import latent_chains as lc

HALF = np.log([0.5, 0.5])


def drawn(seed, steps=4, latents=3):
    rng = np.random.default_rng(seed)
    prior = log_normalize(rng.standard_normal((steps, latents + 1, latents)))
    return lc.LatentChain(prior, -rng.exponential(size=(steps, latents)))


def test_one_token_by_hand():
    chain = lc.LatentChain(np.tile(HALF, (3, 1)), np.log([[0.2, 0.6]]))
    assert chain.log_likelihood() == pytest.approx(math.log(0.4))
    np.testing.assert_allclose(np.exp(chain.posterior().log_policy[0, -1]), [0.25, 0.75])
    np.testing.assert_allclose(np.exp(chain.myopic()[0, -1]), [0.25, 0.75])
    bound = chain.bound(np.tile(HALF, (1, 3, 1)))
    assert (bound.kl, bound.value) == pytest.approx((0.0, 0.5 * math.log(0.12)))


@given(st.integers(0, 100))
def test_over_all_paths(seed):
    chain = drawn(seed)
    total = -math.inf
    for path in itertools.product(range(3), repeat=4):
        weight = sum(
            chain.log_prior[t, path[t - 1] if t else 3, z] + chain.log_emission[t, z] for t, z in enumerate(path)
        )
        total = np.logaddexp(total, weight)
    assert chain.log_likelihood() == pytest.approx(total, abs=1e-12)
    assert chain.bound(chain.posterior().log_policy).value == pytest.approx(total, abs=1e-12)
    assert chain.bound(chain.myopic()).value <= total + 1e-12


def test_persistent_prior():
    fresh = np.log([0.25, 0.75])
    np.testing.assert_allclose(np.exp(lc.persistent_prior(fresh, 0.2)), [[0.85, 0.15], [0.05, 0.95], [0.85, 0.15]])
    np.testing.assert_allclose(np.exp(lc.persistent_prior(fresh, 0.2, start=1))[-1], [0.05, 0.95])
    assert np.isneginf(lc.persistent_prior(fresh, 0.0)[0, 1])


def test_switching_by_hand():
    """One token: kept with weight e_0, or new with weight e^-c (e_0 + e_1)/2."""
    found = lc.switching(np.log([[0.2, 0.6]]), HALF, [0.0, math.log(2)])
    np.testing.assert_allclose(np.exp(found.log_partition), [0.6, 0.4])
    np.testing.assert_allclose(found.new, [0.4 / 0.6, 0.2 / 0.4])


@given(st.integers(0, 100), st.floats(-3, 6))
def test_switching_is_the_chain_with_a_persistent_prior(seed, cost):
    chain, fresh = drawn(seed), log_normalize(np.random.default_rng(seed).standard_normal(3))
    rho = 1 / (1 + math.exp(cost))
    own = lc.LatentChain(lc.persistent_prior(fresh, rho, start=1), chain.log_emission).log_likelihood()
    found = lc.switching(chain.log_emission, fresh, cost, start=1)
    assert own == pytest.approx(float(found.log_partition) + 4 * math.log(1 - rho), abs=1e-11)
    ends = lc.switching(chain.log_emission, fresh, cost + np.array([1e-5, -1e-5]), start=1).log_partition
    assert (ends[1] - ends[0]) / 2e-5 == pytest.approx(float(found.new), abs=1e-7)


def test_tokens_that_a_latent_rules_out():
    """The null latent cannot say the second token: a switch is forced, and F falls like -c."""
    emission = np.log(np.array([[0.5, 0.5], [1e-320, 0.5]]))
    emission[1, 0] = -np.inf
    near, far = (lc.switching(emission, HALF, c) for c in (40.0, 41.0))
    assert far.log_partition - near.log_partition == pytest.approx(-1.0, abs=1e-9)
    assert far.new == pytest.approx(1.0, abs=1e-9)
    assert lc.switching([[0.0, -1.0]], HALF, 1e4).log_partition == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: lc.LatentChain(np.tile(HALF, (2, 1)), np.zeros((4, 2))), "log_prior: must have shape"),
        (lambda: lc.LatentChain(np.zeros((3, 2)), np.zeros((4, 2))), "log_prior"),
        (lambda: lc.LatentChain(np.tile(HALF, (3, 1)), np.zeros(2)), "log_emission: must be tokens by latents"),
        (lambda: lc.LatentChain(np.tile(HALF, (3, 1)), [[0.0, -math.inf]]), "log_emission"),
        (lambda: lc.LatentChain(np.tile(HALF, (3, 1)), np.zeros((1, 2))).bound(np.zeros((1, 3, 2))), "log_policy"),
        (lambda: lc.persistent_prior(HALF[None], 0.1), "log_fresh"),
        (lambda: lc.persistent_prior(HALF, 1.1), "rate"),
        (lambda: lc.persistent_prior(HALF, 0.1, start=2), "start"),
        (lambda: lc.switching(np.zeros((3, 3)), HALF, 0.0), "log_emission: must have shape"),
        (lambda: lc.switching([[math.nan, 0.0]], HALF, 0.0), "log_emission: must be log-likelihoods below inf"),
        (lambda: lc.switching([[math.inf, 0.0]], HALF, 0.0), "log_emission: must be log-likelihoods below inf"),
        (lambda: lc.switching([[-math.inf, -math.inf]], HALF, 0.0), "no path"),
        (lambda: lc.switching(np.zeros((3, 2)), HALF, math.inf), "cost"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
