r"""Mass balance of one softmax policy-gradient step, and its expectation over rollouts.

One position, ``A`` tokens, policy ``pi = softmax(z)``, a set of correct tokens with mass ``Q+`` (the rest
has ``Q- = 1 - Q+``). N tokens are drawn; correct ones earn ``R+ >= 0``, incorrect ones ``R- <= 0``. With the
surrogate ``J(z) = (1/N) sum_{i in sampled set} R_i pi_i(z)`` one ascent step changes the correct mass by

.. math:: dQ_+ = \frac{\eta}{N} [ (R_+ - S) Q_- A_2 + (S - R_-) Q_+ B_2 + S (Q_+ U_{-2} - Q_- U_{+2}) ]

to first order in the step size (arXiv 2510.01180, Theorem 1): ``A_2, B_2`` are the second moments
``sum pi_i^2`` of sampled correct / incorrect tokens, ``U_{±2}`` those of unsampled ones, and
``S = R+ P+ + R- P-`` with ``P±`` the sampled masses. The bracket is additive over sampled tokens, which
gives its exact expectation (`expected_one_step`).

``log_policy`` is ``(..., A)``, masks are boolean ``(..., A)``, rewards, step sizes and ``n`` scalars or batch arrays;
rewards and step sizes are at most 1e100 in size, ``n`` at least 1e-100, so that no product of them overflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate

__all__ = [
    "MassBalance",
    "attribution",
    "draw_attribution",
    "expected_draw_step",
    "expected_one_step",
    "one_step",
    "score_function_step",
    "thresholds",
    "unsampled_second_moment",
    "unsampled_second_moment_bound",
]


@dataclass(frozen=True)
class MassBalance:
    """One step of the set surrogate.

    Attributes:
        d_logits: ``(..., A)``, the step itself.
        d_mass: ``(...)``, first-order change of the correct mass: ``(lr/n)`` times the three terms.
        sampled_correct, sampled_incorrect, unsampled: the three terms of the bracket.
        mood: ``S``.
    """

    d_logits: np.ndarray
    d_mass: np.ndarray
    sampled_correct: np.ndarray
    sampled_incorrect: np.ndarray
    unsampled: np.ndarray
    mood: np.ndarray

    @property
    def bracket(self) -> np.ndarray:
        """The sum of the three terms."""
        return self.sampled_correct + self.sampled_incorrect + self.unsampled


_LARGEST = 1e100  # products of three rewards, step sizes and counts stay finite


def _policy(log_policy: Any, correct: Any) -> tuple[np.ndarray, np.ndarray]:
    (log_policy,) = _validate.numpy_arrays(log_policy=log_policy)
    _validate.log_probs("log_policy", np, log_policy)
    correct = _validate.boolean_mask("correct", correct)
    _validate.same_last_axis(log_policy=log_policy, correct=correct)
    return np.exp(log_policy), correct


def _scalars(**named: Any) -> list[np.ndarray]:
    values = _validate.numpy_arrays(**named)
    found = [_validate.finite(name, np, v)[..., None] for name, v in zip(named, values)]
    for name, v in zip(named, found):
        index = _validate.first_true(np, np.abs(v) > _LARGEST)
        if index is not None:
            _validate.fail(name, f"must be at most {_LARGEST:g} in size", float(v[index]), index[:-1])
    return found


def _batch(**named: np.ndarray) -> None:
    """Leading axes broadcast: of laws and masks ``(..., A)`` and of scalars ``(..., 1)``, all together."""
    _validate.broadcast(**{name: x[..., 0] for name, x in named.items()})


def _reward_pair(r_pos: Any, r_neg: Any) -> list[np.ndarray]:
    return _scalars(r_pos=r_pos, r_neg=r_neg)


def _count(n: Any) -> np.ndarray:
    (n,) = _validate.numpy_arrays(n=n)
    index = _validate.first_true(np, ~((n >= 1e-100) & np.isfinite(n)))
    if index is not None:
        _validate.fail("n", "must be finite and > 0 (at least 1e-100)", float(n[index]), index)
    return n[..., None]


def _masses(pi: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``Q+``, ``Q-`` and ``D = Q- sum_correct pi^2 - Q+ sum_incorrect pi^2``, with a trailing axis."""
    good = np.sum(np.where(correct, pi, 0.0), axis=-1, keepdims=True)
    bad = np.sum(np.where(correct, 0.0, pi), axis=-1, keepdims=True)
    second_good = np.sum(np.where(correct, pi**2, 0.0), axis=-1, keepdims=True)
    second_bad = np.sum(np.where(correct, 0.0, pi**2), axis=-1, keepdims=True)
    return good, bad, bad * second_good - good * second_bad


def one_step(
    log_policy: Any, correct: Any, sampled: Any, n: Any, r_pos: Any = 1.0, r_neg: Any = -1.0, lr: Any = 1.0
) -> MassBalance:
    """The mass balance of one batch (Theorem 1). ``sampled`` is the set of drawn tokens, ``(..., A)`` boolean.

    ``n`` only scales (the set already says what was drawn). The signs of the rewards are not checked.

    Raises:
        ValueError: shapes, ``n <= 0``, rewards that are not finite.
    """
    pi, correct = _policy(log_policy, correct)
    sampled = _validate.boolean_mask("sampled", sampled)
    _validate.same_last_axis(log_policy=pi, sampled=sampled)
    r_pos, r_neg, lr = _scalars(r_pos=r_pos, r_neg=r_neg, lr=lr)
    n = _count(n)
    _batch(log_policy=pi, correct=correct, sampled=sampled, n=n, r_pos=r_pos, r_neg=r_neg, lr=lr)
    good, bad, _ = _masses(pi, correct)

    def moment(where: np.ndarray, power: int) -> np.ndarray:
        return np.sum(np.where(where, pi**power, 0.0), axis=-1, keepdims=True)

    mood = r_pos * moment(sampled & correct, 1) + r_neg * moment(sampled & ~correct, 1)
    first = (r_pos - mood) * bad * moment(sampled & correct, 2)
    second = (mood - r_neg) * good * moment(sampled & ~correct, 2)
    third = mood * (good * moment(~sampled & ~correct, 2) - bad * moment(~sampled & correct, 2))
    reward = np.where(sampled, np.where(correct, r_pos, r_neg), 0.0)
    d_logits = lr / n * pi * (reward - mood)
    d_mass = lr / n * (first + second + third)
    return MassBalance(d_logits, *(x[..., 0] for x in (d_mass, first, second, third, mood)))


def attribution(log_policy: Any, correct: Any, r_pos: Any = 1.0, r_neg: Any = -1.0) -> np.ndarray:
    """``w_i``: what drawing token i adds to the bracket, ``(..., A)``; the bracket is their sum over the set.

    ``R+ pi_i (Q- pi_i - D)`` for correct tokens, ``-R- pi_i (Q+ pi_i + D)`` for incorrect ones.
    """
    pi, correct = _policy(log_policy, correct)
    r_pos, r_neg = _reward_pair(r_pos, r_neg)
    _batch(log_policy=pi, correct=correct, r_pos=r_pos, r_neg=r_neg)
    good, bad, gap = _masses(pi, correct)
    return np.asarray(np.where(correct, r_pos * pi * (bad * pi - gap), -r_neg * pi * (good * pi + gap)))


def thresholds(log_policy: Any, correct: Any) -> tuple[np.ndarray, np.ndarray]:
    """``(D/Q-, -D/Q+)``: a correct (incorrect) token below its threshold lowers the correct mass when drawn.

    Every possible batch raises the correct mass iff no token lies below. Shapes ``(...)``; both classes
    must have mass.
    """
    pi, correct = _policy(log_policy, correct)
    good, bad, gap = _masses(pi, correct)
    index = _validate.first_true(np, (good <= 0) | (bad <= 0))
    if index is not None:
        _validate.fail("correct", "both classes need positive mass", index=index[:-1])
    return (gap / bad)[..., 0], (-gap / good)[..., 0]


def expected_one_step(
    log_policy: Any,
    correct: Any,
    n: Any,
    r_pos: Any = 1.0,
    r_neg: Any = -1.0,
    lr: Any = None,
    log_behaviour: Any = None,
) -> np.ndarray:
    """``E[bracket] = sum_i w_i (1 - (1 - mu_i)^n)`` over n i.i.d. draws from ``mu``; times ``lr/n`` if ``lr`` is given.

    ``log_behaviour`` is ``log mu`` (default: the policy itself; then the expectation is never negative
    for ``r_pos >= 0 >= r_neg``).
    """
    weights = attribution(log_policy, correct, r_pos, r_neg)
    (behaviour,) = _validate.numpy_arrays(log_behaviour=log_policy if log_behaviour is None else log_behaviour)
    _validate.log_probs("log_behaviour", np, behaviour)
    _validate.same_last_axis(log_policy=weights, log_behaviour=behaviour)
    n, (rate,) = _count(n), _scalars(lr=1.0 if lr is None else lr)
    _batch(log_policy=weights, log_behaviour=behaviour, n=n, lr=rate)
    bracket = np.sum(weights * _drawn(behaviour, n), axis=-1)
    return bracket if lr is None else bracket * (rate / n)[..., 0]


def _drawn(log_behaviour: np.ndarray, n: np.ndarray) -> np.ndarray:
    """``1 - (1 - mu)^n`` without cancellation."""
    with np.errstate(divide="ignore", over="ignore"):
        return -np.expm1(n * np.log1p(-np.minimum(np.exp(log_behaviour), 1.0)))


def unsampled_second_moment(log_policy: Any, n: Any) -> np.ndarray:
    """``E[sum of pi_i^2 over unsampled tokens] = sum_i pi_i^2 (1 - pi_i)^n`` (Lemma 2)."""
    (log_policy,) = _validate.numpy_arrays(log_policy=log_policy)
    _validate.log_probs("log_policy", np, log_policy)
    pi, n = np.exp(log_policy), _count(n)
    _batch(log_policy=pi, n=n)
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.sum(pi**2 * np.exp(n * np.log1p(-np.minimum(pi, 1.0))), axis=-1))


def unsampled_second_moment_bound(n: Any) -> np.ndarray:
    """``(1/(n+1)) (n/(n+1))^n``, about ``1/(e n)``: the largest value over all policies (uniform on n+1 tokens)."""
    n = _count(n)[..., 0]
    with np.errstate(over="ignore"):
        log_ratio = np.where(n > 1, np.log1p(1.0 / n), np.log1p(n) - np.log(n))  # log((n+1)/n)
    return np.asarray(np.exp(-n * log_ratio) / (n + 1.0))


def draw_attribution(log_policy: Any, correct: Any) -> np.ndarray:
    """``v_i``: with the surrogate ``(1/n) sum_j r_j pi_{i_j}`` over draws, ``dQ+ = (lr/n) sum_j r_j v_{i_j}``."""
    pi, correct = _policy(log_policy, correct)
    good, bad, gap = _masses(pi, correct)
    return np.where(correct, pi * (bad * pi - gap), -pi * (good * pi + gap))


def expected_draw_step(
    log_policy: Any, correct: Any, n: Any, r_pos: Any = 1.0, r_neg: Any = -1.0, *, centred: bool = False
) -> np.ndarray:
    """``E[dQ+]/lr`` of the draw surrogate: ``sum pi R v``, free of n; centred by the batch mean
    ``(n-1)/n sum pi (R - E R) v``."""
    pi, correct = _policy(log_policy, correct)
    r_pos, r_neg = _reward_pair(r_pos, r_neg)
    n = _count(n)
    _batch(log_policy=pi, correct=correct, n=n, r_pos=r_pos, r_neg=r_neg)
    reward = np.where(correct, r_pos, r_neg)
    value = draw_attribution(log_policy, correct)
    if not _validate.flag("centred", centred):
        return np.sum(pi * reward * value, axis=-1) + 0 * n[..., 0]
    mean = np.sum(pi * reward, axis=-1, keepdims=True)
    return np.asarray((n - 1) / n * np.sum(pi * (reward - mean) * value, axis=-1, keepdims=True))[..., 0]


def score_function_step(
    log_policy: Any, correct: Any, counts: Any, r_pos: Any = 1.0, r_neg: Any = -1.0, baseline: Any = "mean"
) -> tuple[np.ndarray, np.ndarray]:
    """``(dz, dQ+)`` for lr = 1 of the score-function (REINFORCE, GRPO at ratio 1) gradient.

    ``dz_j = (1/n) (c_j (R_j - b) - pi_j T)``, ``T = sum_i c_i (R_i - b)``, n = sum of the draw counts.
    ``baseline``: ``"mean"`` (of the batch; then ``T = 0``) or a number. Shapes ``(..., A)`` and ``(...)``.

    Raises:
        ValueError: negative counts or an empty batch.
    """
    pi, correct = _policy(log_policy, correct)
    counts = _validate.integers("counts", counts, low=0)
    _validate.same_last_axis(log_policy=pi, counts=counts)
    r_pos, r_neg = _reward_pair(r_pos, r_neg)
    n = counts.sum(axis=-1, keepdims=True)
    index = _validate.first_true(np, n == 0)
    if index is not None:
        _validate.fail("counts", "needs at least one draw", index=index[:-1])
    own = isinstance(baseline, str)
    (b,) = _scalars(baseline=0.0 if own else baseline)
    _batch(log_policy=pi, correct=correct, counts=counts, r_pos=r_pos, r_neg=r_neg, baseline=b)
    reward = np.where(correct, r_pos, r_neg)
    if own:
        _validate.one_of("baseline", baseline, ("mean",))
        b = np.sum(counts * reward, axis=-1, keepdims=True) / n
    advantage = counts * (reward - b)
    d_logits = (advantage - pi * np.sum(advantage, axis=-1, keepdims=True)) / n
    good = np.sum(np.where(correct, pi, 0.0), axis=-1, keepdims=True)
    gradient = pi * (np.where(correct, 1.0, 0.0) - good)
    return d_logits, np.sum(gradient * d_logits, axis=-1)
