"""Rehearsal gradients against finite differences of the divergence and of the token loss, and at extremes."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.divergences import GENERATORS, Alpha, f_divergence
from klsim.learning import divergence_gradient, draw_answers, rehearsal_gradient, rehearsal_weights

SMOOTH = [g for g in (*GENERATORS.values(), Alpha(0.8)) if g.name != "tv"]
RNG = np.random.default_rng(0)
LOGITS, LOG_REF = RNG.standard_normal((3, 5)), log_normalize(RNG.standard_normal((3, 5)))


@pytest.mark.parametrize("generator", SMOOTH, ids=lambda g: g.name)
def test_both_forms_are_the_gradient_of_the_divergence(generator):
    h = 1e-6
    shifts = h * np.eye(5)[:, None]
    up, down = (f_divergence(log_normalize(LOGITS + s * shifts), LOG_REF, generator) for s in (1, -1))
    numeric = ((up - down) / (2 * h)).T
    log_pi = log_normalize(LOGITS)
    np.testing.assert_allclose(divergence_gradient(log_pi, LOG_REF, generator), numeric, atol=1e-8)
    np.testing.assert_allclose(rehearsal_gradient(log_pi, LOG_REF, np.exp(LOG_REF), generator), numeric, atol=1e-8)


def test_stored_samples_average_to_it():
    log_pi, total = log_normalize(LOGITS), 200_000
    counts = draw_answers(LOG_REF, total, 1)
    found = rehearsal_gradient(log_pi, LOG_REF, counts, "forward_kl")
    spread = np.abs(rehearsal_weights(log_pi, LOG_REF, "forward_kl")).max()
    assert np.abs(found - divergence_gradient(log_pi, LOG_REF, "forward_kl")).max() < 6 * spread / np.sqrt(total)


def test_restoring_force_of_a_lost_outcome():
    log_ref = np.log([0.5, 0.3, 0.2])
    for log_eps in (-20.0, -600.0, -np.inf):
        with np.errstate(divide="ignore"):
            log_pi = np.array([np.log(0.5 / 0.8), log_eps, np.log(0.3 / 0.8)])
        log_pi = log_pi - np.logaddexp.reduce(log_pi)
        assert divergence_gradient(log_pi, log_ref, "kl")[1] == pytest.approx(0.0, abs=1e-7)
        if np.isfinite(log_eps):
            assert divergence_gradient(log_pi, log_ref, "forward_kl")[1] == pytest.approx(-0.3, rel=1e-6)
        assert rehearsal_gradient(log_pi, log_ref, np.exp(log_ref), "forward_kl")[1] == pytest.approx(-0.3, rel=1e-6)


def test_mass_outside_the_reference():
    with np.errstate(divide="ignore"):
        log_ref, log_pi = np.log([0.5, 0.5, 0.0]), np.log([0.4, 0.4, 0.2])
    # the slope there is f'(inf) = 1 and it is paid; samples of the reference do not see it
    assert divergence_gradient(log_pi, log_ref, "forward_kl") == pytest.approx([-0.1, -0.1, 0.2])
    assert rehearsal_gradient(log_pi, log_ref, np.exp(log_ref), "forward_kl") == pytest.approx([-0.02, -0.02, 0.04])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: divergence_gradient(np.log([0.5, 0.5]), [0.0, -np.inf], "kl"), r"log_policy\[1\]"),
        (lambda: rehearsal_gradient(LOG_REF, LOG_REF, np.zeros(5), "kl"), "counts"),
        (lambda: rehearsal_gradient(np.log([0.5, 0.5]), [0.0, -np.inf], [1, 1], "kl"), r"counts\[1\]"),
        (lambda: rehearsal_weights(LOG_REF[:, :4], LOG_REF, "kl"), "log_policy"),
        (lambda: rehearsal_weights(LOG_REF, LOG_REF, "k3"), "generator"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_where_both_have_no_support_the_ratio_is_one():
    with np.errstate(divide="ignore"):
        log_p = np.log([1.0, 0.0])
    assert rehearsal_weights(log_p, log_p, "kl") == pytest.approx([0.0, 0.0])
    assert divergence_gradient(log_p, log_p, "forward_kl") == pytest.approx([0.0, 0.0])
