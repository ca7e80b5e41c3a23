"""Extremes against references at 100 digits: relative error at most 1e-12 (values against the size of the rewards)."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest

from klsim import best_of_n, estimators
from klsim.divergences import GENERATORS, Alpha, f_divergence, renyi
from klsim.memoryless import MarkovSource, MemorylessSource
from klsim.optima import f_regularized, kl_regularized

TOLERANCE = 1e-12
SMOOTH = [
    *(g for name, g in GENERATORS.items() if name != "tv"),
    Alpha(3.0),
    Alpha(1.01),
    Alpha(0.99),
    Alpha(-3.0),
    Alpha(10.0),
]


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(100):
        yield


def normalised(*logits):
    x = np.array(logits, dtype=float)
    return x - np.logaddexp.reduce(x)


def masses(log_p):
    p = [mp.e ** mp.mpf(float(x)) if np.isfinite(x) else mp.mpf(0) for x in log_p]
    return [x / mp.fsum(p) for x in p]


def order_of(generator):
    return mp.mpf(generator.order)


def f(generator, t):
    """The generator at 100 digits, from its definition."""
    log_t = mp.log(t) if t > 0 else mp.mpf(0)
    if isinstance(generator, Alpha):
        a = order_of(generator)
        return (t**a - 1 - a * (t - 1)) / (a * (a - 1))
    return {
        "kl": lambda: t * log_t - t + 1,
        "forward_kl": lambda: -mp.log(t) + t - 1,
        "js": lambda: (t * log_t - (1 + t) * mp.log((1 + t) / 2)) / 2,
        "chi2": lambda: (t - 1) ** 2,
        "hellinger": lambda: (mp.sqrt(t) - 1) ** 2 / 2,
        "tv": lambda: abs(t - 1) / 2,
    }[generator.name]()


def slope(generator, t):
    if isinstance(generator, Alpha):
        c = order_of(generator) - 1
        return (t**c - 1) / c
    return {
        "kl": lambda: mp.log(t),
        "forward_kl": lambda: 1 - 1 / t,
        "js": lambda: (mp.log(2 * t) - mp.log1p(t)) / 2,
        "chi2": lambda: 2 * (t - 1),
        "hellinger": lambda: (1 - 1 / mp.sqrt(t)) / 2,
    }[generator.name]()


def inverse_slope(generator, y):
    if isinstance(generator, Alpha):
        c = order_of(generator) - 1
        base = 1 + c * y
        return base ** (1 / c) if base > 0 else mp.mpf(0)
    return {
        "kl": lambda: mp.exp(y),
        "forward_kl": lambda: 1 / (1 - y),
        "js": lambda: mp.exp(2 * y) / (2 - mp.exp(2 * y)),
        "chi2": lambda: max(1 + y / 2, mp.mpf(0)),
        "hellinger": lambda: (1 - 2 * y) ** -2,
    }[generator.name]()


def optimum(log_ref, reward, beta, generator):
    """``(pi, value, KL)``: bisection on the log-ratio of the best outcome."""
    q, r = masses(log_ref), [mp.mpf(float(x)) for x in reward]
    drop = [(max(r) - x) / mp.mpf(beta) for x in r]
    low, high = mp.mpf(0), -mp.log(mp.fsum(a for a, d in zip(q, drop) if d == 0))
    for _ in range(330):  # to 100 digits
        middle = (low + high) / 2
        mu = slope(generator, mp.exp(middle))
        short = mp.fsum(a * inverse_slope(generator, mu - d) for a, d in zip(q, drop)) < 1
        low, high = (middle, high) if short else (low, middle)
    mu = slope(generator, mp.exp(low))
    t = [inverse_slope(generator, mu - d) for d in drop]
    pi = [a * x for a, x in zip(q, t)]
    value = mp.fsum(p * x for p, x in zip(pi, r)) - mp.mpf(beta) * mp.fsum(a * f(generator, x) for a, x in zip(q, t))
    return pi, value, mp.fsum(p * mp.log(x) for p, x in zip(pi, t) if p > 0)


FIVE = normalised(-1.6, -1.9, -1.1, -1.7, -2.3)
PROBLEMS = [
    *((np.log([q, 1 - q]), [1.0, 0.0], b) for q in (1e-16, 1e-12) for b in (q, 0.01, 1e12)),
    (np.log([1e-15, 1.0]), [1.0, 0.0], 0.01),
    *((FIVE, [0.3, -0.6, 1.1, 0.9, -1.2], b) for b in (1e-9, 1e-3, 1.0, 1e6, 1e12)),
    (FIVE, [1000.3, 999.6, 1001.1, 1000.9, 998.8], 1e6),
]


@pytest.mark.parametrize("generator", SMOOTH, ids=lambda g: g.name)
@pytest.mark.parametrize(("log_ref", "reward", "beta"), PROBLEMS)
def test_regularised_optima(generator, log_ref, reward, beta):
    pi, value, divergence = optimum(log_ref, reward, beta, generator)
    found = f_regularized(log_ref, reward, beta, generator)
    size = max(map(abs, reward))
    assert found.converged
    assert float(found.gap) <= TOLERANCE * size
    assert abs(float(found.value) - value) <= TOLERANCE * size
    assert max(abs(float(np.exp(x)) - p) for x, p in zip(found.log_policy, pi)) <= TOLERANCE
    assert abs(float(found.kl) - divergence) <= TOLERANCE * divergence


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_kl_of_a_weak_tilt_of_rewards_far_from_0(offset):
    reward = offset + np.array([0.0, 0.25, 1.0, 0.5, 0.75])
    _, _, divergence = optimum(FIVE, reward, 1e9, GENERATORS["kl"])
    assert abs(float(kl_regularized(FIVE, reward, 1e9).kl) - divergence) <= TOLERANCE * divergence


PAIRS = [
    (normalised(0, 0), normalised(0, 1)),
    (normalised(0, 1, 2), normalised(0, 1 + 1e-9, 2)),
    (normalised(0, -40, -700), normalised(0, -3, -1)),
    (normalised(0, -3, -1), normalised(0, -40, -700)),
]
UNEQUAL = [
    (normalised(0, 1, -np.inf), normalised(0, 1, 2)),
    (normalised(0, 1, -np.inf), normalised(-np.inf, 1, 2)),
    (normalised(0, 1, -40), normalised(-np.inf, 1, 2)),
]
ORDERS = (0.0, 1e-300, 1e-12, 1e-3, 0.5, 1 - 1e-12, 1.0, 1 + 1e-12, 1.5, 2.0, 10.0, 2000.0)


@pytest.mark.parametrize(("log_p", "log_q"), PAIRS + UNEQUAL)
@pytest.mark.parametrize("order", ORDERS)
def test_renyi(log_p, log_q, order):
    found = float(renyi(log_p, log_q, order))
    if order >= 1 and np.any(np.isinf(log_q) & ~np.isinf(log_p)):
        assert found == math.inf
        return
    mp.mp.dps = 700 if 0 < order < 1e-100 else 100  # digits() restores it
    p, q, a = masses(log_p), masses(log_q), mp.mpf(order)
    both = [(x, y) for x, y in zip(p, q) if x > 0 and y > 0]
    exact = (
        mp.fsum(x * mp.log(x / y) for x, y in both)
        if a == 1
        else mp.log(mp.fsum(x**a * y ** (1 - a) for x, y in both)) / (a - 1)
    )
    assert abs(found - exact) <= TOLERANCE * abs(exact) + mp.mpf(2) ** -1074  # the smallest step of a float


def test_renyi_of_huge_orders_is_that_of_infinity():
    assert float(renyi(*PAIRS[0], 1e300)) == pytest.approx(float(renyi(*PAIRS[0], math.inf)), rel=1e-15)


@pytest.mark.parametrize(("log_p", "log_q"), PAIRS)
@pytest.mark.parametrize(
    "generator",
    [*GENERATORS.values(), Alpha(1e-8), Alpha(1 + 1e-8), Alpha(-1e-9), Alpha(1000.0)],
    ids=lambda g: repr(g)[:30],
)
def test_divergences(generator, log_p, log_q):
    p, q = masses(log_p), masses(log_q)
    if generator.name == "tv":  # of first order: what the stored logs miss of summing to 1 counts in full
        p, q = ([mp.exp(mp.mpf(float(x))) for x in logs] for logs in (log_p, log_q))
    exact = mp.fsum(y * f(generator, x / y) for x, y in zip(p, q))
    found = float(f_divergence(log_p, log_q, generator))
    if exact > mp.mpf("1.7e308"):
        assert found == math.inf
    else:
        assert abs(found - exact) <= TOLERANCE * exact


@pytest.mark.parametrize("log_n", [1e-300, -1e-17, 1e-16, 1e-12, 1e-5, -0.09, 0.11, -30.0, math.log(2), 30.0, 690.0])
@pytest.mark.parametrize(
    ("log_ref", "reward"),
    [
        (normalised(0.1, -0.1, -1.9, -2.4, -1.8, -1.1), [0.0, 1, 1, 2, 3, -1]),
        (normalised(0, -50, -100, -1), [0.0, 2, 3, 2]),
        (normalised(-80, 0), [0.0, 1]),
        (normalised(-0.5, -1, -np.inf), [0.0, 1, 2]),
    ],
)
def test_best_of_n(log_n, log_ref, reward):
    with mp.workdps(700):
        p, count = masses(log_ref), mp.e ** mp.mpf(log_n)
        ratio, middle, below = {}, {}, mp.mpf(0)
        for level in sorted(set(reward)):
            mass = mp.fsum(x for x, r in zip(p, reward) if r == level)
            ratio[level] = ((below + mass) ** count - below**count) / mass if mass > 0 else mp.mpf(0)
            middle[level], below = below + mass / 2, below + mass
        pi = [x * ratio[r] for x, r in zip(p, reward)]
        divergence = mp.fsum(x * mp.log(x / y) for x, y in zip(pi, p) if x > 0)
        wins = mp.fsum(x * middle[r] for x, r in zip(pi, reward))
        mean = mp.fsum(x * mp.mpf(r) for x, r in zip(pi, reward))
        logs = [mp.log(x) if x > 0 else -mp.inf for x in pi]
    for found, exact in zip(best_of_n.log_policy(log_ref, reward, log_n=log_n), logs):
        assert found == exact or abs(float(found) - exact) <= TOLERANCE * (1 + abs(exact))
    assert (
        abs(float(best_of_n.kl(log_ref, reward, log_n=log_n)) - divergence)
        <= TOLERANCE * divergence + mp.mpf(10) ** -300
    )
    assert abs(float(best_of_n.win_rate(log_ref, reward, log_n=log_n)) - wins) <= TOLERANCE * wins
    assert abs(float(best_of_n.expected_reward(log_ref, reward, log_n=log_n)) - mean) <= TOLERANCE * max(reward)


@pytest.mark.parametrize("alpha", [1e-150, 1e-8, -1e-3, 1.0, 50.0, 1e6])
def test_memoryless_sources(alpha):
    log_p, reward = normalised(0, 1, -2), [0.0, 1.0, 3.0]
    with mp.workdps(400):
        p, a = masses(log_p), mp.mpf(alpha)
        cumulant = mp.log(mp.fsum(x * mp.exp(a * r) for x, r in zip(p, reward)))
        tilted = [x * mp.exp(a * r - cumulant) for x, r in zip(p, reward)]
        mean = mp.fsum(x * r for x, r in zip(tilted, reward))
        divergence = a * mean - cumulant
    source = MemorylessSource(log_p, reward)
    assert abs(source.scaled_cumulant(alpha) - cumulant) <= TOLERANCE * abs(cumulant)
    assert abs(source.mean(alpha) - mean) <= TOLERANCE * mean
    assert abs(source.kl(alpha) - divergence) <= TOLERANCE * divergence


@pytest.mark.parametrize("alpha", [-700.0, -1.0, 1e-8, 0.01, 1.0, 30.0, 800.0])
def test_markov_sources(alpha):
    """Two states: the Perron root solves a quadratic."""
    transition, reward = [[0.5, 0.5], [0.3, 0.7]], [[0.0, 1.0], [2.0, 0.0]]
    with mp.workdps(900):

        def cumulant(a):
            m = [[mp.mpf(transition[i][j]) * mp.exp(a * reward[i][j]) for j in (0, 1)] for i in (0, 1)]
            half = (m[0][0] + m[1][1]) / 2
            return mp.log(half + mp.sqrt(half**2 - m[0][0] * m[1][1] + m[0][1] * m[1][0]))

        a, step = mp.mpf(alpha), mp.mpf(10) ** -200
        # 0.3 and 0.7 do not sum to 1 exactly: by definition they do
        exact = cumulant(a) - cumulant(mp.mpf(0))
        mean = (cumulant(a + step) - cumulant(a - step)) / (2 * step)
    source = MarkovSource(transition, reward, [0.5, 0.5])
    assert abs(source.scaled_cumulant(alpha) - exact) <= TOLERANCE * abs(exact)
    assert abs(source.mean(alpha) - mean) <= TOLERANCE * mean


@pytest.mark.parametrize("delta", [1e-300, 1e-20, 1e-6, 0.5, 0.94])
def test_a_budget_of_a_markov_source_is_spent(delta):
    transition, reward = [[0.5, 0.5], [0.3, 0.7]], [[0.0, 1.0], [2.0, 0.0]]
    source = MarkovSource(transition, reward, [0.5, 0.5])
    alpha = source.alpha_for_budget(delta)
    with mp.workdps(900):

        def cumulant(a):
            m = [[mp.mpf(transition[i][j]) * mp.exp(a * reward[i][j]) for j in (0, 1)] for i in (0, 1)]
            half = (m[0][0] + m[1][1]) / 2
            return mp.log(half + mp.sqrt(half**2 - m[0][0] * m[1][1] + m[0][1] * m[1][0])) - start

        start = mp.mpf(0)
        start = cumulant(mp.mpf(0))
        a, step = mp.mpf(alpha), mp.mpf(10) ** -400
        spent = a * (cumulant(a + step) - cumulant(a - step)) / (2 * step) - cumulant(a)
    assert abs(spent - delta) <= 4 * TOLERANCE * delta  # KL ~ alpha²: twice the error of alpha


@pytest.mark.parametrize(
    ("a", "b", "n"),
    [
        (2, 3, 5),
        (1e-10, 1, 5),
        (1e-15, 1e-15, 2),
        (1e10, 1e-10, 3),
        (0.3, 0.2, 512),
        (1e-15, 1e-15, 10**5),
        (1e-15, 1e15, 7),
    ],
)
def test_kept_fraction(a, b, n):
    x, y = mp.mpf(a), mp.mpf(b)
    exact = 1 - (mp.beta(x + n, y) + mp.beta(x, y + n)) / mp.beta(x, y)
    assert abs(float(estimators.kept_fraction(a, b, n)) - exact) <= TOLERANCE * exact


@pytest.mark.parametrize(("count", "n"), [(5, 2), (200, 7), (3000, 40), (3000, 2999)])
def test_best_of_n_reward(count, n):
    rewards = np.random.default_rng(count).standard_exponential(count)
    sets = mp.binomial(count, n)
    exact = mp.fsum(mp.mpf(float(r)) * mp.binomial(i, n - 1) for i, r in enumerate(np.sort(rewards))) / sets
    assert abs(float(estimators.best_of_n_reward(rewards, n)) - exact) <= TOLERANCE * exact


@pytest.mark.parametrize(("n", "c", "k"), [(10, 3, 2), (10**6, 3, 10**5), (10**15, 2, 3), (2000, 1000, 1000)])
def test_pass_at_k(n, c, k):
    exact = 1 - mp.fprod((mp.mpf(n - j - max(c, k)) / (n - j)) for j in range(min(c, k)))
    assert abs(float(estimators.pass_at_k(n, c, k)) - exact) <= TOLERANCE * exact


@pytest.mark.parametrize("x", [1e-160, 1e-12, -1e-9, 0.49, -0.51, 30.0, -600.0])
def test_k3(x):
    exact = mp.expm1(-mp.mpf(x)) + mp.mpf(x)
    assert abs(float(estimators.k3(x)) - exact) <= TOLERANCE * exact + mp.mpf(10) ** -320
