r"""Memoryless sources with a linear reward: exact laws, tilts and large deviations.

A sequence of ``m`` i.i.d. letters from ``p`` has reward ``R = sum_i r(y_i)``. With the scaled cumulant
generating function ``Lam(a) = log E_p[e^{a r}]``, the tilt ``p_a = p e^{a r - Lam(a)}`` has mean reward
``Lam'(a)``, variance ``Lam''(a)`` and ``KL(p_a‖p) = a Lam'(a) - Lam(a)``. The KL-constrained optimum at
``m delta`` nats is the product of the letters' optimum at ``delta``; the reward obeys a large deviation
principle with rate ``I(x) = sup_a (a x - Lam(a))``; best-of-N with ``N = exp(m delta)`` is a functional of
the law of ``R``, which is computed exactly: by types, or by convolution on a lattice.

Source: arXiv 2404.01730 (C1-C10 of klsim's ``asymptotics`` paper).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from klsim import _validate, optima
from klsim._perron import best_cycle, perron_vector, small_log_ratio
from klsim._sums import quiet
from klsim.best_of_n import RewardLaw
from klsim.distributions import condition, expectation, log_partition, tilt, to_numpy, variance
from klsim.divergences import GENERATORS, divergence_of_ratio, kl

__all__ = ["AlignedSource", "MarkovSource", "MemorylessSource", "law_kl", "tilt_law"]

_MERGE = 1e-9  # values closer than this, relative to the reward span, are one value


@dataclass(frozen=True)
class AlignedSource:
    """The KL-constrained optimum of a source at ``delta`` nats a letter.

    Attributes:
        log_p: letter law ``(A,)``.
        alpha: tilt strength ``1/beta``; ``inf`` at and beyond ``delta_max``.
        reward: mean reward a letter, ``rho``.
        variance: reward variance a letter (``inf`` if rewards span more than 1e150).
        kl: KL a letter (``delta`` unless the budget is slack).
    """

    log_p: np.ndarray
    alpha: float
    reward: float
    variance: float
    kl: float


@dataclass(frozen=True)
class MemorylessSource:
    """Letters with log-probabilities ``log_p (A,)`` and rewards ``reward (A,)``, not constant on the support.

    Raises:
        ValueError: not one distribution, bad shapes, a reward that is constant on the support.
    """

    log_p: np.ndarray
    reward: np.ndarray

    def __post_init__(self) -> None:
        xp, log_p, reward = _validate.arrays(log_p=self.log_p, reward=self.reward)
        _validate.log_probs("log_p", xp, log_p)
        if log_p.ndim != 1 or reward.shape != log_p.shape:
            _validate.fail("reward", f"must have the shape of log_p (A,), got {reward.shape} and {log_p.shape}")
        _validate.finite("reward", xp, reward)
        alive = reward[xp.isfinite(log_p)]
        if bool(xp.all(alive == alive[0])):
            _validate.fail("reward", "is constant on the support: there is nothing to align")
        if not math.isfinite(float(alive.max()) - float(alive.min())):
            _validate.fail("reward", "spans more than a float holds")
        object.__setattr__(self, "log_p", np.asarray(to_numpy(log_p), dtype=np.float64))
        object.__setattr__(self, "reward", np.asarray(to_numpy(reward), dtype=np.float64))

    @property
    def delta_max(self) -> float:
        """``-log p(argmax r)``: from this budget on the constraint is slack."""
        return max(-float(np.logaddexp.reduce(self.log_p[self._best])), 0.0)

    @property
    def _best(self) -> np.ndarray:
        alive = np.isfinite(self.log_p)
        return np.asarray(alive & (self.reward == self.reward[alive].max()))

    @property
    def span(self) -> float:
        """Largest minus smallest reward of the support."""
        alive = self.reward[np.isfinite(self.log_p)]
        return float(alive.max() - alive.min())

    def tilted(self, alpha: float) -> np.ndarray:
        """``p e^{alpha r}/Z`` for any real ``alpha`` (``±inf``: conditioned on the best/worst letters)."""
        alpha = _validate.real("alpha", alpha)
        if math.isinf(alpha):
            alive = np.isfinite(self.log_p)
            extreme = self.reward[alive].max() if alpha > 0 else self.reward[alive].min()
            return np.asarray(condition(self.log_p, self.reward == extreme))
        return np.asarray(tilt(self.log_p, *_exponent(alpha, self.reward)))

    def scaled_cumulant(self, alpha: float) -> float:
        """``Lam(alpha) = log E_p[e^{alpha r}]``, per letter."""
        alpha = _validate.real("alpha", alpha, low=-1e300, high=1e300)
        return float(log_partition(self.log_p, *_exponent(alpha, self.reward)))

    def mean(self, alpha: float = 0.0) -> float:
        """``Lam'(alpha)``: mean reward a letter under the tilt."""
        return float(expectation(self.tilted(alpha), self.reward))

    def variance(self, alpha: float = 0.0) -> float:
        """``Lam''(alpha)``: reward variance a letter under the tilt."""
        log_p = self.tilted(alpha)
        if self.span > 1e150:
            _validate.fail("reward", "spans too much: its variance may overflow", self.span)
        return float(variance(log_p, self.reward - self._best_reward))

    @property
    def _best_reward(self) -> float:
        return float(self.reward[self._best][0])

    def kl(self, alpha: float) -> float:
        """``KL(p_alpha‖p) = alpha Lam'(alpha) - Lam(alpha)`` a letter, in nats."""
        alpha = _validate.real("alpha", alpha)
        if math.isinf(alpha):
            return float(kl(self.tilted(alpha), self.log_p))
        return float(optima.kl_regularized(self.log_p, *_exponent(alpha, self.reward)).kl)

    def aligned(self, delta: float) -> AlignedSource:
        """The optimum at a budget of ``delta`` nats a letter.

        Raises:
            ValueError: ``delta < 0``.
        """
        delta = _validate.real("delta", delta, low=0.0)
        found = optima.kl_constrained(self.log_p, self.reward, delta)
        beta = float(found.beta)
        alpha = math.inf if beta == 0 else 1.0 / beta
        log_p = np.asarray(found.log_policy)
        spread = float(variance(log_p, self.reward - self._best_reward)) if self.span <= 1e150 else math.inf
        return AlignedSource(log_p, alpha, float(found.reward), spread, float(found.kl))

    def alpha_for_mean(self, x: float) -> float:
        """The ``a`` with ``Lam'(a) = x``; ``±inf`` at the extreme rewards.

        Raises:
            ValueError: ``x`` outside the range of rewards.
        """
        alive = self.reward[np.isfinite(self.log_p)]
        low, high = float(alive.min()), float(alive.max())
        x = _validate.real("x", x, low=low, high=high)
        if x in (low, high):
            return math.copysign(math.inf, x - 0.5 * (low + high))
        from scipy.optimize import brentq

        # in units of the span, so that thresholds are relative
        unit = MemorylessSource(self.log_p, np.where(np.isfinite(self.log_p), (self.reward - low) / self.span, 0.0))
        target = (x - low) / self.span
        left, right = -1.0, 1.0
        while unit.mean(left) > target and left > -1e290:
            left *= 2
        while unit.mean(right) < target and right < 1e290:
            right *= 2
        if not unit.mean(left) <= target <= unit.mean(right):  # rounding at the very ends
            return math.copysign(math.inf, target - 0.5)
        found = float(brentq(lambda a: unit.mean(a) - target, left, right, xtol=1e-300, rtol=8.9e-16, maxiter=1000))
        if abs(found) > 1e300 * self.span:
            _validate.fail("x", "its tilt overflows: the rewards span too little", x)
        return found / self.span

    def rate_function(self, x: float, alpha: float = 0.0) -> float:
        """Large-deviation rate of ``R/m`` under the tilt ``p_alpha``: ``J(x) = KL(p_{a_x}‖p_alpha)``.

        ``alpha = 0`` is the base source's rate ``I(x)``; ``inf`` outside the range of rewards.
        """
        alpha = _validate.real("alpha", alpha)
        alive = self.reward[np.isfinite(self.log_p)]
        if not alive.min() <= _validate.real("x", x) <= alive.max():
            return math.inf
        strength = self.alpha_for_mean(x)
        return self.kl(strength) if alpha == 0 else float(kl(self.tilted(strength), self.tilted(alpha)))

    def renyi_cross_entropy(self, order: float) -> float:
        """``H_s(p‖q) = log(sum p q^{s-1}) / (1 - s)`` with ``q ∝ e^r``; ``s = 1`` is the cross entropy."""
        order = _validate.real("order", order, low=-1e300, high=1e300)
        log_q = self.reward - np.logaddexp.reduce(self.reward)
        if abs(order - 1.0) < 1e-300:
            return -float(expectation(self.log_p, log_q))
        return float(log_partition(self.log_p, *_exponent(order - 1.0, log_q))) / (1.0 - order)

    def type_law(self, m: int) -> RewardLaw:
        """The exact law of the reward of ``m`` letters by enumerating types; at most 4 letters with support.

        Values closer than 1e-9 of the span are merged. There are ``C(m+A-1, A-1)`` types.

        Raises:
            ValueError: more than 4 letters (`lattice_law` takes any), or more types than fit.
        """
        from klsim.kernels.types import compositions, type_log_probs

        m = _validate.integer("m", m, low=1)
        alive = np.isfinite(self.log_p)
        log_p, reward = self.log_p[alive], self.reward[alive]
        if not 2 <= log_p.size <= 4:
            _validate.fail("log_p", f"type_law takes 2 to 4 letters, got {log_p.size} (lattice_law takes any)")
        types = math.comb(m + log_p.size - 1, log_p.size - 1)
        _validate.fits("m", m, types, each=8 * (log_p.size + 3))
        counts = compositions(m, log_p.size)
        return _merge(counts @ reward, type_log_probs(counts, log_p), _MERGE * self.span)

    def lattice_law(self, m: int) -> RewardLaw:
        """The exact law of the reward of ``m`` letters for rewards on a lattice, any number of letters.

        Rewards must be ``r_0 + step * integers``. The law is found in windows: a tilt puts the mass on
        each window, where the Fourier inversion of its characteristic function is accurate to rounding;
        tilting back gives far tails with full relative accuracy (the absolute error of the logarithm is
        a few roundings times ``1 + |log P|``).

        Raises:
            ValueError: the rewards are not on a lattice with at most 10^6 steps across the span.
        """
        m = _validate.integer("m", m, low=1)
        alive = np.isfinite(self.log_p)
        steps, step = _lattice(self.reward[alive])
        _validate.fits("m", m, m * int(steps.max()), each=40)
        log_prob = _lattice_log_probs(self.log_p[alive], steps, m)
        values = m * float(self.reward[alive].min()) + step * np.arange(log_prob.size)
        keep = np.isfinite(log_prob)
        return RewardLaw(values[keep], log_prob[keep])


def _exponent(alpha: float, reward: np.ndarray) -> tuple[np.ndarray, float]:
    """``(reward, beta)`` with ``reward/beta = alpha r``, neither of which over- nor underflows for the other."""
    if abs(alpha) >= 1.0:
        return math.copysign(1.0, alpha) * reward, 1.0 / abs(alpha)
    return alpha * reward, 1.0


def _merge(values: np.ndarray, log_probs: np.ndarray, tolerance: float) -> RewardLaw:
    keep = np.isfinite(log_probs)
    order = np.argsort(values[keep], kind="stable")
    values, log_probs = values[keep][order], log_probs[keep][order]
    starts = np.flatnonzero(np.diff(values, prepend=-np.inf) > tolerance)
    return RewardLaw(values[starts], np.logaddexp.reduceat(log_probs, starts))


def tilt_law(law: RewardLaw, alpha: float) -> RewardLaw:
    """The law of the reward after tilting the sequence law by ``alpha R``."""
    _validate.instance("law", law, RewardLaw)
    alpha = _validate.real("alpha", alpha, low=-1e300, high=1e300)
    if alpha == 0:
        return law
    log_prob = tilt(_normalised(law.log_prob), *_exponent(alpha, law.value))
    return RewardLaw(law.value, np.asarray(log_prob))


def _normalised(log_prob: np.ndarray) -> np.ndarray:
    """Exactly normalised logs: sums over 10^5 and more terms drift by more than the tolerance at the door."""
    return np.asarray(log_prob - np.logaddexp.reduce(log_prob))


def law_kl(law: RewardLaw, log_other: np.ndarray) -> float:
    """``KL`` from a law of the reward to another on the same values: the KL of the sequence laws, if both
    share the conditional law given the reward (as tilts and best-of-N do)."""
    _validate.instance("law", law, RewardLaw)
    (log_other,) = _validate.numpy_arrays(log_other=log_other)
    _validate.log_probs("log_other", np, log_other, normalised=False)
    if log_other.shape != law.log_prob.shape:
        _validate.fail("log_other", f"must have the shape of the law {law.log_prob.shape}, got {log_other.shape}")
    other = _validate.log_probs("log_other", np, _normalised(log_other))
    return float(kl(_normalised(law.log_prob), other))


def _lattice(reward: np.ndarray) -> tuple[np.ndarray, float]:
    """Integers (smallest 0, coprime) and the step with ``reward = min + step * integers``."""
    gaps = np.unique(reward - reward.min())[1:]
    if not gaps.size:
        return np.zeros(reward.shape, dtype=np.int64), 1.0
    step = float(gaps[0])
    for gap in gaps[1:]:  # Euclid's algorithm on floats, to the rounding of the largest gap
        a, b = float(gap), step
        while b > 1e-9 * gaps[-1]:
            a, b = b, a % b
            if a - b < 1e-9 * gaps[-1]:
                b = 0.0
        step = a
    steps = np.rint((reward - reward.min()) / step)
    if steps.max() > 1e6 or np.any(np.abs(steps * step - (reward - reward.min())) > 1e-9 * gaps[-1]):
        raise ValueError("reward: must lie on a lattice r_0 + step * integers with at most 10^6 steps")
    return steps.astype(np.int64), step


_DIRECT = 2e8  # additions that the direct sum may take
_QUICK = 2e4  # additions that are not worth another way
_WIDTHS = (3.0, 1.8)  # reach of a window in standard deviations: the second try
_LEAST = 1e-3  # of the largest probability of a window, to which rounding is relative


@quiet
def _lattice_log_probs(log_p: np.ndarray, steps: np.ndarray, m: int) -> np.ndarray:
    """``log P(sum of m letters = k)`` for ``k = 0 … m * max(steps)``."""
    steps, log_p = _merged_letters(steps, log_p)
    top = m * int(steps[-1])
    cost = len(steps) * top * min(m, top / (steps[-1] - steps[-2]))
    if cost <= _QUICK:
        return _edge(log_p, steps, m, top)[::-1]
    reach = min(64 * int(steps[-1]), top)
    out = np.full(top + 1, -np.inf)
    out[top - reach :] = _edge(log_p, steps, m, reach)[::-1]
    out[: reach + 1] = _edge(log_p[::-1], steps[-1] - steps[::-1], m, reach)
    if reach + 1 > top - reach - 1 or any(_fill(out, log_p, steps, m, reach, width) for width in _WIDTHS):
        return out
    if cost <= _DIRECT:
        return _edge(log_p, steps, m, top)[::-1]
    raise ValueError("reward: its lattice is too sparse for this m (few letters reach each value)")


def _merged_letters(steps: np.ndarray, log_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distinct = np.unique(steps)
    return distinct, np.asarray([np.logaddexp.reduce(log_p[steps == s]) for s in distinct])


def _edge(log_p: np.ndarray, steps: np.ndarray, m: int, reach: int) -> np.ndarray:
    """The law at distances ``0 … reach`` below ``m * max(steps)``."""
    from klsim.kernels.lattice import edge_by_recurrence
    from klsim.kernels.types import edge_law

    deficits = np.asarray(steps[-1] - steps[:-1], dtype=np.int64)
    if reach < (m + 1) * deficits.min() and log_p.min() > -600:
        return np.asarray(edge_by_recurrence(np.exp(log_p[::-1]), np.append(deficits, 0)[::-1].copy(), m, reach))
    return np.asarray(edge_law(float(log_p[-1]), np.ascontiguousarray(log_p[:-1]), deficits, m, reach))


_TOGETHER = 1 << 20  # entries that are transformed at once


def _fill(out: np.ndarray, log_p: np.ndarray, steps: np.ndarray, m: int, reach: int, width: float) -> bool:
    """Fill ``out`` between its ends, window by window; False if some window has values that are too rare."""
    from klsim.kernels.lattice import patch, plan_windows, spectra

    whole, real = plan_windows(log_p, steps.astype(np.float64), m, reach + 1, len(out) - reach - 2, width)
    for size in np.unique(whole[:, 3]).tolist():
        same = np.flatnonzero(whole[:, 3] == size)
        for some in np.array_split(same, -(-len(same) * size // _TOGETHER)):
            transforms = spectra(log_p, steps.astype(np.float64), m, real[some, 0], real[some, 1], size)
            if not patch(np.fft.irfft(transforms, n=size, axis=1), whole[some], real[some], out) >= _LEAST:
                return False
    return True


@dataclass(frozen=True)
class MarkovSource:
    """Letters of a Markov chain with a reward on transitions (C16 of ``asymptotics``).

    Attributes:
        transition: row-stochastic, irreducible ``(S, S)``.
        reward: of the transition ``i -> j``, ``(S, S)``.
        initial: law of the letter before the first transition, ``(S,)``.

    Raises:
        ValueError: shapes, negative or unnormalised probabilities, states that do not reach each other.
    """

    transition: np.ndarray
    reward: np.ndarray
    initial: np.ndarray

    def __post_init__(self) -> None:
        # one by one: each is held to the precision it came in
        (transition,) = _validate.numpy_arrays(transition=self.transition)
        (reward,) = _validate.numpy_arrays(reward=self.reward)
        (initial,) = _validate.numpy_arrays(initial=self.initial)
        states = initial.shape[0] if initial.ndim == 1 else -1
        if states == 0 or transition.shape != (states, states) or reward.shape != (states, states):
            shapes = f"{transition.shape}, {reward.shape}, {initial.shape}"
            _validate.fail("transition", f"transition and reward must be (S, S), initial (S,), got {shapes}")
        for name, law in (("transition", transition), ("initial", initial)):
            _validate.budgets(name, np, law)
            with np.errstate(divide="ignore"):
                _validate.log_probs(name, np, np.log(law))
        _validate.finite("reward", np, reward)
        if float(np.abs(reward).max()) > 1e150:
            _validate.fail("reward", "must be at most 1e150 in size", float(np.abs(reward).max()))
        from scipy.sparse.csgraph import connected_components

        if connected_components(transition > 0, connection="strong", return_labels=False) != 1:
            _validate.fail("transition", "is not irreducible: some state does not reach another")
        for name, value in (("transition", transition), ("reward", reward), ("initial", initial)):
            object.__setattr__(self, name, np.asarray(value, dtype=np.float64))

    def scaled_cumulant(self, alpha: float) -> float:
        """``Lam(a) = log`` Perron root of ``P(j|i) e^{a r(i,j)}``: the limit of ``log E[e^{aR}]/m``."""
        log_root, _, stationary, right = self._tilted(_validate.real("alpha", alpha, low=-1e150, high=1e150))
        exponent = alpha * self.reward
        if np.abs(exponent).max() > 0.5:
            return log_root
        # ell (A - P) 1 = (root - 1) ell 1, whose terms are as small as alpha
        left = stationary / right
        return math.log1p(float(left @ (self.transition * np.expm1(exponent)).sum(axis=1) / left.sum()))

    def mean(self, alpha: float) -> float:
        """``Lam'(a)``: mean reward of the tilted chain; for ``±inf`` the best (worst) mean of a cycle."""
        alpha = _validate.real("alpha", alpha)
        if math.isinf(alpha):
            sign = math.copysign(1.0, alpha)
            return sign * best_cycle(np.where(self.transition > 0, sign * self.reward, -np.inf))[0]
        _, tilted, stationary, _ = self._tilted(_validate.real("alpha", alpha, low=-1e150, high=1e150))
        return float(stationary @ (tilted * self.reward).sum(axis=1))

    def _tilted(self, alpha: float) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """``(log root, tilted chain, its stationary law, right Perron vector)`` of ``P e^{alpha r}``.

        A diagonal similarity by the best walks (in logs) first makes every entry at most 1 and every row, and some
        cycle, have a 1: nothing that matters under- or overflows, whatever alpha.
        """
        with np.errstate(divide="ignore", under="ignore"):
            weight = alpha * self.reward + np.log(self.transition)
            rate, walk = best_cycle(weight)
            matrix = np.exp(weight - rate + walk[None, :] - walk[:, None])
            right, left = perron_vector(matrix), perron_vector(matrix.T)
            root = float(left @ matrix @ right / (left @ right))
            tilted = matrix * right[None, :] / (matrix @ right)[:, None]
            stationary = left * right / float(left @ right)
            # a common factor of the right vector does not matter
            return math.log(root) + rate, tilted, stationary, right * np.exp(walk - walk.max())

    def _kl_rate(self, alpha: float) -> float:
        """``a Lam'(a) - Lam(a)``: the mean KL of the tilted transitions to the chain's own."""
        if abs(alpha) * float(np.ptp(self.reward)) <= 0.1:
            with np.errstate(divide="ignore"):
                log_p = np.log(self.transition)
            ratio = small_log_ratio(self.transition, alpha * self.reward)
            stationary = perron_vector((self.transition * np.exp(ratio)).T)
            cost = divergence_of_ratio(np, log_p, ratio, GENERATORS["kl"])
            return float(stationary @ cost / stationary.sum())
        _, tilted, stationary, _ = self._tilted(alpha)
        with np.errstate(divide="ignore"):
            return float(stationary @ kl(np.log(tilted), np.log(self.transition)))

    def alpha_for_budget(self, delta: float) -> float:
        """The ``a > 0`` with ``a Lam'(a) - Lam(a) = delta``.

        Raises:
            ValueError: no such ``a`` (the budget is at or above its limit).
        """
        from scipy.optimize import brentq

        delta = _validate.real("delta", delta, low=1e-300)
        span = float(np.ptp(self.reward[self.transition > 0]))
        high = 1.0
        while span > 0 and high < 1e9 and self._kl_rate(high / span) < delta:
            high *= 2
        if span == 0 or high >= 1e9:
            _validate.fail("delta", "is at or above the limit that tilts can spend", delta)
        low = high
        while self._kl_rate(low / span) > delta and low > 1e-160:
            low /= 2
        root = brentq(lambda a: self._kl_rate(a / span) - delta, low, high, xtol=1e-300, rtol=8.9e-16, maxiter=1000)
        return float(root) / span

    def lattice_law(self, m: int) -> RewardLaw:
        """The exact law of ``R`` on a lattice: recursion over (state, partial sum) in log space.

        Raises:
            ValueError: the rewards are not on a lattice, or the recursion takes more than 10^10 additions.
        """
        m = _validate.integer("m", m, low=1)
        steps, step = _lattice(self.reward.ravel())
        steps = steps.reshape(self.reward.shape)
        with np.errstate(divide="ignore"):
            log_transition, log_state = np.log(self.transition), np.log(self.initial)
        top = int(steps.max())
        _validate.fits("m", m, len(log_state) * (m * top + 1), each=40)
        if m * (m * top + 1) * steps.size > 2 * 10**10:
            _validate.fail("m", "the recursion would take more than 10^10 additions", m)
        log_law = np.full((len(log_state), m * top + 1), -np.inf)
        log_law[:, 0] = log_state
        for t in range(m):
            width = t * top + 1
            new = np.full_like(log_law, -np.inf)
            for i, j in np.ndindex(*steps.shape):
                k = int(steps[i, j])
                target = new[j, k : k + width]
                np.logaddexp(target, log_law[i, :width] + log_transition[i, j], out=target)
            log_law = new
        log_prob = np.logaddexp.reduce(log_law, axis=0)
        values = m * float(self.reward.min()) + step * np.arange(log_prob.size)
        keep = np.isfinite(log_prob)
        return RewardLaw(values[keep], log_prob[keep])
