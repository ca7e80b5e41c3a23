r"""Objectives of several attempts: pass@k, max@k (PKPO, pass@k training) and MaxRL.

``pass@k = 1 - (1-p)^k`` for binary rewards, ``max@k = E[max(r(y_1), …, r(y_k))]`` for any, k i.i.d. responses a
prompt. With ``E_J`` the mean over all sets J of k - 1 other responses of the group (G of them),

    grad max@k = E[ 1/G sum_i k E_J[max(r_i, max_J r)] grad log pi(y_i) ],

for every ``k <= G``: an advantage ``A_i = k E_J[max(r_i, max_J r)]`` less a baseline that does not depend on ``y_i``.

Sources: Walder and Karkhanis (2025), arXiv:2505.15201; Chen et al. (2025), arXiv:2508.10751; MaxRL (2026),
arXiv:2602.02710.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace

from klsim import _validate
from klsim.objectives.advantages import checked, group_mean, group_sizes
from klsim.objectives.aggregate import sequence_mean
from klsim.objectives.batch import Loss, TokenBatch, takes_batch
from klsim.objectives.policy_gradient import Clip, sequence_ratio, surrogate

__all__ = [
    "MaxBaseline",
    "best_of_others",
    "max_at_k",
    "max_at_k_advantages",
    "maxrl",
    "maxrl_advantages",
    "pass_at_k",
    "pass_at_k_advantages",
]

Array = Any
MaxBaseline = Literal["none", "leave_one_out", "without_it", "group"]
"""What is subtracted from ``max@k``; the table in `max_at_k_advantages` says what each gives."""
_BASELINES = ("none", "leave_one_out", "without_it", "group")


def _below(rank: int, count: int, size: int) -> float:
    """Chance that all of a random set of ``size`` among ``count`` lie among the ``rank`` lowest."""
    return math.comb(rank, size) / math.comb(count, size)


def _expected_max(sorted_size: int, size: int) -> np.ndarray:
    """Weights w with ``w @ r`` the mean maximum over all sets of ``size`` of ``sorted_size`` ascending values."""
    chance = np.array([_below(j, sorted_size, size) for j in range(sorted_size + 1)])
    return np.diff(chance)


def _weights_with(count: int, size: int) -> np.ndarray:
    """``W @ r``: ``E_J max(r_i, max_J r)``, J of ``size`` others of ``count`` ascending values."""
    out = np.zeros((count, count))
    for i in range(count):
        for j in range(i, count):
            # values at or below place j, i itself not counted: j of them for j >= i
            high = _below(j, count - 1, size)
            out[i, j] = high if j == i else high - _below(j - 1, count - 1, size)
    return out


def _weights_without(count: int, size: int) -> np.ndarray:
    """``W @ r``: ``E_J max_J r`` over sets of ``size`` that leave out i; rows i, ascending values."""
    rest = _expected_max(count - 1, size)
    out = np.zeros((count, count))
    for i in range(count):
        out[i, np.arange(count) != i] = rest
    return out


def _by_group(rewards: Array, group: Array, weights: Any) -> Array:
    """Apply ``weights(G)``, a matrix on ascending values, within every group."""
    xp = array_namespace(rewards)
    out = xp.zeros_like(rewards)
    for number in xp.unique_values(group):
        place = xp.nonzero(group == number)[0]
        inside = xp.take(rewards, place)
        order = xp.argsort(inside)
        matrix = xp.asarray(weights(int(place.shape[0])), dtype=rewards.dtype, device=rewards.device)
        found = xp.matmul(matrix, xp.take(inside, order))
        back = xp.take(found, xp.argsort(order))
        at = group == number
        # the k-th member of the group takes the k-th value
        nth = xp.cumulative_sum(xp.astype(at, xp.int64)) - 1
        out = xp.where(at, xp.take(back, xp.where(at, nth, xp.zeros_like(nth))), out)
    return out


def _smallest_group(rewards: Array, group: Array, needed: int, why: str) -> None:
    sizes = group_sizes(rewards, group)
    index = _validate.first_true(array_namespace(rewards), sizes < needed)
    if index is not None:
        _validate.fail(
            "group", f"{why} needs {needed} responses, this group has {int(sizes[index])}", int(group[index]), index
        )


def best_of_others(rewards: Array, group: Array, size: int) -> Array:
    """Mean maximum over all sets of ``size`` other responses of the group, ``[B]``.

    Raises:
        ValueError: ``size < 1``; a group with fewer others.
    """
    size = _validate.integer("size", size, low=1)
    _, rewards, group = checked(rewards, group)
    _smallest_group(rewards, group, size + 1, f"a set of {size} others")
    return _by_group(rewards, group, lambda n: _weights_without(n, size))


def max_at_k_advantages(rewards: Array, group: Array, *, k: int = 2, baseline: MaxBaseline = "without_it") -> Array:
    r"""``k E_J[max(r_i, max_J r)] - k b``, ``[B]``; the mean over the group of the first is the unbiased ``k max@k``.

    ===================  ===========================================  ==========================================
    baseline             b                                            the expected update ascends
    ===================  ===========================================  ==========================================
    ``"none"``           0                                            ``max@k``
    ``"leave_one_out"``  mean best of k of the others; ``k < G``      ``max@k``
    ``"without_it"``     mean best of k - 1 of the others; ``k > 1``  ``max@k``: credit only where y_i is the best
    ``"group"``          mean best of k of all                        ``(1 - k/G) max@k``: nothing at ``k = G``
    ===================  ===========================================  ==========================================

    ``"without_it"`` at ``k = G`` gives ``k (best - second)`` to the best response and 0 to all others (verl's
    ``grpo_passk`` without its factor k and std).

    Raises:
        ValueError: ``k < 1``, a group with too few responses, a baseline that does not exist at this k.
    """
    k = _validate.integer("k", k, low=1)
    _validate.one_of("baseline", baseline, _BASELINES)
    if baseline == "without_it" and k == 1:
        _validate.fail("baseline", "'without_it' needs k > 1; at k = 1 use 'leave_one_out'")
    _, rewards, group = checked(rewards, group)
    _smallest_group(rewards, group, k + 1 if baseline == "leave_one_out" else k, f"k = {k} with baseline {baseline!r}")
    best = _by_group(rewards, group, lambda n: _weights_with(n, k - 1))
    if baseline == "leave_one_out":
        best = best - best_of_others(rewards, group, k)
    elif baseline == "without_it":
        best = best - best_of_others(rewards, group, k - 1)
    elif baseline == "group":
        best = best - _by_group(rewards, group, lambda n: np.tile(_expected_max(n, k), (n, 1)))
    return k * best


@takes_batch
def max_at_k(
    batch: TokenBatch, *, k: int = 2, baseline: MaxBaseline = "without_it", clip: Clip = (math.inf, math.inf)
) -> Loss:
    r"""Policy gradient of ``max@k`` with `max_at_k_advantages` and the sequence ratio; its gradient is ``-grad max@k``.

    On-policy, any rewards, any ``k <= G``. Binary rewards: ``max@k = pass@k`` and the gradient is
    ``-k (1-p)^{k-1} grad p``: hard prompts weigh more. Off-policy the ratio of one response does not correct the law of
    the other k - 1.

    Source: Walder and Karkhanis (2025).
    """
    advantage = batch.advantages
    if advantage is None:
        advantage = max_at_k_advantages(batch.total_rewards(), batch.groups(), k=k, baseline=baseline)
    return surrogate(batch, advantage, ratio=sequence_ratio, clip=clip, aggregate=sequence_mean)


def pass_at_k_advantages(rewards: Array, group: Array, *, k: int = 4) -> Array:
    r"""Group-normalised advantages of pass@k in closed form (pass@k training), binary rewards, ``[B]``.

    ``R = 1 - C(G-c, k)/C(G, k)`` is the group's pass rate, ``s = sqrt(R (1-R))``: ``(1-R)/s`` for right responses and
    ``(1 - R - C(G-c-1, k-1)/C(G-1, k-1))/s`` for wrong ones; 0 where ``R`` is 0 or 1.

    Raises:
        ValueError: rewards that are not 0 or 1, a group smaller than k.

    Source: Chen et al. (2025), analytical derivation.
    """
    k = _validate.integer("k", k, low=1)
    xp, rewards, group = checked(rewards, group)
    index = _validate.first_true(xp, (rewards != 0) & (rewards != 1))
    if index is not None:
        _validate.fail("rewards", "must be 0 or 1", float(rewards[index]), index)
    centred = max_at_k_advantages(rewards, group, k=k, baseline="group") / k
    rate = _by_group(rewards, group, lambda n: np.tile(_expected_max(n, k), (n, 1)))
    spread = rate * (1 - rate)
    flat = spread <= 16 * xp.finfo(rewards.dtype).eps
    return xp.where(flat, xp.zeros_like(rate), centred / xp.sqrt(xp.where(flat, xp.ones_like(spread), spread)))


@takes_batch
def pass_at_k(batch: TokenBatch, *, k: int = 4, clip: Clip = (0.2, 0.2)) -> Loss:
    r"""`pass_at_k_advantages` in the clipped token surrogate, mean over each response's tokens (pass@k training).

    One prompt: the gradient is ``-w_k(p) grad E[(r - p)/|y|]`` with the weight of these advantages
    (`klsim.objectives.prompt_weights`); at ``k = G`` every group has a pass rate of 0 or 1 and the gradient is 0.

    Source: Chen et al. (2025), arXiv:2508.10751.
    """
    advantage = batch.advantages
    if advantage is None:
        advantage = pass_at_k_advantages(batch.total_rewards(), batch.groups(), k=k)
    return surrogate(batch, advantage, clip=clip, aggregate=sequence_mean)


def maxrl_advantages(rewards: Array, group: Array, *, centred: bool = True) -> Array:
    r"""``(r - rbar)/rbar`` (``centred``) or ``r/rbar``, ``rbar`` the group's mean; 0 where none succeeds; ``[B]``.

    Raises:
        ValueError: negative rewards (their mean is no success rate).
    """
    xp, rewards, group = checked(rewards, group)
    _validate.budgets("rewards", xp, rewards)
    mean = group_mean(rewards, group)
    found = mean > 0
    top = rewards - mean if _validate.flag("centred", centred) else rewards
    return xp.where(found, top / xp.where(found, mean, xp.ones_like(mean)), xp.zeros_like(mean))


@takes_batch
def maxrl(batch: TokenBatch, *, centred: bool = True, clip: Clip = (math.inf, math.inf)) -> Loss:
    r"""Maximum-likelihood RL: the mean score of the *successful* responses, a truncated ``log p``.

    Binary rewards, on-policy: the gradient is that of ``-J_T``, ``J_T = -sum_{j=1}^T (1-p)^j/j``, so
    ``-(1 - (1-p)^T)/p grad p``, with ``T = G`` without centring and ``T = G - 1`` with it (centring a group without
    success is not possible, which costs one order). As G grows it is ``grad log p``.

    Source: arXiv:2602.02710 (2026).
    """
    advantage = batch.advantages
    if advantage is None:
        advantage = maxrl_advantages(batch.total_rewards(), batch.groups(), centred=centred)
    return surrogate(batch, advantage, ratio=sequence_ratio, clip=clip, aggregate=sequence_mean)
