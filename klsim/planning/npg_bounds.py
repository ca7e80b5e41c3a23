r"""Bounds for natural policy gradient with resets to a comparator's states, horizon H, rewards in [0, 1] at the end.

``pi_{t+1}(a|s) ~ pi_t(a|s) exp(eta Qhat_t(s, a))`` at every state, ``Qhat`` in [0, 1], ``KL = KL(mu‖pi_0)`` of
trajectories:

.. math:: J(\mu) - \frac1T \sum_{t<T} J(\pi_t) \le \sqrt{\frac{H\,KL}{2T}} + \frac{2H}{T} \sum_t e_t,
    \qquad \eta = \sqrt{\frac{8\,KL}{HT}}

with ``e_t`` as in `critic_error`: by the performance-difference lemma the gap is a sum over the H levels, and
``KL(mu‖pi_t)`` falls at every state by at least ``eta <mu - pi_t, Qhat_t> - eta^2/8`` (Hoeffding). With the exact
critic improvement is monotone and for any step size ``J(mu) - J(pi_T) <= (KL/eta + H)/T``.

Source: ``prefixrl`` C3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems.token_tree import check_levels, visit_log_probs

__all__ = ["average_gap_bound", "critic_error", "last_gap_bound", "npg_step_size"]


def _setting(kl: float, horizon: int, steps: int) -> tuple[float, int, int]:
    return (
        _validate.real("kl", kl, low=0.0, high=1e100),
        _validate.integer("horizon", horizon, low=1),
        _validate.integer("steps", steps, low=1),
    )


def npg_step_size(kl: float, horizon: int, steps: int) -> float:
    """``eta = sqrt(8 KL/(H T))``, which minimises ``KL/(eta T) + H eta/8``; ``kl`` >= 0 in nats."""
    kl, horizon, steps = _setting(kl, horizon, steps)
    return math.sqrt(8 * kl / (horizon * steps))


def average_gap_bound(kl: float, horizon: int, steps: int, critic_error: float = 0.0) -> float:
    """``sqrt(H KL/(2T)) + 2 H e``: bound on ``J(mu)`` minus the mean of ``J(pi_t)``, t < T.

    Args:
        critic_error: the mean over the steps of `critic_error`.
    """
    kl, horizon, steps = _setting(kl, horizon, steps)
    error = _validate.real("critic_error", critic_error, low=0.0)
    return math.sqrt(horizon * kl / (2 * steps)) + 2 * horizon * error


def last_gap_bound(kl: float, horizon: int, steps: int, lr: float) -> float:
    """``(KL/eta + H)/T``: bound on ``J(mu) - J(pi_T)`` after T steps with the exact critic and step size ``lr`` > 0."""
    kl, horizon, steps = _setting(kl, horizon, steps)
    return (kl / _validate.real("lr", lr, low=0.0, open_low=True) + horizon) / steps


def critic_error(
    log_comparator: Sequence[Any],
    log_policy: Sequence[Any],
    q_value: Sequence[Any],
    estimate: Sequence[Any],
    *,
    squared: bool = False,
) -> np.ndarray:
    """``E_{h ~ Unif} E_{s ~ d^mu_h} E_{a ~ (mu + pi)/2} |Q(s, a) - Qhat(s, a)|``, ``(...)``.

    Args:
        log_comparator, log_policy: ``mu`` and ``pi``, levels ``(..., V**t, V)``. q_value, estimate: levels.
        squared: the root of the mean square instead, an upper bound.
    """
    squared = _validate.flag("squared", squared)
    named = {"log_comparator": log_comparator, "log_policy": log_policy, "q_value": q_value, "estimate": estimate}
    trees = {}
    for name, levels in named.items():
        _, _, values = check_levels(name, levels, policy=name.startswith("log"))
        trees[name] = [_validate.numpy_arrays(**{f"{name}[{t}]": level})[0] for t, level in enumerate(values)]
        if [x.shape[-2:] for x in trees[name]] != [x.shape[-2:] for x in trees["log_comparator"]]:
            _validate.fail(name, "must be a tree of the vocabulary and horizon of log_comparator")
    mu, pi, q, guess = trees.values()
    visits, total = visit_log_probs(mu), 0.0
    for t in range(len(mu)):
        _validate.finite(f"q_value[{t}]", np, q[t])
        _validate.finite(f"estimate[{t}]", np, guess[t])
        off = np.abs(q[t] - guess[t])
        law = (np.exp(mu[t]) + np.exp(pi[t])) / 2
        at_state = np.sum(law * (off**2 if squared else off), axis=-1)
        total = total + np.sum(np.exp(visits[t]) * at_state, axis=-1)
    mean = np.asarray(total / len(mu))
    return np.sqrt(mean) if squared else mean
