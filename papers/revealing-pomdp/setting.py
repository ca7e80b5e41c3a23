"""What the claims and figures of revealing-pomdp share: Walsh emissions, the price of information, the lock's learner."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.special import ndtr
from scipy.stats import norm

from klsim import uniformity
from klsim.claims import shared
from klsim.uniformity import uneven_law

collisions_needed = shared(uniformity.samples_for_collisions)


def walsh(states, eps):
    """``O = 2^S`` symbols, the sign vectors x: column i is ``(1 + eps x_i) / O``."""
    x = np.array(list(itertools.product((-1.0, 1.0), repeat=states)))
    return (1 + eps * x) / len(x)


def known_needed(sigma):
    """Where ``chi^2`` reaches 1 with theta known: ``(1 + sigma^2)^n = 2``, whatever O."""
    return math.log(2) / math.log1p(sigma**2)


# the price of information (C6) --------------------------------------------------------------------
PEAK = float(max(x * ndtr(-x) for x in np.linspace(0.7, 0.8, 10_001)))  # k = max x Phi(-x) = .170
U = np.linspace(0.01, 5, 50_001)
# max u I(u) / sqrt 2 with I(u) the mean of Phi(-u sqrt x) over x in [0, 1]: .187
LEADER = float(np.max(U * ndtr(-U) + (ndtr(U) - 0.5) / U - norm.pdf(U)) / math.sqrt(2))
GAPS = np.geomspace(1e-8, 0.5, 1200)


@shared
def costly_regret(episodes, sigma, *, each=1.0):
    """``(N*, R*)``: N reveals a candidate at cost 1/2 each, then commit; min over N, max over the gap, on grids.

    ``each`` is the number of reveals of a candidate that N buys. Without reveals half of the episodes cost 1/2.
    """
    counts = np.geomspace(1, episodes / 2, 600)[:, None]
    rate = 2 * sigma * np.sqrt(each * counts / 2)
    # the worst gap is near 3/4 over the rate, or the largest: a window of two decades around it
    gaps = np.minimum(np.geomspace(0.1, 10, 201) / rate, 0.5)
    regret = counts[:, 0] + (episodes - 2 * counts[:, 0]) * np.max(gaps * ndtr(-rate * gaps), axis=1)
    best = int(np.argmin(regret))
    return min((0.0, 0.25 * episodes), (float(counts[best, 0]), float(regret[best])), key=lambda pair: pair[1])


def costly_optimum(episodes, sigma):
    """``N* = (k T / (2 sqrt(2) sigma))^{2/3}``; the regret is ``3 N*``."""
    return (PEAK * episodes / (2 * math.sqrt(2) * sigma)) ** (2 / 3)


@shared
def free_regret(episodes, sigma):
    """``max_eps sum_{t < T} eps Phi(-2 eps sigma sqrt(t/2))``: both candidates seen every episode, the leader followed.

    The sum is the term of t = 0 and the integral from 1/2 to T - 1/2 (midpoint rule).
    """
    slope = math.sqrt(2) * sigma * GAPS

    def integral(end):
        u = slope * math.sqrt(end)
        return end * ndtr(-u) + (ndtr(u) - 0.5 - u * norm.pdf(u)) / slope**2

    return float(np.max(GAPS * (0.5 + integral(episodes - 0.5) - integral(0.5))))


# the lock (C7) ---------------------------------------------------------------------------------------
def seen_last(problem, actions):
    """The law of the observation after ``actions``."""
    law = problem.initial
    for t, a in enumerate(actions):
        law = law @ problem.transition[t, :, a]
    return law @ problem.emission[len(actions)]


def solve_lock(lock, reveals, rng):
    """``(key, episodes)``: extends the prefix by the action whose reveals agree best with those of the empty prefix.

    An episode is a prefix and a reveal, its symbol drawn from the POMDP's law; the last one plays the key.
    """
    horizon, _, actions, symbols = lock.sizes
    reveal, symbols = actions - 1, symbols - 1

    def centred(state, t):
        """Counts of the symbol that follows a reveal at step t, where the latent state has this law."""
        seen = state @ lock.transition[t, :, reveal] @ lock.emission[t + 1]
        return rng.multinomial(reveals, seen)[:-1] - reveals / symbols

    state, prefix, episodes = lock.initial, [], reveals
    reference = centred(state, 0)
    for t in range(horizon - 2):
        ahead = [state @ lock.transition[t, :, a] for a in range(reveal)]
        episodes += reveals * reveal
        prefix.append(int(np.argmax([reference @ centred(law, t + 1) for law in ahead])))
        state = ahead[prefix[-1]]
    return prefix, episodes + 1


def calibrated_error(symbols, sigma, gap, samples, reference, trials, rng):
    """Error of telling the diluted law (``2 gap sigma``) from the uniform one by the inner product with ``reference``
    centred counts at the good root; threshold half-way between the means."""
    signs = rng.choice((-1, 1), (trials, symbols // 2))
    root = rng.multinomial(reference, [uneven_law(s, sigma) for s in signs]) - reference / symbols
    even = rng.multinomial(samples, np.full(symbols, 1 / symbols), trials)
    uneven = rng.multinomial(samples, [uneven_law(s, 2 * gap * sigma) for s in signs])
    middle = samples * reference * gap * sigma**2 / symbols
    calls = [np.sum(counts * root, axis=1) > middle for counts in (even, uneven)]
    return 0.5 * float(calls[0].mean() + 1 - calls[1].mean())
