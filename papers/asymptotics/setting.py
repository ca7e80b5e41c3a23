"""What claims and figures share: sources, exact best-of-N beside the optimum, the convex reward, plain definitions."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import elementwise

from klsim import best_of_n
from klsim.best_of_n import RewardLaw, reward_law
from klsim.claims import shared
from klsim.distributions import entropy, expectation, log_normalize, tilt
from klsim.divergences import kl, tv
from klsim.memoryless import AlignedSource, MarkovSource, MemorylessSource, law_kl, tilt_law
from klsim.optima import kl_constrained

P3, R3 = np.log([0.5, 0.3, 0.2]), np.array([0.0, 0.37, 1.0])
SOURCE = MemorylessSource(P3, R3)  # rewards on a grid of 0.01: non-lattice to every purpose for m <= 10^4
BINARY = MemorylessSource(np.log([0.7, 0.3]), np.array([0.0, 1.0]))
CHAIN = MarkovSource([[0.8, 0.2], [0.5, 0.5]], [[0.0, 2.0], [1.0, 3.0]], [0.7, 0.3])
CHAIN_DELTA = 0.1
SIZES = (10, 40, 160, 640, 2560)  # of laws that tend to a continuous one
GAMMA = float(np.euler_gamma)


def not_constant(log_ref, reward):
    """The reward takes two values on the support."""
    alive = np.isfinite(log_ref)
    high = np.max(np.where(alive, reward, -np.inf), axis=-1)
    return high > np.min(np.where(alive, reward, np.inf), axis=-1)


def clear_best(log_ref, reward):
    """Not constant, and the second best reward is apart from the best."""
    top = reward.max(axis=-1, keepdims=True)
    return not_constant(log_ref, reward) & np.all((reward == top) | (reward < top - 1e-3), axis=-1)


def delta_max(log_ref, reward):
    """``-log p(argmax r)``; rounding cannot make it negative."""
    alive = np.isfinite(log_ref)
    best = np.max(np.where(alive, reward, -np.inf), axis=-1, keepdims=True)
    return np.maximum(-np.logaddexp.reduce(np.where(alive & (reward == best), log_ref, -np.inf), axis=-1), 0.0)


def reach(reward):
    """``1 + max |r|``: the size of what expectations add up."""
    return 1 + np.max(np.abs(reward), axis=-1)


def every_sum(letter, m):
    """``letter[y_1] + … + letter[y_m]`` for all sequences."""
    return functools.reduce(np.add.outer, [letter] * m).ravel()


def mixture_at(log_ref, reward, delta):
    """Reward of the mixture of p with its best letters that spends ``delta``."""
    best = log_normalize(np.where(reward == reward.max(), log_ref, -np.inf))

    def law(t):
        return np.logaddexp(np.log1p(-t) + log_ref, np.log(t) + best)

    excess = np.vectorize(lambda t: float(kl(log_normalize(law(t)), log_ref)) - delta)
    return float(np.exp(law(elementwise.find_root(excess, (1e-12, 1 - 1e-12)).x)) @ reward)


def enumerated(log_p, reward, n, distinct=False):
    """The law by enumerating all tuples; each one's mass is split over its maximising draws (or distinct outcomes)."""
    law, p = np.zeros(log_p.size), np.exp(log_p)
    for draw in itertools.product(range(log_p.size), repeat=int(n)):
        index = np.array(draw)
        winners = index[reward[index] == reward[index].max()]
        winners = np.unique(winners) if distinct else winners
        np.add.at(law, winners, np.prod(p[index]) / winners.size)
    return law


def fine_law(size, top=0.0):
    """``size`` equally likely outcomes, the best of them with additional mass ``top``; rewards are ranks."""
    p = np.full(size, (1 - top) / size)
    p[-1] += top
    return np.log(p), np.arange(size, dtype=float)


def quantiles(size):
    """The middles of ``size`` equal parts of [0, 1]."""
    return (np.arange(size) + 0.5) / size


def tilt_distance(reward, n, alpha=None):
    """L1 distance of the best of ``n`` of equally likely outcomes from the tilt by ``alpha`` (default: of the same KL), and that alpha."""
    log_p, rank = fine_law(reward.size)
    law = best_of_n.log_policy(log_p, rank, n)
    beta = float(kl_constrained(log_p, reward, kl(law, log_p)).beta) if alpha is None else 1 / alpha
    return np.abs(np.exp(law) - np.exp(tilt(log_p, reward, beta))).sum(), 1 / beta


@dataclass(frozen=True)
class BestOfN:
    """The reward of ``m`` letters under the reference, the optimum ``phi`` and the best of ``exp(m delta)``, exactly.

    Attributes:
        value: the rewards a sequence can have, ascending.
        log_base, log_phi, log_bon: their log-probabilities; the three laws share the law of sequences given the reward.
    """

    m: int
    delta: float
    phi: AlignedSource
    value: np.ndarray
    log_base: np.ndarray
    log_phi: np.ndarray
    log_bon: np.ndarray

    @property
    def reward(self) -> float:
        return float(expectation(self.log_bon, self.value))

    @property
    def kl_to_base(self) -> float:
        return law_kl(RewardLaw(self.value, self.log_bon), self.log_base)

    @property
    def kl_to_phi(self) -> float:
        return law_kl(RewardLaw(self.value, self.log_bon), self.log_phi)

    @property
    def tv_to_phi(self) -> float:
        return float(tv(self.log_bon, self.log_phi))

    @property
    def half_log(self) -> float:
        """``½ log(2 pi m alpha² s²)``."""
        return 0.5 * math.log(2 * math.pi * self.m * self.phi.alpha**2 * self.phi.variance)

    def cgf(self, t: float) -> float:
        """``log E_bon e^{tR} / m``."""
        return float(np.logaddexp.reduce(self.log_bon + t * self.value)) / self.m


@shared
def best_of(m: int, delta: float, *, phi_at: float | None = None, lattice: bool = False) -> BestOfN:
    """Best-of-``exp(m delta)`` on the three letters (``lattice``: on the binary source) against the optimum at ``phi_at``."""
    source = BINARY if lattice else SOURCE
    phi = source.aligned(delta if phi_at is None else phi_at)
    law = source.type_law(m)
    log_base = law.log_prob - np.logaddexp.reduce(law.log_prob)
    log_phi = tilt_law(RewardLaw(law.value, log_base), phi.alpha).log_prob
    log_bon = best_of_n.log_policy(log_base, law.value, log_n=m * delta)
    return BestOfN(m, delta, phi, law.value, log_base, log_phi, log_bon)


def convex_pair(m: int, delta: float) -> tuple[float, float]:
    """Reward a letter of best-of-N and of the KL-optimum for ``m g(x)``, ``g(x) = max(0, 2x - 1)^4``, on a fair coin."""
    law = MemorylessSource(np.log([0.5, 0.5]), np.array([0.0, 1.0])).type_law(m)
    merged = reward_law(log_normalize(law.log_prob), m * np.maximum(0.0, 2 * law.value / m - 1) ** 4)
    log_p = log_normalize(merged.log_prob)
    bon = float(best_of_n.expected_reward(log_p, merged.value, log_n=m * delta))
    return bon / m, float(kl_constrained(log_p, merged.value, m * delta).reward) / m


@shared
def convex_limits(delta: float) -> tuple[float, float]:
    """``(max of g within the budget, value at the budget of its concave envelope)``, on a fine grid of shares."""
    x = 0.5 + 0.5 * np.linspace(0, 1, 20_001)
    cost = math.log(2) - np.asarray(entropy(np.log(np.stack([x, np.maximum(1 - x, 1e-300)], axis=-1))))
    gain = (2 * x - 1) ** 4
    near, far = cost < delta, cost >= delta
    cost0, gain0 = cost[near][::50, None], gain[near][::50, None]
    chords = gain0 + (gain[far] - gain0) * (delta - cost0) / (cost[far] - cost0)
    return float(np.interp(delta, cost, gain)), float(chords.max())


def tail_rates(b):
    """Exponents of the upper tail at ``rho + 0.1`` and, of its logarithm, of the lower tail at ``rho - 0.1``."""
    above, below = b.m * (b.phi.reward + 0.1) - 1e-9, b.m * (b.phi.reward - 0.1) + 1e-9
    upper, lower = (np.logaddexp.reduce(b.log_bon[where]) for where in (b.value >= above, b.value <= below))
    return -upper / b.m, math.log(-lower) / b.m


def lattice_constant(u, alpha):
    """``f(u)`` of C9-lattice, the sum over 6,000 levels."""
    levels = u * np.exp(np.clip(-alpha * np.arange(-3000, 3000), -700, 700))
    mass = -np.exp(-levels * math.exp(-alpha)) * np.expm1(-levels * -math.expm1(-alpha))
    levels, mass = levels[mass > 0], mass[mass > 0]
    return float(mass @ (np.log(mass) - np.log(levels * -math.expm1(-alpha))))


@shared
def chain(m):
    """``(value, log-probability)`` of the reward of ``m`` transitions."""
    law = CHAIN.lattice_law(m)
    return law.value, log_normalize(law.log_prob)


def closeness(log_ref, reward, log_pi, share):
    """``phi, alpha (E_phi r - E_pi r), KL(pi‖p) - KL(phi‖p)`` and their magnitude."""
    found = kl_constrained(log_ref, reward, share * delta_max(log_ref, reward))
    alpha, spent = 1 / found.beta, kl(log_pi, log_ref)
    gap = alpha * (found.reward - expectation(log_pi, reward))
    return found.log_policy, gap, spent - found.kl, spent + found.kl + alpha * (np.abs(found.reward) + reach(reward))


def remainder(terms, divisor=3):
    """What is left of the gain after ``terms`` terms of its expansion, for the three letters."""
    deltas, law = np.geomspace(1e-1, 1e-5, 9), np.exp(P3)
    mean = law @ R3
    k2, k3 = (law @ (R3 - mean) ** k for k in (2, 3))
    gain = kl_constrained(P3, R3, deltas).reward - mean
    parts = (np.sqrt(2 * k2 * deltas), k3 * deltas / (divisor * k2))
    return deltas, gain - sum(parts[:terms])
