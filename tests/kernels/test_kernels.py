"""Every kernel against plain NumPy, and the same bytes for any number of threads."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.special import gammaln

from klsim.distributions import log_normalize
from klsim.kernels.backups import soft_backup_rows
from klsim.kernels.order_statistics import best_of_n_rows, mid_quantile_rows
from klsim.kernels.rollouts import sample_sequences, sample_trajectories
from klsim.kernels.simulator import simulate
from klsim.kernels.tree_learning import train_tree
from klsim.kernels.types import compositions, edge_law, type_log_probs


def test_soft_backup():
    rng = np.random.default_rng(0)
    q, ref = rng.standard_normal((50, 6)), log_normalize(rng.standard_normal((50, 6)))
    ref[::7, 2] = -np.inf
    ref = log_normalize(ref)
    for beta in (0.05, 1.0, 40.0):
        values, policy = soft_backup_rows(q, ref, beta)
        plain = beta * np.logaddexp.reduce(ref + q / beta, axis=1)
        np.testing.assert_allclose(values, plain, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(policy, log_normalize(ref + q / beta), rtol=1e-12, atol=1e-13)
    values, policy = soft_backup_rows(q, ref, 0.0)
    np.testing.assert_array_equal(values, np.where(np.isfinite(ref), q, -np.inf).max(axis=1))
    assert (np.exp(policy).sum(axis=1) == 1).all()


def test_best_of_n_and_mid_quantiles():
    rng = np.random.default_rng(1)
    reward = np.sort(np.round(rng.standard_normal((30, 8)) * 2), axis=1)
    log_p = log_normalize(rng.standard_normal((30, 8)))
    p, n = np.exp(log_p), rng.uniform(0.5, 20, 30)
    upto = np.array([[row[r <= x].sum() for x in r] for row, r in zip(p, reward)])
    below = np.array([[row[r < x].sum() for x in r] for row, r in zip(p, reward)])
    plain = p * (upto ** n[:, None] - below ** n[:, None]) / (upto - below)
    np.testing.assert_allclose(np.exp(best_of_n_rows(reward, log_p, np.log(n))), plain, rtol=1e-10)
    np.testing.assert_allclose(mid_quantile_rows(reward, log_p), (upto + below) / 2, rtol=1e-13)


@pytest.mark.parametrize("letters", [2, 3, 4])
def test_types(letters):
    rng = np.random.default_rng(2)
    counts = compositions(7, letters)
    assert {tuple(c) for c in counts} == {c for c in itertools.product(range(8), repeat=letters) if sum(c) == 7}
    log_p = np.log(rng.dirichlet(np.ones(letters)))
    plain = gammaln(8) - gammaln(counts + 1).sum(axis=1) + counts @ log_p
    np.testing.assert_allclose(type_log_probs(counts, log_p), plain, rtol=1e-12)


def test_type_log_probs_at_large_m():
    # a binomial at its mode, against lgamma at 50 digits
    import mpmath

    m, k = 10**7, 3 * 10**6
    with mpmath.workdps(50):
        exact = (
            mpmath.log(mpmath.binomial(m, k))
            + k * mpmath.log(mpmath.mpf(3) / 10)
            + (m - k) * mpmath.log(mpmath.mpf(7) / 10)
        )
    got = type_log_probs(np.array([[k, m - k]]), np.log([0.3, 0.7]))[0]
    assert got == pytest.approx(float(exact), rel=1e-9)


def test_edge_law_is_a_convolution():
    log_edge, log_rest, deficits = math.log(0.5), np.log([0.3, 0.2]), np.array([2, 5])
    law = {0: 1.0}
    for _ in range(6):
        new: dict[int, float] = {}
        for k, mass in law.items():
            for d, p in ((0, 0.5), (2, 0.3), (5, 0.2)):
                new[k + d] = new.get(k + d, 0.0) + mass * p
        law = new
    got = edge_law(log_edge, log_rest, deficits, 6, 30)
    np.testing.assert_allclose(np.exp(got), [law.get(k, 0.0) for k in range(31)], rtol=1e-13)


def plain_trajectory(initial, policy, transition, u):
    s = int(np.searchsorted(initial, u[0] * initial[-1], side="right"))
    states, actions = [s], []
    for t in range((len(u) - 1) // 2):
        row = policy[min(t, len(policy) - 1), s]
        a = int(np.searchsorted(row, u[2 * t + 1] * row[-1], side="right"))
        row = transition[min(t, len(transition) - 1), s, a]
        s = int(np.searchsorted(row, u[2 * t + 2] * row[-1], side="right"))
        actions.append(a)
        states.append(s)
    return states, actions


def test_trajectories():
    rng = np.random.default_rng(3)
    tables = [
        rng.dirichlet(np.ones(4)),
        rng.dirichlet(np.ones(3), size=(5, 4)),
        rng.dirichlet(np.ones(4), size=(1, 4, 3)),
    ]
    cumulative = [np.cumsum(t, axis=-1) for t in tables]
    uniforms = rng.random((60, 11))
    states, actions = sample_trajectories(*cumulative, uniforms)
    for i in range(60):
        want = plain_trajectory(*cumulative, uniforms[i])
        assert (states[i].tolist(), actions[i].tolist()) == want
    for form in (sample_trajectories.alone, sample_trajectories.shared):
        np.testing.assert_array_equal(form(*cumulative, uniforms)[0], states)


def test_sequences():
    rng = np.random.default_rng(4)
    levels = [rng.dirichlet(np.ones(3), size=3**t) for t in range(3)]
    flat, uniforms = np.cumsum(np.concatenate(levels), axis=-1), rng.random((50, 3))
    got = sample_sequences(flat, 3, uniforms)
    for i in range(50):
        node, offset = 0, 0
        for t in range(3):
            row = flat[offset + node]
            node, offset = node * 3 + int(np.searchsorted(row, uniforms[i, t] * row[-1], side="right")), offset + 3**t
        assert got[i] == node


def plain_simulator(logits, n, correct, steps, adam, lr, eps, decay, rng):
    z, m, v = logits.copy(), np.zeros_like(logits), np.zeros_like(logits)
    masses = []
    for t in range(1, steps + 1):
        pi = np.exp(log_normalize(z))
        cumulative = np.cumsum(pi)
        draws = np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right")
        c = np.bincount(draws, minlength=z.size)
        r = np.where(correct, 1.0, -1.0)
        r = r - (c @ r) / n
        g = -pi * (c * r - c @ (r * pi)) / n
        if adam:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            z = z - lr * decay * z - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
        else:
            z = z - lr * g
        masses.append(np.exp(log_normalize(z))[correct].sum())
    return z, masses


@pytest.mark.parametrize("adam", [True, False])
def test_simulator(adam):
    size, steps, n = 300, 40, 12
    correct = np.arange(size) < 50
    logits = np.where(correct, 2.0, 0.0)
    start = np.exp(log_normalize(logits))
    lr = 5e-3 if adam else 50.0
    z, first, second, record = logits.copy(), np.zeros(size), np.zeros(size), np.empty((steps, 3))
    simulate(
        z,
        first,
        second,
        0,
        steps,
        n,
        correct,
        start,
        adam,
        lr,
        0.9,
        0.999,
        1e-8,
        0.01,
        np.random.default_rng(5),
        record,
    )
    plain, masses = plain_simulator(logits, n, correct, steps, adam, lr, 1e-8, 0.01, np.random.default_rng(5))
    np.testing.assert_allclose(z, plain, atol=1e-9)
    np.testing.assert_allclose(record[:, 0], masses, rtol=1e-9)
    gain = np.exp(log_normalize(plain))[correct] - start[correct]
    assert record[-1, 1] == pytest.approx(np.mean(gain > 0))
    assert record[-1, 2] == pytest.approx(min(gain.min(), 0.0), rel=1e-6)


def test_tree_training_step():
    """One step of the kernel against the score-function gradient written out."""
    rng = np.random.default_rng(6)
    logits, ref = rng.standard_normal((4, 3)), log_normalize(rng.standard_normal((4, 3)))
    leaf, batch, beta, lr = rng.standard_normal(9), 8, 0.3, 0.7
    z = logits.copy()
    train_tree(
        z, ref, np.zeros((4, 3)), leaf, np.zeros(9), beta, 1, 2, batch, 2, 1, lr, math.inf, np.random.default_rng(7)
    )
    log_pi, u = log_normalize(logits), np.random.default_rng(7).random((batch, 2))
    first = [int(np.searchsorted(np.cumsum(np.exp(log_pi[0])), x, side="right")) for x in u[:, 0]]
    second = [int(np.searchsorted(np.cumsum(np.exp(log_pi[1 + a])), x, side="right")) for a, x in zip(first, u[:, 1])]
    gap = log_pi - ref
    late = np.array([leaf[3 * a + b] - beta * gap[1 + a, b] for a, b in zip(first, second)])
    early = late - beta * gap[0, first]
    grad = np.zeros((4, 3))
    for credit, rows, picks in ((early, [0] * batch, first), (late, [1 + a for a in first], second)):
        advantage = credit - (credit.sum() - credit) / (batch - 1)
        for s, a, g in zip(rows, picks, advantage):
            grad[s] -= g * np.exp(log_pi[s])
            grad[s, a] += g
    np.testing.assert_allclose(z, logits + lr * grad / batch, atol=1e-12)
