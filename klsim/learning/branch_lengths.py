r"""Lengths of right and wrong answers under group-normalised updates, exactly.

One token chooses the branch (right with probability p), then the answer has a capped geometric length L: it goes on
with the probability q of its branch. A group of n such answers moves the three logits by

.. math:: \sum_i A_i m_i\, s_i / D, \qquad s_i = (L_i - 1)(1 - q) - q [L_i < cap]

(`continue_score`; ``c_i - p`` for the success), with the advantage A of the group's sample deviation, a multiplier m
(STCR: wrong answers that are longer than the mean right one) and a denominator D: a constant, or the tokens of the
group, ``sum_i (L_i + 1)``. `length_drift` is its expectation.

Without a multiplier a constant D gives lengths no drift: A is constant inside a branch and ``E[s | branch] = 0``. The
token mean does: ``1/D`` falls in L while ``s`` rises, so that wrong answers grow and right ones shrink.

Source: ``apo`` C5.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from klsim import _validate

__all__ = ["LengthDrift", "capped_geometric", "continue_score", "length_drift", "mean_length"]

Scaled = Literal["wrong", "all"]


class LengthDrift(NamedTuple):
    """Expected derivatives: of the success logit, and of the continue logits of the right and the wrong branch."""

    success: float
    right: float
    wrong: float


def _branch(proceed: Any, cap: Any, name: str = "proceed") -> tuple[np.ndarray, int]:
    proceed = _validate.unit_interval(name, np, *_validate.numpy_arrays(**{name: proceed}), open_ends=True)
    return np.asarray(proceed, dtype=np.float64), _validate.integer("cap", cap, low=1, high=10_000)


def capped_geometric(proceed: Any, cap: int) -> np.ndarray:
    """``P(L = 1 … cap)``, ``(..., cap)``: ``q^(L-1) (1-q)``, and all that is left at the cap."""
    q, cap = _branch(proceed, cap)
    before = q[..., None] ** np.arange(cap)
    stop = np.broadcast_to(1 - q[..., None], before.shape).copy()
    stop[..., -1] = 1.0
    return np.asarray(before * stop)


def mean_length(proceed: Any, cap: int) -> np.ndarray:
    """``E[L] = (1 - q^cap)/(1 - q)``."""
    q, cap = _branch(proceed, cap)
    return np.asarray(-np.expm1(cap * np.log(q)) / (1 - q))


def continue_score(lengths: Any, proceed: Any, cap: int) -> np.ndarray:
    """Derivative of ``log P(L)`` in the continue logit, ``(L-1)(1-q) - q [L < cap]``; mean 0, increasing in L.

    Args:
        lengths: 1 … cap. proceed: q in (0, 1); the two broadcast.
    """
    q, cap = _branch(proceed, cap)
    lengths = _validate.integers("lengths", lengths, low=1, high=cap)
    _validate.broadcast(lengths=lengths, proceed=q)
    return np.asarray((lengths - 1) * (1 - q) - q * (lengths < cap))


def length_drift(
    success: float,
    right: float,
    wrong: float,
    *,
    cap: int,
    group_size: int,
    base: float | None = None,
    scaled: Scaled = "wrong",
    denominator: float | None = None,
) -> LengthDrift:
    r"""Expected update of the three logits by one group of one prompt, per unit of learning rate; exact.

    Args:
        success: p in (0, 1). right, wrong: continue probabilities of the branches, in (0, 1). cap: longest answer.
        group_size: n >= 2. base: of the multiplier ``1 + max(0, 1 - base^{-(L - Lbar+)})``, 1 to 1e100; None is
            without.
        scaled: wrong answers only, or all. denominator: a constant > 0; None is the tokens of the group.

    Raises:
        ValueError: outside these ranges; ``cap group_size`` above 20,000.
    """
    p = float(_validate.unit_interval("success", np, np.asarray(_validate.real("success", success)), open_ends=True))
    n = _validate.integer("group_size", group_size, low=2)
    base = None if base is None else _validate.real("base", base, low=1.0, high=1e100)
    _validate.one_of("scaled", scaled, ("wrong", "all"))
    constant = None if denominator is None else _validate.real("denominator", denominator, low=0.0, open_low=True)
    right, wrong = _validate.real("right", right), _validate.real("wrong", wrong)
    (q_right, cap), (q_wrong, _) = _branch(right, cap, "right"), _branch(wrong, cap, "wrong")
    if cap * n > 20_000:
        _validate.fail("cap", f"times group_size = {n} must be at most 20,000", cap)
    laws = [_sums(capped_geometric(q, cap), n) for q in (q_right, q_wrong)]
    scores = [continue_score(np.arange(1, cap + 1), q, cap) for q in (q_right, q_wrong)]
    chance = _binomial(n, p)
    total = np.zeros(3)
    for k in range(1, n):
        spread = np.sqrt(k * (n - k) / (n * (n - 1)))
        up, down = (1 - k / n) / spread, -k / n / spread
        of_right = _weighted(laws, k, n, 0, base if scaled == "all" else None, constant)
        of_wrong = _weighted(laws, k, n, 1, base, constant)
        gain = k * up * (1 - p) * of_right.sum() - (n - k) * down * p * of_wrong.sum()
        total += chance[k] * np.array([gain, k * up * of_right @ scores[0], (n - k) * down * of_wrong @ scores[1]])
    return LengthDrift(*total.tolist())


def _binomial(n: int, p: float) -> np.ndarray:
    from scipy.stats import binom

    return np.asarray(binom.pmf(np.arange(n + 1), n, p))


def _sums(law: np.ndarray, most: int) -> list[np.ndarray]:
    """Laws of the sums of 0 … most lengths; entry s is the sum s."""
    one, out = np.r_[0.0, law], [np.ones(1)]
    for _ in range(most):
        out.append(np.convolve(out[-1], one))
    return out


def _weighted(
    laws: list[list[np.ndarray]], k: int, n: int, branch: int, base: float | None, constant: float | None
) -> np.ndarray:
    """``P(L) E[m/D | L]`` of one answer of the branch (0 right, 1 wrong) with k right of n, ``(cap,)``."""
    own = laws[branch][1][1:]
    lengths = np.arange(1, len(own) + 1)
    others = k - (branch == 0)  # right ones besides this one
    rights, rest = laws[0][others], laws[1][n - k - (branch == 1)]
    known = lengths[:, None] + np.arange(len(rights))  # this one and the other right ones
    if constant is None:
        tokens = n + np.arange(known.max() + len(rest))
        value = np.convolve(1.0 / tokens, rest[::-1], "valid")[known]
    else:
        value = np.full(known.shape, 1.0 / constant)
    if base is not None:
        mean_right = (known if branch == 0 else known - lengths[:, None]) / k
        value = value * (1 - np.expm1(-np.log(base) * np.maximum(lengths[:, None] - mean_right, 0.0)))
    return np.asarray(own * (value @ rights))
