r"""Advantages from rewards on tagged steps (GRPO-MR): the outcome in its group, each step's reward in its own tag.

.. math::
    A_t = \alpha\,\frac{R_k - \mu_{group}}{\sigma_{group}} + (1 - \alpha)\,\frac{r_t - \mu_{tag}}{\sigma_{tag}}

with k the trajectory of step t, the tag's statistics over all steps of the batch that carry it, population standard
deviations, and 0 where one is 0: equal outcomes, a tag with equal rewards, a tag seen once.

The second part sums to 0 in every tag and does not change under ``r -> c_tag r + d_tag`` with ``c_tag > 0``: how much a
tag pays cannot matter, only which of its steps are paid.

Source: Zhang et al. (2025), arXiv:2507.22844, Eqs. 2-4; ``rlvmr`` C1-C3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from klsim import _validate
from klsim.objectives.advantages import advantages, checked, group_mean, group_std

__all__ = ["grpo_mr_advantages", "tag_advantages"]

Array = Any


def tag_advantages(rewards: Array, tag: Array, *, epsilon: float = 0.0) -> Array:
    """``(r - mean of the tag) / (population std of the tag + epsilon)`` of every step, ``[N]``; 0 where the std is 0.

    Args:
        rewards, tag: one a step, ``[N]``; tags are integers, in any order.

    Raises:
        TypeError, ValueError: shapes, rewards that are not finite, a negative ``epsilon``.
    """
    xp, rewards, tag = checked(rewards, tag, group_name="tag")
    # every step twice: the same means and deviations, and no tag is alone
    twice = advantages(
        xp.concat([rewards, rewards]), xp.concat([tag, tag]), baseline=group_mean, scale=group_std, epsilon=epsilon
    )
    return twice[: rewards.shape[0]]


def grpo_mr_advantages(
    outcome: Array,
    group: Array,
    rewards: Array,
    tag: Array,
    trajectory: Array,
    *,
    alpha: float = 0.5,
    epsilon: float = 0.0,
) -> Array:
    """``alpha`` times the outcome normalised in its group, plus ``1 - alpha`` times `tag_advantages`, ``[N]``.

    Args:
        outcome, group: one a trajectory, ``[B]``; trajectories of one environment share a group.
        rewards, tag, trajectory: one a step, ``[N]``; ``trajectory`` is the step's index into ``outcome``.
        alpha: in [0, 1]; 1 is GRPO. epsilon: added to both standard deviations.

    Raises:
        TypeError, ValueError: shapes, a group of one trajectory, a trajectory out of range, ``alpha`` outside [0, 1].
    """
    alpha = _validate.probability("alpha", alpha)
    local = tag_advantages(rewards, tag, epsilon=epsilon)
    overall = advantages(outcome, group, baseline=group_mean, scale=group_std, epsilon=epsilon)
    xp = array_namespace(overall)
    if isinstance(overall, np.ndarray):
        trajectory = _validate.integers("trajectory", trajectory, low=0, high=overall.shape[0] - 1)
    elif bool(xp.any((trajectory < 0) | (trajectory >= overall.shape[0]))):
        _validate.fail("trajectory", f"must be at least 0 and below {overall.shape[0]}")
    if tuple(trajectory.shape) != tuple(local.shape):
        _validate.fail("trajectory", f"must have shape {list(local.shape)}, got {list(trajectory.shape)}")
    return alpha * xp.take(overall, trajectory, axis=0) + (1 - alpha) * local
