r"""What normalising rewards by group or by batch does: exact prompt weights, and the variance of a constant baseline.

Binary rewards, Q prompts with success rates p, groups of G i.i.d. responses. An estimator ``A = (r - b)/s`` moves
prompt q by ``w_q grad p_q``:

=========  =========  ==========================================================================================
baseline   scale      ``w_q``, with ``m = c_q/G`` and ``M = C/(QG)`` the rates of the group and of the batch
=========  =========  ==========================================================================================
group      none       ``(G-1)/G``
group      group      ``E[sqrt(m(1-m))]/(p(1-p))``: `klsim.objectives.std_weight`
group      batch      ``E[m(1-m)/sqrt(M(1-M))]/(p(1-p))``, tends to ``(G-1)/G`` over the batch's std
batch      batch      ``E[(m(1-M)/p + (1-m)M/(1-p))/sqrt(M(1-M))]``, tends to one over the batch's std
=========  =========  ==========================================================================================

All four by `normalised_weights`, in time polynomial in Q and G (`klsim.objectives.prompt_weights` enumerates the
counts, for any estimator). A constant baseline b leaves the direction and changes the variance of a sample,

.. math:: V(m) - V(p) = (p-m)^2 E|S|^2 + 2 (p-m) E[(r-p)|S|^2],

so that the mean reward is the better baseline wherever the size of the score is nearly independent of success (long
responses), and not in general: `variance_of_baseline`, `best_baseline`.

Source: ``tricks-or-traps`` C2, C3.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy.special import gammaln, xlog1py, xlogy

from klsim import _validate

__all__ = ["best_baseline", "normalised_weights", "variance_of_baseline"]


def _binomial(count: int, p: float) -> np.ndarray:
    """``P(0 … count successes)``."""
    k = np.arange(count + 1)
    ways = gammaln(count + 1) - gammaln(k + 1) - gammaln(count - k + 1)
    return np.asarray(np.exp(ways + xlogy(k, p) + xlog1py(count - k, -p)))


def _of_the_others(laws: list[np.ndarray]) -> list[np.ndarray]:
    """Laws of the sum of all counts but one, for each of them."""
    before, after = [np.ones(1)], [np.ones(1)]
    for law in laws[:-1]:
        before.append(np.convolve(before[-1], law))
    for law in laws[:0:-1]:
        after.append(np.convolve(after[-1], law))
    return [np.convolve(a, b) for a, b in zip(before, after[::-1])]


def normalised_weights(
    success: Any,
    group_size: int,
    *,
    baseline: Literal["group", "batch"] = "group",
    scale: Literal["none", "group", "batch"] = "batch",
) -> np.ndarray:
    """What normalised advantages multiply ``grad p_q`` by, ``(Q,)``: ``E[(1/G) sum_k A_qk S_qk] = w_q grad p_q``.

    Population std; where it is 0 the advantage is 0, and the group stays in the average.

    Args:
        success: ``(Q,)`` in (0, 1), the prompts of one batch. group_size: >= 2.

    Raises:
        ValueError: as said, unknown names, more than a call may take (Q^2 G^2 numbers).

    Source: ``tricks-or-traps`` C2.
    """
    _validate.one_of("baseline", baseline, ("group", "batch"))
    _validate.one_of("scale", scale, ("none", "group", "batch"))
    size = _validate.integer("group_size", group_size, low=2)
    p = _validate.unit_interval("success", np, *_validate.numpy_arrays(success=success), open_ends=True)
    if p.ndim != 1 or p.size == 0:
        _validate.fail("success", f"must have shape (Q,) with Q >= 1, got {p.shape}")
    total = p.size * size
    _validate.fits("group_size", size, (size + 1) * (total + 1.0), each=40)
    _validate.fits("group_size", size, float(total) * p.size, each=24)
    own = np.arange(size + 1)[:, None]
    out = np.empty(p.size)
    for q, others in enumerate(_of_the_others([_binomial(size, float(rate)) for rate in p])):
        whole = own + np.arange(others.size)
        mean = (own if baseline == "group" else whole) / (size if baseline == "group" else total)
        spread = {"none": np.ones((1, 1)), "group": _std(own / size), "batch": _std(whole / total)}[scale]
        rest = _binomial(size - 1, float(p[q]))  # P(c) c/(G p) = P'(c - 1), P(c) (1 - c/G)/(1 - p) = P'(c)
        right, wrong = np.r_[0.0, rest][:, None], np.r_[rest, 0.0][:, None]
        step = (right * (1 - mean) + wrong * mean) / np.where(spread > 0, spread, np.inf)
        out[q] = np.sum(step @ others) if step.shape[1] > 1 else np.sum(step)
    return out


def _std(rate: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(rate * (1 - rate)))


def _outcomes(probs: Any, score: Any, reward: Any, extra: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(probs, mean-free score, squared sizes)``."""
    p, score, reward = _validate.numpy_arrays(probs=probs, score=score, reward=reward)
    _validate.unit_interval("probs", np, p)
    if p.ndim != 1 or p.size == 0 or score.ndim != 2 or score.shape[0] != p.size or reward.shape != p.shape:
        shapes = f"{p.shape}, {score.shape}, {reward.shape}"
        _validate.fail("probs", f"needs probs (A,), score (A, P), reward (A,), got {shapes}")
    if abs(p.sum() - 1) > 1e-9:
        _validate.fail("probs", "must sum to 1", float(p.sum()))
    for name, x in (("score", score), ("reward", reward)):
        index = _validate.first_true(np, ~(np.abs(x) <= 1e75))
        if index is not None:
            _validate.fail(name, "must be finite (and at most 1e75 in size)", float(x[index]), index)
    return p, reward, np.sum(score * score, axis=1) + _validate.real("extra", extra, low=0.0, high=1e150)


def variance_of_baseline(probs: Any, score: Any, reward: Any, baseline: float, *, extra: float = 0.0) -> float:
    """Trace of the covariance of ``(r - b) S`` for one sample, ``E[(r-b)^2 |S|^2] - |E[(r-b) S]|^2``.

    Args:
        probs: ``(A,)``, of the outcomes. score: ``(A, P)``, ``grad log`` of their probabilities, mean 0.
        reward: ``(A,)``. baseline: b.
        extra: squared size of a part of the score that is independent of outcome and reward (a long response's other
            tokens), mean 0.
    """
    p, reward, size = _outcomes(probs, score, reward, extra)
    b = _validate.real("baseline", baseline, low=-1e75, high=1e75)
    (score,) = _validate.numpy_arrays(score=score)
    mean = (p * (reward - b)) @ score
    return float(p @ ((reward - b) ** 2 * size) - mean @ mean)


def best_baseline(probs: Any, score: Any, reward: Any, *, extra: float = 0.0) -> float:
    """The constant baseline of least variance, ``E[r |S|^2] / E|S|^2``; arguments as `variance_of_baseline`.

    Raises:
        ValueError: scores that are all 0 (every baseline is as good).
    """
    p, reward, size = _outcomes(probs, score, reward, extra)
    total = float(p @ size)
    if total == 0:
        _validate.fail("score", "is 0 wherever there is mass: every baseline is as good")
    return float(p @ (reward * size)) / total
