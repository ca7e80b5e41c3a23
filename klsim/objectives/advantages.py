r"""Advantage estimators: ``(r - baseline) / scale``, the two chosen separately.

A baseline and a scale are functions ``(rewards [B], group [B]) -> [B]``; `advantages` puts them together.

=====================  ====================================  =========================
method                 baseline                              scale
=====================  ====================================  =========================
REINFORCE              `no_baseline`                         `no_scale`
RLOO                   `leave_one_out_mean`                  `no_scale`
GRPO, DAPO, GSPO       `group_mean`                          `group_std`
Dr.GRPO                `group_mean`                          `no_scale`
REINFORCE++            `batch_mean`                          `batch_std`
Lite PPO               `group_mean`                          `batch_std`
=====================  ====================================  =========================

Standard deviations are population ones unless a name says ``sample`` (divisor n - 1, as ``torch.std``: TRL, verl and
OpenRLHF), which differ by the factor ``sqrt(n/(n-1))``, the same for all prompts with groups of one size. Where all
rewards agree (spread at the level of rounding) the advantage is 0. Expected updates of binary rewards, i.i.d. group
of size G (``tricks-or-traps`` C2): the group mean alone multiplies ``grad p`` by ``(G-1)/G``; with the group's std
the factor is `std_weight`, which tends to ``1/sqrt(p(1-p))``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

from klsim import _validate

__all__ = [
    "Baseline",
    "Scale",
    "advantages",
    "batch_mean",
    "batch_sample_std",
    "batch_std",
    "beta_scale",
    "group_mean",
    "group_sample_std",
    "group_sizes",
    "group_std",
    "leave_one_out_mean",
    "no_baseline",
    "no_scale",
    "prompt_weights",
    "std_weight",
]

Array = Any
Baseline = Callable[[Array, Array], Array]
"""Rewards and groups ``[B]`` to the baseline of every response, ``[B]``."""
Scale = Callable[[Array, Array], Array]
"""Rewards and groups ``[B]`` to what every advantage is divided by, ``[B]``."""


def checked(rewards: Array, group: Array, name: str = "rewards", group_name: str = "group") -> tuple[Any, Array, Array]:
    """``(xp, rewards, group)``: finite numbers ``[B]``, B >= 1, and as many group numbers of the same kind."""
    xp, rewards = _validate.arrays(**{name: rewards})
    if rewards.ndim != 1 or rewards.shape[0] == 0:
        _validate.fail(name, f"needs shape [B] with B >= 1, got {list(rewards.shape)}")
    _validate.finite(name, xp, rewards)
    if isinstance(rewards, np.ndarray):
        group = _validate.integers(group_name, group)
    elif not is_array_api_obj(group) or isinstance(group, np.ndarray) or not xp.isdtype(group.dtype, "integral"):
        raise TypeError(f"{group_name}: must hold integers, of the kind of {name}, got {type(group).__name__}")
    if tuple(group.shape) != tuple(rewards.shape):
        _validate.fail(group_name, f"must have shape {list(rewards.shape)}, got {list(group.shape)}")
    return xp, rewards, group


def _membership(rewards: Array, group: Array) -> tuple[Any, Array]:
    """``(xp, one-hot [B, number of groups])``."""
    xp = array_namespace(rewards)
    distinct, inverse = xp.unique_inverse(group)
    numbers = xp.arange(distinct.shape[0], device=rewards.device)
    return xp, xp.astype(inverse[:, None] == numbers[None, :], rewards.dtype)


def _group_average(values: Array, group: Array) -> Array:
    xp, member = _membership(values, group)
    totals = xp.matmul(xp.matrix_transpose(member), values)
    return xp.matmul(member, totals / xp.sum(member, axis=0))


def _size(xp: Any, rewards: Array) -> Array:
    """What rewards are divided by before they are summed or squared: 1, unless that could overflow or vanish."""
    top = xp.max(xp.abs(rewards))
    return xp.where(((top > 1e15) | (top < 1e-15)) & (top > 0), top, xp.ones_like(top))


def _scaled_average(rewards: Array, group: Array) -> Array:
    size = _size(array_namespace(rewards), rewards)
    return _group_average(rewards / size, group) * size


def group_sizes(rewards: Array, group: Array) -> Array:
    """Number of responses in the group of every response, ``[B]``."""
    _, rewards, group = checked(rewards, group)
    xp, member = _membership(rewards, group)
    return xp.matmul(member, xp.sum(member, axis=0))


def _at_least_two(rewards: Array, group: Array) -> Array:
    sizes = group_sizes(rewards, group)
    index = _validate.first_true(array_namespace(rewards), sizes < 2)
    if index is not None:
        _validate.fail(
            "group", "this response is alone in its group; a group baseline needs two", int(group[index]), index
        )
    return sizes


def no_baseline(rewards: Array, group: Array) -> Array:
    """The baseline 0 of every response, ``[B]``."""
    xp, rewards, _ = checked(rewards, group)
    return xp.zeros_like(rewards)


def group_mean(rewards: Array, group: Array) -> Array:
    """Mean reward of the group, the response itself included.

    Raises:
        ValueError: a group of one (its advantage would be 0 whatever the reward).
    """
    _, rewards, group = checked(rewards, group)
    _at_least_two(rewards, group)
    return _scaled_average(rewards, group)


def leave_one_out_mean(rewards: Array, group: Array) -> Array:
    """Mean reward of the other responses of the group: ``r - b`` is ``G/(G-1)`` times that of `group_mean`.

    Raises:
        ValueError: a group of one.
    """
    xp, rewards, group = checked(rewards, group)
    sizes = _at_least_two(rewards, group)
    size = _size(xp, rewards)
    rewards = rewards / size
    return (sizes * _group_average(rewards, group) - rewards) / (sizes - 1) * size


def batch_mean(rewards: Array, group: Array) -> Array:
    """Mean reward of the batch.

    Raises:
        ValueError: a batch of one.
    """
    xp, rewards, _ = checked(rewards, group)
    if rewards.shape[0] < 2:
        _validate.fail("rewards", "a batch baseline needs two responses, got 1")
    size = _size(xp, rewards)
    return xp.zeros_like(rewards) + xp.mean(rewards / size) * size


def no_scale(rewards: Array, group: Array) -> Array:
    """The scale 1 of every response, ``[B]``."""
    xp, rewards, _ = checked(rewards, group)
    return xp.ones_like(rewards)


def group_std(rewards: Array, group: Array) -> Array:
    """Population standard deviation of the group's rewards."""
    xp, rewards, group = checked(rewards, group)
    size = _size(xp, rewards)
    rewards = rewards / size
    centred = rewards - _group_average(rewards, group)
    return xp.sqrt(_group_average(centred * centred, group)) * size


def batch_std(rewards: Array, group: Array) -> Array:
    """Population standard deviation of the batch's raw rewards."""
    xp, rewards, _ = checked(rewards, group)
    size = _size(xp, rewards)
    return xp.zeros_like(rewards) + xp.std(rewards / size) * size


def group_sample_std(rewards: Array, group: Array) -> Array:
    """Sample standard deviation of the group's rewards (divisor G - 1).

    Raises:
        ValueError: a group of one.
    """
    xp, rewards, group = checked(rewards, group)
    sizes = _at_least_two(rewards, group)
    return group_std(rewards, group) * xp.sqrt(sizes / (sizes - 1))


def batch_sample_std(rewards: Array, group: Array) -> Array:
    """Sample standard deviation of the batch's raw rewards (divisor B - 1).

    Raises:
        ValueError: a batch of one.
    """
    xp, rewards, _ = checked(rewards, group)
    if rewards.shape[0] < 2:
        _validate.fail("rewards", "a sample standard deviation needs two responses, got 1")
    size = _size(xp, rewards)
    return xp.zeros_like(rewards) + xp.std(rewards / size, correction=1) * size


def beta_scale(alpha: float, beta: float) -> Scale:
    r"""Density of Beta(alpha, beta) at the group's success rate, as a scale (BNPO's advantages); binary rewards.

    ``(1, 1)`` is no scale, ``(3/2, 3/2)`` is ``8/pi sqrt(p(1-p))``: GRPO up to a constant. The paper re-estimates the
    two parameters from the batch's success rates at every step; here they are given.

    Args:
        alpha, beta: in [1, 1e6]; the density's relative error is 1e-15 times their size times their logarithm.

    Raises:
        ValueError: a parameter < 1 (the density would be infinite at 0 or 1) or > 1e6; rewards that are not 0 or 1.

    Source: Xiao et al. (2025), arXiv:2506.02864.
    """
    alpha = _validate.real("alpha", alpha, low=1.0, high=1e6)
    beta = _validate.real("beta", beta, low=1.0, high=1e6)
    log_norm = math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta)

    def scale(rewards: Array, group: Array) -> Array:
        xp = array_namespace(rewards)
        index = _validate.first_true(xp, (rewards != 0) & (rewards != 1))
        if index is not None:
            _validate.fail("rewards", "must be 0 or 1", float(rewards[index]), index)
        rate = _group_average(rewards, group)
        inside = (rate > 0) & (rate < 1)  # at the ends the density is 0, or that of a parameter 1
        safe = xp.where(inside, rate, xp.full_like(rate, 0.5))
        density = xp.exp(log_norm + (alpha - 1) * xp.log(safe) + (beta - 1) * xp.log1p(-safe))
        end = math.exp(log_norm) if min(alpha, beta) == 1 else 0.0
        return xp.where(inside, density, end * rate ** (alpha - 1) * (1 - rate) ** (beta - 1))

    return scale


def advantages(
    rewards: Array,
    group: Array,
    *,
    baseline: Baseline = group_mean,
    scale: Scale = no_scale,
    epsilon: float = 0.0,
) -> Array:
    """``(r - baseline) / (scale + epsilon)``, ``[B]``; 0 where the scale is 0 up to rounding.

    A spread counts as rounding below ``16 eps max|r|``: equal rewards give 0, not noise blown up to size 1.

    Raises:
        ValueError: what the baseline raises; a negative ``epsilon``.
    """
    baseline, scale = _validate.function("baseline", baseline), _validate.function("scale", scale)
    xp, rewards, group = checked(rewards, group)
    epsilon = _validate.real("epsilon", epsilon, low=0.0)
    spread = scale(rewards, group)
    rounding = 16 * xp.finfo(rewards.dtype).eps * xp.max(xp.abs(rewards))
    flat = spread <= rounding
    centred = rewards - baseline(rewards, group)
    _validate.representable("rewards", xp, centred)
    return xp.where(flat, xp.zeros_like(centred), centred / (xp.where(flat, xp.ones_like(spread), spread) + epsilon))


def prompt_weights(estimator: Baseline, success: Any, group_size: int) -> np.ndarray:
    r"""What an advantage estimator multiplies ``grad p_q`` of every prompt by, binary rewards, ``(Q,)``.

    ``w_q = E[ 1/(QG) sum_{k in q} A_k (r_k/p_q - (1 - r_k)/(1 - p_q)) ]`` over the counts of successes, since
    ``E[grad log pi(y) | r] = grad p/p`` if right and ``-grad p/(1-p)`` if wrong. Exact, by enumerating the counts.

    Args:
        estimator: ``(rewards [QG], group [QG]) -> advantages [QG]``. success: ``(Q,)`` in (0, 1).

    Raises:
        TypeError, ValueError: what the estimator refuses, or returns; success outside (0, 1); more than 10^7 counts.
    """
    import itertools

    if not callable(estimator):
        raise TypeError(f"estimator: must be a function of rewards and group, got {type(estimator).__name__}")
    group_size = _validate.integer("group_size", group_size, low=1)
    p = np.atleast_1d(_validate.unit_interval("success", np, *_validate.numpy_arrays(success=success), open_ends=True))
    if p.ndim != 1:
        _validate.fail("success", f"must have shape (Q,), got {p.shape}")
    if (group_size + 1) ** min(len(p), 24) > 10**7:  # 2^24 is more
        _validate.fail("group_size", "has more than 10^7 counts of successes to enumerate", group_size)
    group = np.repeat(np.arange(len(p)), group_size)
    chance, right, wrong = _chances(p, group_size)
    prompts = np.arange(len(p))
    out = np.zeros(len(p))
    for counts in itertools.product(range(group_size + 1), repeat=len(p)):
        rewards = (np.arange(group_size) < np.array(counts)[:, None]).astype(float).ravel()
        advantage = _estimate(estimator, rewards, group, group_size)
        others = np.where(np.eye(len(p), dtype=bool), 1.0, chance[prompts, counts]).prod(axis=1)
        up = right[prompts, counts] * np.bincount(group, advantage * rewards)
        down = wrong[prompts, counts] * np.bincount(group, advantage * (1 - rewards))
        out += others * (up - down) / len(group)
    return out


def _chances(p: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(P(c), P(c)/p, P(c)/(1 - p))`` of ``c = 0 … size`` successes, ``(Q, size + 1)``; nothing is divided by p."""
    from scipy.stats import binom

    c, rate = np.arange(size + 1), p[:, None]
    right = size / np.maximum(c, 1) * binom.pmf(c - 1, size - 1, rate)  # C(G, c) c = G C(G - 1, c - 1)
    wrong = size / np.maximum(size - c, 1) * binom.pmf(c, size - 1, rate)
    return binom.pmf(c, size, rate), right, wrong


def _estimate(estimator: Baseline, rewards: np.ndarray, group: np.ndarray, group_size: int) -> np.ndarray:
    try:
        found = estimator(rewards, group)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"estimator: refuses groups of group_size = {group_size} ({error})") from None
    (advantage,) = _validate.numpy_arrays(estimator=found)
    if advantage.shape != rewards.shape:
        _validate.fail("estimator", f"must return shape {rewards.shape}, got {advantage.shape}")
    return _validate.finite("estimator", np, advantage)


def std_weight(success: Any, group_size: int) -> np.ndarray:
    r"""``E[sqrt(c(G-c))/G] / (p (1-p))``, ``c ~ Bin(G, p)``: what group normalisation multiplies ``grad p`` by.

    Binary rewards, i.i.d. group of size G, population std. It is ``1/sqrt(p(1-p))`` as G grows and stays
    below ``sqrt(G-1)`` at fixed G. ``success`` in (0, 1), any shape.

    Source: ``tricks-or-traps`` C2.
    """
    group_size = _validate.integer("group_size", group_size, low=2)
    p = _validate.unit_interval("success", np, *_validate.numpy_arrays(success=success), open_ends=True)
    _validate.fits("group_size", group_size, p.size * group_size, each=40)
    c = np.arange(1, group_size)  # C(G, c) c (G - c) = G (G - 1) C(G - 2, c - 1): nothing is divided by p
    mixed = _binomial(c - 1, group_size - 2, p[..., None]) / np.sqrt(c * (group_size - c))
    return np.asarray((group_size - 1) * np.sum(mixed, axis=-1))


def _binomial(c: np.ndarray, n: int, p: np.ndarray) -> np.ndarray:
    if n > 1000:  # C(n, c) overflows
        from scipy.stats import binom

        return np.asarray(binom.pmf(c, n, p))
    from scipy.special import comb  # scipy.stats takes half a second to import

    return np.asarray(comb(n, c) * p**c * (1 - p) ** (n - c))
