r"""The soft Bellman equation of a discounted problem: policy (Newton) iteration with a certificate.

**Iteration.** With ``pi`` optimal at ``V``, ``V + (I - gamma P_pi)^{-1} (TV - V)`` is policy iteration, and a step of
Newton's method for the soft equation. From a ``V <= TV`` (a low constant to begin with, systems solved from below) it
rises to the optimum, at least as fast as value iteration and in the end quadratically, whatever the residual does.
A step that neither lowers the residual nor keeps ``V <= TV`` was solved badly: the first one turns to twice the
precision, three in a row are followed by a backup.

**Certificate.** ``T`` is monotone and ``T(V + c) = TV + gamma c``: the optimum lies between ``V + min(TV-V)/(1-gamma)``
and ``V + max(TV - V)/(1-gamma)``. The value returned is the middle of what that says of ``TV``; its bound is half
the width and the rounding of the residual.

**Rounding.** The problem is scaled by a power of two so that rewards are of size 1. The value is a constant plus a
rest, ``m + v``. Where plain arithmetic cannot certify what is asked for, ``v = hi + lo`` and the residual is computed
in twice the precision (`klsim.kernels.sweeps`), systems staying plain: iterative refinement. Ties are then seen.

Sources: Puterman, Markov Decision Processes (1994), 6.4-6.6; MacQueen (1966), bounds; Geist, Scherrer & Pietquin
(2019), regularised MDPs; Ogita, Rump & Oishi (2005), sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from klsim.kernels import sweeps
from klsim.kernels.backups import greedy_rows
from klsim.kernels.threaded import read_only
from klsim.planning.chains import Chain, action_chain, policy_chain
from klsim.planning.solution import Solution, require_finite_values, soft_backup
from klsim.problems import DiscountedMDP

__all__ = ["SoftBellman", "Value", "solve_discounted"]

UNIT = float(np.finfo(float).eps) / 2
PATIENCE = 3  # Newton steps in a row that may fail


@dataclass(frozen=True)
class Value:
    """``constant + high + low``."""

    constant: float
    high: np.ndarray
    low: np.ndarray

    def plus(self, step: np.ndarray, constant: float = 0.0) -> Value:
        """Moved, with the error of the sum kept; the middle of the step goes to the constant."""
        total, low, middle = sweeps.two_sums(self.high, self.low, step)
        grown = self.constant + middle
        middle = grown - self.constant
        if self.constant + middle == grown and grown - middle == self.constant:  # nothing of the constant is rounded
            total, low, _ = sweeps.two_sums(total, low, np.full(1, -middle))
            return Value(grown + constant, total, low)
        return Value(self.constant + constant, total, low)

    def rounded(self) -> np.ndarray:
        """As one array."""
        return np.asarray(self.high + (self.low + self.constant))

    @cached_property
    def size(self) -> float:
        """Largest absolute value."""
        return float(max(abs(self.high.max() + self.constant), abs(self.high.min() + self.constant)))


class SoftBellman:
    """The soft Bellman operator ``beta log sum_a ref e^{Q/beta}``, as advantages at a `Value`, and its rounding."""

    def __init__(self, problem: DiscountedMDP, reward: np.ndarray, ref: np.ndarray, beta: float) -> None:
        self.transition, self.discount = problem.transition, problem.discount
        self.reward, self.beta = np.ascontiguousarray(reward), beta
        self.ref = np.ascontiguousarray(ref)
        self.states, self.actions = problem.shape
        self.largest = float(np.abs(reward).max())
        self.csr, self.terms = problem.is_sparse, self.states
        self.arrays: tuple[Any, ...] = (self.transition,)
        if self.csr:
            self.arrays = (self.transition.indptr, self.transition.indices, self.transition.data)
            self.terms = int(np.diff(self.transition.indptr).max())

    def advantages(self, value: Value, extended: bool) -> np.ndarray:
        """``r + gamma P V - V``, ``(S, A)``."""
        csr, arrays = self.csr, self.arrays
        exact = (1 - Fraction(self.discount)) * Fraction(value.constant)
        shift = float(exact)
        if extended:
            kernel: Any = sweeps.sparse_advantages_extended if csr else sweeps.dense_advantages_extended
            low = float(exact - Fraction(shift))
            return np.asarray(kernel(*arrays, self.reward, self.discount, shift, low, value.high, value.low))
        v = value.high + value.low
        if not v.any():
            return self.reward - shift
        if csr:
            kernel = sweeps.sparse_advantages
            return np.asarray(kernel(*arrays, self.reward, self.discount, shift, v))
        future = self.transition.reshape(-1, self.states) @ v
        out = future.reshape(self.states, self.actions)
        out *= self.discount
        out -= (v + shift)[:, None]
        out += self.reward
        return np.asarray(out)

    def rounding(
        self,
        value: Value,
        advantage: np.ndarray | None,
        residual: np.ndarray,
        log_policy: np.ndarray | None,
        extended: bool,
    ) -> float:
        """Bound on the rounding of the residual.

        A sum of n products errs by at most ``n u sum |p v|``, in twice the precision by ``(n u)^2``. A log-sum-exp of
        exponents x errs by ``u`` times the number of terms and the mean of ``|x|`` under the policy.
        """
        rest = abs((1 - self.discount) * value.constant)
        around = float(max(value.high.max(), -value.high.min()))
        size = around + self.largest + rest if around or rest else 0.0  # at V = 0 nothing is rounded
        top = float(np.abs(residual).max())
        if extended:
            plain = (4 * UNIT * top if size else 0.0) + 4 * ((self.terms + 8) * UNIT) ** 2 * size
        else:
            plain = UNIT * ((2 * self.terms + 8) * around + (6 * (self.largest + rest) if size else 0.0))
        if log_policy is None or advantage is None:
            return plain
        weights = np.exp(log_policy)
        kept = weights > 0
        exponents = np.where(kept, np.abs(residual[:, None] - advantage) - self.beta * self.ref, 0.0)
        mean = float(np.sum(weights * exponents, axis=1).max()) + 2 * top
        spread = 2 * float(np.abs(np.where(kept, advantage, 0.0)).max())
        return plain + UNIT * (2 * top + min((self.actions + 8) * self.beta + 4 * mean, (self.actions + 12) * spread))


@dataclass(frozen=True)
class _Sweep:
    """A value and its advantages (None where only the best were computed), and what they say.

    ``own``: advantage of the current action. ``bounds`` of ``TV - V``; ``noise`` of them; ``error`` of the middle.
    """

    value: Value
    advantage: np.ndarray | None
    residual: np.ndarray
    own: np.ndarray
    bounds: tuple[float, float]
    noise: float
    error: float

    @property
    def width(self) -> float:
        """Half the width of the residual."""
        return 0.5 * (self.bounds[1] - self.bounds[0])


class _Iteration:
    """Policy or value iteration on a scaled problem."""

    def __init__(self, bellman: SoftBellman, method: str, tolerance: float) -> None:
        self.bellman, self.tolerance = bellman, tolerance
        self.newton = method == "policy_iteration"
        self.rest = 1.0 - bellman.discount
        self.extended = False
        self.action = np.full(bellman.states, -1)
        self.log_policy: np.ndarray | None = None
        self.greedy: list[Any] = []  # the policy of the last sweep
        self.changed = self.changed_before = 0  # states where its action is new, and was in the sweep before
        self.keys: np.ndarray | None = None
        self.clock, self.seen = 0.0, Value(0.0, np.zeros(0), np.zeros(0))
        self.chain: Chain | None = None
        self.noise = 0.0
        self.fresh = False  # whether the chain is that of the last improvement
        self.asked = 0.0  # size of what the last system had to solve

    def start(self) -> Value:
        """A constant that its backup does not lower."""
        zero = np.zeros(self.bellman.states)
        residual, _ = soft_backup(self.bellman.reward, self.bellman.ref, self.bellman.beta)
        return Value(float(residual.min()) / self.rest if self.newton else 0.0, zero, zero)

    def sweep(self, value: Value) -> _Sweep:
        """The residual at ``value``."""
        bellman = self.bellman
        self.changed_before = self.changed
        advantage = None if self.keys is not None else bellman.advantages(value, self.extended)
        log_policy = None
        if self.keys is not None:
            residual, *self.greedy, own, self.changed = self.lazily(value)
        elif bellman.beta == 0:
            assert advantage is not None
            residual, *self.greedy, own, self.changed = greedy_rows(
                *read_only(advantage, bellman.ref, self.action), 2 * self.noise
            )
        else:
            assert advantage is not None
            residual, log_policy = own, *self.greedy = soft_backup(advantage, bellman.ref, bellman.beta)
        self.noise = bellman.rounding(value, advantage, residual, log_policy, self.extended)
        bounds = float(residual.min()), float(residual.max())
        error = (0.5 * (bounds[1] - bounds[0]) + self.noise) / self.rest + 4 * UNIT * value.size
        return _Sweep(value, advantage, residual, own, bounds, self.noise, error)

    def remember(self, at: _Sweep) -> None:
        """From here on only pairs that may be the best are computed: the keys of `lazily` are those of this sweep."""
        assert at.advantage is not None
        self.keys = at.advantage + (at.value.high + at.value.low)[:, None]
        self.keys[np.isneginf(self.bellman.ref)] = -np.inf
        self.clock, self.seen = 0.0, at.value

    def lazily(self, value: Value) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """`greedy_rows` without the pairs that cannot be the best: a pair gains at most ``gamma`` max of the step."""
        bellman = self.bellman
        moved = (value.high - self.seen.high) + (value.low - self.seen.low)
        rise = (1 - bellman.discount) * (value.constant - self.seen.constant)
        self.clock += bellman.discount * float(moved.max()) - rise + 4 * self.noise
        self.seen = value
        kernel: Any = sweeps.sparse_greedy if bellman.csr else sweeps.dense_greedy
        v, shift = value.high + value.low, (1 - bellman.discount) * value.constant
        own = (bellman.reward, bellman.discount, shift, v)
        return kernel(*bellman.arrays, *own, self.action, 2 * self.noise, self.keys, self.clock)

    def left_over(self, at: _Sweep) -> np.ndarray | None:
        """What the evaluation of the current policy left, if that has to be solved before the policy may change.

        A policy's value, found from below, is not lowered by its own backup beyond rounding.
        """
        if self.chain is None or not self.fresh or at.bounds[0] >= -8 * at.noise:
            return None
        own = at.own
        if self.bellman.beta > 0:
            assert self.log_policy is not None
            assert at.advantage is not None
            weights = np.exp(self.log_policy)
            spent = np.where(weights > 0, self.log_policy - np.where(weights > 0, self.bellman.ref, 0.0), 0.0)
            own = np.sum(weights * (np.where(weights > 0, at.advantage, 0.0) - self.bellman.beta * spent), axis=1)
        size = float(np.abs(own).max())
        return own if size <= 0.5 * self.asked else None

    def goal(self, at: _Sweep) -> float:
        """The error asked for. Values that are all zero are certified to that share of the rewards' rounding."""
        return self.tolerance * max(at.value.size, 2 * UNIT * self.bellman.largest)

    def step(self, at: _Sweep, previous: float, exact: bool) -> Value:
        """The value of the current policy, from below, as far as is worth it."""
        bellman, rhs = self.bellman, self.left_over(at)
        settled = rhs is not None
        if rhs is None:
            settled, rhs = self.improve(at, previous, exact)
        assert self.chain is not None
        self.asked = float(np.abs(rhs).max())
        wanted = 0.3 * self.goal(at) * self.rest
        if not settled:
            wanted = max(wanted, self.share() * at.width) if bellman.states > 100 else 0.0
        delta = self.chain.correction(rhs, max(wanted, 0.1 * at.noise if not self.extended else 0.0), exact=exact)
        if not np.isfinite(delta).all():
            return self.backup(at)
        return at.value.plus(delta)

    def share(self) -> float:
        """The part of the residual that an evaluation may leave: what the next change of the policy is likely to."""
        if self.bellman.beta > 0:
            return 1e-4
        if self.chain is None or not self.chain.sparse:
            return 1e-2
        many = self.changed > self.bellman.states // 100
        return 0.3 if many else 0.3 * min(1.0, self.changed / max(self.changed_before, 1))

    def improve(self, at: _Sweep, previous: float, exact: bool) -> tuple[bool, np.ndarray]:
        """The policy of the sweep becomes the current one: whether it is the last one, and its residual."""
        bellman = self.bellman
        if bellman.beta == 0:
            (action,) = self.greedy
            rhs = np.where(action == self.action, at.own, at.residual)
            if self.changed or self.chain is None:
                self.chain = action_chain(bellman.transition, action, bellman.discount, self.chain, self.action)
            self.action, self.fresh = action, True
            if self.keys is None and not self.extended:
                self.remember(at)
            few = 0 if self.chain.sparse else bellman.states // 100
            return self.changed <= few, rhs
        # while a step takes off a factor of a thousand, the chain of an earlier policy does as well
        self.fresh = self.chain is None or at.width > 1e-3 * previous or exact
        if self.fresh:
            (self.log_policy,) = self.greedy
            weights = np.exp(self.log_policy)
            weights[weights < 1e-17] = 0.0
            self.chain = policy_chain(bellman.transition, weights, bellman.discount)
        return False, at.residual

    def backup(self, at: _Sweep) -> Value:
        """``TV``, with the constant part of the way that is left."""
        middle = 0.5 * (at.bounds[0] + at.bounds[1])
        return at.value.plus(at.residual, self.bellman.discount * middle / self.rest)

    def run(self, limit: int) -> tuple[_Sweep, int, str]:
        """``(best sweep, iterations, reason)``."""
        at = best = self.sweep(self.start())
        previous, failures = math.inf, 0
        for i in range(limit):
            if best.error <= self.goal(best):
                return best, i, "certified"
            if self._exhausted(at, previous) or (failures and not self.extended):
                if self.extended:
                    return best, i, "rounding level reached"
                self.extended, self.keys, previous, failures = True, None, math.inf, 0
                at = self.sweep(at.value)
            else:
                backup = not self.newton or failures == PATIENCE
                moved = self.sweep(self.backup(at) if backup else self.step(at, previous, failures > 0))
                fails = not backup and moved.bounds[0] < -8 * moved.noise and moved.width > at.width
                failures = failures + 1 if fails else 0
                previous, at = at.width, moved
            best = min(best, at, key=lambda s: s.error)
        return best, limit, "certified" if best.error <= self.goal(best) else "iteration limit reached"

    def _exhausted(self, at: _Sweep, previous: float) -> bool:
        """Whether the residual is rounding, or no step gets below some multiples of it."""
        if self.newton and self.bellman.beta == 0 and self.changed:
            return False
        return at.width <= 2 * at.noise or (self.newton and at.width <= 64 * at.noise and at.width > 0.5 * previous)


def solve_discounted(
    problem: DiscountedMDP,
    ref: np.ndarray,
    beta: float,
    bonus: np.ndarray,
    method: str,
    tolerance: float,
    limit: int,
) -> Solution:
    """The optimum of ``problem`` with ``bonus (S,)`` added to the reward of every state."""
    reward = problem.reward + bonus[:, None]
    largest = float(np.abs(reward).max())
    require_finite_values(reward, problem.discount)
    power = math.frexp(largest)[1]
    scaled_beta = math.ldexp(beta, -power) if beta == 0 or math.frexp(beta)[1] - power < 1000 else 1e300
    scaled_beta = 0.0 if scaled_beta < 1e-290 else scaled_beta
    bellman = SoftBellman(problem, np.ldexp(reward, -power), ref, scaled_beta)
    best, iterations, reason = _Iteration(bellman, method, tolerance).run(limit)
    return _solution(bellman, best, power, bonus, tolerance, iterations, reason)


def _solution(
    bellman: SoftBellman, best: _Sweep, power: int, bonus: np.ndarray, tolerance: float, iterations: int, reason: str
) -> Solution:
    """``TV``, ``Q`` and the policy of the best sweep, in the problem's own units."""
    rest = 1.0 - bellman.discount
    far = bellman.discount * 0.5 * (best.bounds[0] + best.bounds[1]) / rest
    slack = 2 * UNIT * rest * best.value.size
    advantage = bellman.advantages(best.value, False) if best.advantage is None else best.advantage
    backed, log_policy = soft_backup(advantage, bellman.ref, bellman.beta, slack)
    value = best.value.high + (best.value.low + backed + (best.value.constant + far))
    own = best.value.high + best.value.low
    q_value = np.ldexp(advantage + own[:, None] + (best.value.constant + far), power) - bonus[:, None]
    value = np.ldexp(value, power)
    size = float(np.abs(value).max())
    # in the range of subnormal numbers the spacing is more than what eps says
    error = float(np.ldexp(best.error, power)) + (float(np.spacing(size)) if size else 0.0)
    floor = float(np.ldexp(2 * UNIT * bellman.largest, power))
    converged = error <= tolerance * max(size, floor)
    if converged or reason == "certified":
        reason = "certified" if converged else "rounding level reached"
    return Solution(log_policy, value, q_value, error, iterations, bool(converged), reason)
