r"""The dual of the averaged problem, and which budgets the samples can show.

With ``L_i(lam) = log E_ref[exp(lam r)]`` of prompt ``i`` and ``lam = 1/beta``, the best mean reward with a mean
KL of ``b`` nats is

.. math:: V(b) = \min_{\lambda > 0} \frac{b + \frac1P\sum_i L_i(\lambda)}{\lambda}, \qquad
          K(R) = \max_{\lambda \ge 0} \lambda R - \frac1P\sum_i L_i(\lambda),

attained by one shared ``beta = 1/lam``. ``L_i`` is the log of a mean over the n samples of a prompt: its bias of order
1/n is removed by the delete-one jackknife, and what is left is watched: the same estimate from halves of the samples
moves by at least the remaining bias, if that falls like 1/n or faster. A budget b is *trusted* if

* that move and its own standard error add up to at most half the standard error of the estimate,
* at least ``sqrt n`` of the n samples carry the tilt (about ``n e^-b`` do, so b is at most ``log(n)/2``),
* b is below what n samples can show at all (``log n``, less where the best rewards tie) by two standard errors, and
* enough prompts carry its variance (`klsim.frontier.bootstrap`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from klsim.frontier.bootstrap import Bootstrap
from klsim.frontier.result import Estimate
from klsim.frontier.samples import Samples

__all__ = ["TRUSTED_SHARE", "Dual", "kl_at", "value_at"]

PER_OCTAVE = 8
MAX_OCTAVES = 30
TRUSTED_SHARE = 0.5
"""Of the standard error: a bias of this size would cost a 95 % interval two points of coverage."""
UNSTABLE = "too few samples a prompt: the estimate still moves with their number"


def value_at(budget: Any, mean_log: np.ndarray, lam: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``min (b + L)/lam`` on the last axis: value, log lam, and whether the grid's upper end is the minimum."""
    value, position, edge = _lowest(mean_log, budget, 0.0, lam, lam)
    return value, np.log(lam[0]) + position * (np.log(lam[1]) - np.log(lam[0])), edge


def kl_at(reward: Any, mean_log: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """``max (lam R - L)``, at least 0 (attained at lam = 0)."""
    return np.maximum(-_lowest(mean_log, 0.0, reward, lam, np.ones_like(lam))[0], 0.0)


def _lowest(
    table: np.ndarray, added: Any, slope: Any, lam: np.ndarray, divisor: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`klsim.kernels.log_partition.lowest` of one row or of many."""
    from klsim.kernels.log_partition import lowest

    rows = np.ascontiguousarray(np.atleast_2d(table))
    shift, tilt = (np.broadcast_to(np.asarray(x, dtype=np.float64), len(rows)).copy() for x in (added, slope))
    value, position, edge = lowest(rows, shift, tilt, lam, divisor)
    return (value[0], position[0], edge[0]) if table.ndim == 1 else (value, position, edge)


def _grid(data: Samples, smallest: float, largest: float) -> tuple[np.ndarray, int]:
    """``(base, octaves)``: inverse temperatures from a fraction of the smallest budget to an octave beyond ``largest``.

    Or to where nothing moves, if that comes first.
    """
    from klsim.kernels.log_partition import tilted_moments

    some = np.unique(np.linspace(0, data.prompts - 1, min(data.prompts, 400)).astype(np.int64))
    rewards = [data.reward[data.starts[i] : data.starts[i + 1]] for i in some]
    starts = np.concatenate([[0], np.cumsum([len(r) for r in rewards])])
    joined = np.concatenate(rewards)
    variance = float(np.mean([r.var() for r in rewards]))
    if variance == 0:
        variance = float(np.mean((data.reward - np.repeat(data.prompt_means(), data.counts)) ** 2))
    low = math.sqrt(smallest / 4 / variance)
    lams = low * 2.0 ** np.arange(MAX_OCTAVES)
    kl = tilted_moments(joined, starts, lams)[:, :, 1].mean(axis=0)
    most = float(np.mean([-math.log(np.mean(r == r.max())) for r in rewards]))
    octaves = int(np.searchsorted(kl, min(0.99 * most, largest))) + 2
    return low * 2.0 ** (np.arange(PER_OCTAVE) / PER_OCTAVE), min(octaves, MAX_OCTAVES)


class Dual:
    """The dual function, its resamples, and the checks. Rewards are in [0, 1] unless said otherwise.

    Attributes:
        lam: the grid. mean, resampled: ``mean L_i`` there, ``(lams,)`` and ``(resamples, lams)``.
        carried, limit: nats; budgets above the first are not trusted, above the second they cannot be shown.
    """

    def __init__(self, data: Samples, boot: Bootstrap, smallest: float) -> None:
        shown = np.log(data.counts) - data.log_ties()
        self.limit = float(np.mean(shown))
        self.limit_error = float(np.std(shown)) / math.sqrt(data.prompts)
        self.carried = float(np.mean(np.log(data.counts))) / 2
        base, octaves = _grid(data, smallest, self.carried)
        self.lam = np.concatenate([base * 2.0**o for o in range(octaves)])
        logs = data.kernel_sums("log_partitions", [data.reward], base, octaves)
        self.data, self.boot = data, boot
        self.logs = logs[:, :, 1]
        self.moved = logs[:, :, 2] - logs[:, :, 1]  # halves minus all, block by block
        self.mean = boot.mean(self.logs)
        self.resampled = boot.means(self.logs)

    @property
    def reach(self) -> float:
        """The largest KL that can be trusted at all, nats."""
        return min(self.carried, self.limit - 2 * self.limit_error)

    def in_units(self, e: Estimate) -> Estimate:
        """From [0, 1] to the user's units of reward."""
        value, low, high = (self.data.in_units(x) for x in (e.value, e.low, e.high))
        return Estimate(value, low, high, e.reason)

    def near(self, lam: float) -> int:
        """The place of an inverse temperature on the grid."""
        return int(np.argmin(np.abs(np.log(self.lam) - math.log(lam))))

    def influence(self, lam: float) -> np.ndarray:
        """Of ``V(b)``, at the tilt that attains it: ``L_i / lam``, centred."""
        at = self.near(lam)
        return self.boot.influence(self.logs[:, at]) / self.lam[at]

    def reward_at(self, budget: float) -> tuple[Estimate, float, float]:
        """``(reward in the user's units, lam, move by halves in them)`` at a budget."""
        value, log_lam, edge = value_at(budget, self.mean, self.lam)
        lam = math.exp(float(log_lam))
        found = self.boot.around(float(value), value_at(budget, self.resampled, self.lam)[0], self.influence(lam))
        halves, reach = self.bias(lam)
        reason = self.beyond(budget, bool(edge))
        if not reason and reach > TRUSTED_SHARE * self.boot.stderr(found):
            reason = UNSTABLE
        if not reason and found.value > 1:
            reason = "above the highest reward of these samples"
        found = replace(found, high=min(found.high, max(1.0, found.value)), reason=reason or found.reason)
        return self.in_units(found), lam, halves * self.data.scale

    def beyond(self, budget: float, edge: bool = False) -> str:
        """Why the samples do not show a budget, or ""."""
        most = f"these samples show at most {self.limit:.3g} nats"
        if budget >= self.limit - 2 * self.limit_error:
            return most
        if budget > self.carried:
            return f"fewer than sqrt(n) of n samples carry a tilt of more than {self.carried:.3g} nats"
        return most if edge else ""

    def bias(self, lam: float) -> tuple[float, float]:
        """How far halves of the samples move the reward at the tilt ``lam``, and that size plus its standard error."""
        at = self.near(lam)
        return self.move(self.moved[:, at] / self.lam[at])

    def move(self, sums: np.ndarray) -> tuple[float, float]:
        """The mean of block sums of moves, and its size plus its standard error."""
        halves = float(self.boot.mean(sums))
        noise = float(np.std(sums - halves * self.boot.sizes, ddof=1)) * math.sqrt(len(sums)) / self.boot.total
        return halves, abs(halves) + noise
