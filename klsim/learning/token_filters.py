r"""Proxies made by dropping rare tokens, and what forces do to the tokens that are dropped and kept.

A threshold keeps the tokens S, with the filtered mass ``m = 1 - pi(S)`` ("noise"); the proxy is pi on S, renormalised
(`klsim.objectives.min_p_proxy` for ``kappa max pi``). Along ``zdot = f`` probabilities move by
``pi_i (f_i - pi.f)`` and the mass of an event by their sum (`mass_rate`):

=====================================  ==========================  ==================================================
force                                  f                           filtered mass
=====================================  ==========================  ==================================================
minus grad KL(proxy‖pi), live proxy    ``proxy - pi``              falls: `denoising_rate`
the same, proxy of an older policy     ``proxy - pi``              either; ``f_i -> proxy_i`` as ``pi_i -> 0``
entropy bonus                          ``-pi (log pi + H)``        rises for all thresholds: `entropy_noise_rate`
expected reward                        ``pi (r - V)``              by the rewards
=====================================  ==========================  ==================================================

A rare token that is drawn with success ``r`` among samples of success ``V`` has the group-normalised advantage of
`token_advantage`; a penalty that fires on its negative samples outweighs the push down above `critical_pull`.

Source: ``lp-reg`` C1-C5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln, xlog1py, xlogy

from klsim import _validate
from klsim.distributions import entropy
from klsim.learning.softmax_step import population_gradient

__all__ = [
    "TokenAdvantage",
    "critical_pull",
    "denoising_rate",
    "entropy_force",
    "entropy_noise_rate",
    "kept_tokens",
    "live_rates",
    "mass_rate",
    "token_advantage",
]


def kept_tokens(log_policy: Any, *, ratio: float | None = None, threshold: float | None = None) -> np.ndarray:
    """Which tokens have ``pi > ratio max pi``, or ``pi > threshold``: boolean ``(..., A)``.

    Only a ratio below 1 keeps a token for certain.

    Args:
        log_policy: ``(..., A)``. ratio: min-p, in [0, 1]. threshold: in [0, 1]; one of the two.
    """
    (log_policy,) = _validate.numpy_arrays(log_policy=log_policy)
    _validate.log_probs("log_policy", np, log_policy)
    if (ratio is None) == (threshold is None):
        _validate.fail("ratio", "give it or threshold, one of the two")
    with np.errstate(divide="ignore"):
        if ratio is not None:
            floor = np.log(_validate.probability("ratio", ratio)) + log_policy.max(axis=-1, keepdims=True)
        else:
            floor = np.log(_validate.probability("threshold", threshold))
    return np.asarray(log_policy > floor)


def _event(log_policy: Any, name: str, event: Any) -> tuple[np.ndarray, np.ndarray]:
    """``pi`` and a boolean event, both of the shape that they broadcast to."""
    (log_policy,) = _validate.numpy_arrays(log_policy=log_policy)
    _validate.log_probs("log_policy", np, log_policy)
    event = _validate.boolean_mask(name, event)
    _validate.same_last_axis(log_policy=log_policy, **{name: event})
    pi, event = np.broadcast_arrays(np.exp(log_policy), event)
    return pi, event


def mass_rate(log_policy: Any, force: Any, event: Any) -> np.ndarray:
    """``d/dt pi(event) = sum_event pi (f - pi.f)`` while the logits move along ``force``, ``(...)``.

    Args:
        log_policy, force: ``(..., A)``. event: boolean ``(..., A)``.
    """
    pi, event = _event(log_policy, "event", event)
    (force,) = _validate.numpy_arrays(force=force)
    _validate.same_last_axis(log_policy=pi, force=force)
    _validate.finite("force", np, force)
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.sum(pi * (force - np.sum(pi * force, axis=-1, keepdims=True)) * event, axis=-1)
    _validate.representable("force", np, found)
    return np.asarray(found)


def _parts(log_policy: Any, kept: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``pi``, ``kept`` and the filtered mass ``(..., 1)``."""
    pi, kept = _event(log_policy, "kept", kept)
    index = _validate.first_true(np, ~np.any(kept & (pi > 0), axis=-1))
    if index is not None:
        _validate.fail("kept", "keeps no mass: there is no proxy", index=index)
    return pi, kept, np.sum(np.where(kept, 0.0, pi), axis=-1, keepdims=True)


def live_rates(log_policy: Any, kept: Any) -> np.ndarray:
    r"""Rates of all probabilities under minus the gradient of ``KL(proxy‖pi)``, proxy of the same policy, ``(..., A)``.

    With ``c = m/(1-m)``, ``a = sum_S pi^2``, ``b = sum_noise pi^2``: ``pi_i (c (pi_i - a) + b)`` if kept,
    ``-pi_i (pi_i + c a - b)`` if not. A kept token loses iff ``pi_i < a - b/c``: mass goes from noise *and* from rare
    kept tokens to the head. Source: ``lp-reg`` C2.
    """
    pi, kept, m = _parts(log_policy, kept)
    ratio = m / (1 - m)
    a = np.sum(np.where(kept, pi * pi, 0.0), axis=-1, keepdims=True)
    b = np.sum(np.where(kept, 0.0, pi * pi), axis=-1, keepdims=True)
    return np.asarray(np.where(kept, pi * (ratio * (pi - a) + b), -pi * (pi + ratio * a - b)))


def denoising_rate(log_policy: Any, kept: Any) -> np.ndarray:
    r"""Rate of the filtered mass under the live proxy: ``-(1-m) sum_noise pi^2 - m^2/(1-m) sum_S pi^2``, ``(...)``."""
    pi, kept, m = _parts(log_policy, kept)
    a, b = (np.sum(np.where(part, pi * pi, 0.0), axis=-1) for part in (kept, ~kept))
    m = m[..., 0]
    return np.asarray(-(1 - m) * b - m * m / (1 - m) * a)


def entropy_force(log_policy: Any) -> np.ndarray:
    """Gradient of the entropy in the logits, ``-pi (log pi + H)``, ``(..., A)``; 0 without support."""
    (log_policy,) = _validate.numpy_arrays(log_policy=log_policy)
    _validate.log_probs("log_policy", np, log_policy)
    return population_gradient(log_policy, -np.where(np.isneginf(log_policy), 0.0, log_policy))


def entropy_noise_rate(log_policy: Any, kept: Any) -> np.ndarray:
    r"""Rate of the filtered mass under an entropy bonus, ``m (1-m) (E_S[h] - E_noise[h])``, ``(...)``.

    With ``h = pi (log pi + H)``. At least 0 if every kept token is at least as likely as every other.

    Source: ``lp-reg`` C5.
    """
    pi, kept, m = _parts(log_policy, kept)
    (log_policy,) = _validate.numpy_arrays(log_policy=log_policy)
    h = pi * (np.where(np.isneginf(log_policy), 0.0, log_policy) + np.asarray(entropy(log_policy))[..., None])
    inside, outside = (np.sum(np.where(part, pi * h, 0.0), axis=-1) for part in (kept, ~kept))
    m = m[..., 0]
    return np.asarray(m * inside - (1 - m) * outside)


@dataclass(frozen=True)
class TokenAdvantage:
    """Group-normalised advantage of the samples of one token.

    Attributes:
        mean: ``E[A | token]``. negative: ``P(A < 0 | token)``.
    """

    mean: float
    negative: float


def token_advantage(success: float, overall: float, group_size: int, *, epsilon: float = 0.0) -> TokenAdvantage:
    """Of a token with rate ``success`` in a group whose other samples succeed with rate ``overall``; 0/1 rewards.

    ``A = (r - mean)/(std + epsilon)``, population std, 0 in a group without contrast; exact, by the binomial law of the
    other successes.

    Args:
        success, overall: in [0, 1]. group_size: >= 2. epsilon: >= 0.
    """
    success, overall = _validate.probability("success", success), _validate.probability("overall", overall)
    size = _validate.integer("group_size", group_size, low=2)
    epsilon = _validate.real("epsilon", epsilon, low=0.0)
    others = np.arange(size)
    ways = gammaln(size) - gammaln(others + 1) - gammaln(size - others)
    law = np.exp(ways + xlogy(others, overall) + xlog1py(size - 1 - others, -overall))
    mean, negative = 0.0, 0.0
    for reward, chance in ((1.0, success), (0.0, 1 - success)):
        rate = (others + reward) / size
        spread = np.sqrt(rate * (1 - rate))
        safe = np.where(spread > 0, spread + epsilon, 1.0)
        advantage = np.where(spread > 0, (reward - rate) / safe, 0.0)
        mean += chance * float(law @ advantage)
        negative += chance * float(law @ (advantage < 0))
    return TokenAdvantage(mean, negative)


def critical_pull(advantage: TokenAdvantage, proxy: float) -> float:
    """``beta* = -E[A|s] / (P(A < 0|s) proxy_s)``: with less, a penalty on the negative samples of a rare token loses.

    A negative sample pulls its logit up by ``beta (proxy_s - pi_s)``, a sample pushes it by ``A (1 - pi_s)``; to
    leading order in a small ``pi_s``. 0 where the token has an advantage anyway.

    Args:
        proxy: the token's probability in a proxy that is held fixed, in (0, 1].
    """
    _validate.instance("advantage", advantage, TokenAdvantage)
    proxy = _validate.probability("proxy", proxy)
    if proxy == 0:
        _validate.fail("proxy", "must be > 0: a filtered token is not pulled", proxy)
    if advantage.mean >= 0:
        return 0.0
    return -advantage.mean / (advantage.negative * proxy)
