r"""Along the powers ``p^alpha`` of a law: entropy, likelihood, accuracy; schedules of alpha and what annealing gives.

In the family ``p_a = p^a/Z_a`` with ``m = E_a[log p]`` and ``v = Var_a(log p)``

.. math:: \frac{d}{da}\log Z_a = m, \quad \frac{dm}{da} = v, \quad \frac{dH}{da} = -a v, \quad
          \frac{d}{da}P_a(right) = Cov_a(1[right], \log p), \quad
          KL(p_a‖p_b) = \log Z_b - \log Z_a - (b - a)\, m_a .

*Schedules* ``1 = a_0 <= … <= a_K = alpha``. With K steps the costs ``KL(p_{a_{k-1}}‖p_{a_k})`` add up to about
``1/(2K) (\int \sqrt{v}\, da)^2`` at best, where every step has the same length ``\int \sqrt v\, da``
(``"equal length"``); equal steps in alpha (``"linear"``) give ``(alpha-1)/(2K) \int v\, da``.

*Annealed importance sampling*: from ``y ~ p``; for each k the weight ``p(y)^{a_k - a_{k-1}}``, then steps of a chain
that leaves ``p_{a_k}`` as it is. The mean of the weights' products is ``Z_alpha`` whatever the chain does, and outcomes
weighted by them have the law ``p_alpha`` (Neal 2001); without weights their law is another (`annealed`).

Sources: exponential families; Neal (2001), Statistics and Computing 11; Gelman and Meng (1998), Statistical Science 13
(paths of least length).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from klsim import _validate
from klsim._shown import Shown
from klsim.distributions import log_normalize
from klsim.power import suffix_chain
from klsim.problems.token_tree import sequence_log_probs

__all__ = ["Annealed", "PowerCurve", "along_powers", "annealed", "schedule", "schedule_cost"]


@dataclass(frozen=True, repr=False)
class PowerCurve(Shown):
    """Along the powers of a law; arrays ``(K,)``.

    Attributes:
        alpha: the powers. log_z: ``log sum p^alpha``. log_likelihood: ``E_alpha[log p]``. variance: of ``log p``.
        entropy: of ``p_alpha``, nats. accuracy: ``P_alpha(right)``. accuracy_slope: its derivative by alpha; both are 0
            where no ``right`` was given.
    """

    alpha: np.ndarray
    log_z: np.ndarray
    log_likelihood: np.ndarray
    variance: np.ndarray
    entropy: np.ndarray
    accuracy: np.ndarray
    accuracy_slope: np.ndarray


@dataclass(frozen=True, repr=False)
class Annealed(Shown):
    """What annealed importance sampling on a tree gives, exactly.

    Attributes:
        log_law: of the outcomes without their weights, ``(V**H,)``. log_weighted: of the outcomes with their weights,
            normalised. log_mean: of the mean weight. relative_variance: of one weight, ``Var w / (E w)^2``.
    """

    log_law: np.ndarray
    log_weighted: np.ndarray
    log_mean: float
    relative_variance: float


def _finite_law(log_p: Any) -> np.ndarray:
    (log_p,) = _validate.numpy_arrays(log_p=log_p)
    _validate.log_probs("log_p", np, log_p)
    if log_p.ndim != 1:
        _validate.fail("log_p", f"must be one law (A,), got shape {log_p.shape}")
    return np.asarray(log_p, dtype=np.float64)


def _powers(alpha: Any, name: str = "alpha") -> np.ndarray:
    (alpha,) = _validate.numpy_arrays(**{name: alpha})
    _validate.finite(name, np, alpha)
    if alpha.ndim != 1 or not alpha.size:
        _validate.fail(name, f"must be a vector (K,) of at least one power, got shape {alpha.shape}")
    index = _validate.first_true(np, alpha < 0)
    if index is not None:
        _validate.fail(name, "must be >= 0", float(alpha[index]), index)
    return np.asarray(alpha, dtype=np.float64)


def along_powers(log_p: Any, alpha: Any, right: Any = None) -> PowerCurve:
    """Entropy, likelihood and accuracy of ``p^alpha/Z`` for a vector of powers.

    Args:
        log_p: ``(A,)``; of a tree, `klsim.problems.token_tree.sequence_log_probs`. alpha: ``(K,)``, >= 0.
        right: ``(A,)`` booleans, None: no accuracy (zeros).

    Raises:
        ValueError: no log-probabilities ``(A,)``, a power that is negative or not finite, ``right`` of another shape.
    """
    log_p, alpha = _finite_law(log_p), _powers(alpha)
    inside = np.isfinite(log_p)
    x = log_p[inside]
    good = np.zeros(len(x)) if right is None else _validate.boolean_mask("right", right, log_p.shape)[inside] * 1.0
    with np.errstate(over="ignore"):
        logits = alpha[:, None] * (x - x.max())
    rest = np.logaddexp.reduce(logits, axis=1)
    law = np.exp(logits - rest[:, None])
    mean = law @ x
    centred = x - mean[:, None]
    accuracy = law @ good
    with np.errstate(over="ignore"):
        log_z = rest + alpha * x.max()
    _validate.representable("alpha", np, log_z)
    # -sum p_a log p_a from the logits, which are relative to the likeliest outcome
    entropy = rest - np.sum(law * np.where(law > 0, logits, 0.0), axis=1)
    return PowerCurve(
        alpha, log_z, mean, np.sum(law * centred**2, axis=1), np.maximum(entropy, 0.0), accuracy,
        np.sum(law * centred * (good - accuracy[:, None]), axis=1),
    )  # fmt: skip


def schedule(log_p: Any, alpha: float, steps: int, kind: str = "equal length") -> np.ndarray:
    r"""Powers from 1 to ``alpha`` in ``steps`` steps, ``(steps + 1,)``.

    Args:
        kind: ``"linear"``; ``"geometric"``, equal ratios; ``"equal length"``, equal ``\int sqrt(Var_a(log p)) da``
            (trapezoidal rule on 4,097 powers; linear where the variance is 0).

    Raises:
        ValueError: no log-probabilities ``(A,)``, ``alpha <= 0``, ``steps < 1``, an unknown kind.
    """
    log_p = _finite_law(log_p)
    alpha = _validate.real("alpha", alpha, low=0.0, open_low=True, open_high=True)
    steps = _validate.integer("steps", steps, low=1)
    _validate.fits("steps", steps, steps + 1)
    _validate.one_of("kind", kind, ("linear", "geometric", "equal length"))
    even = np.linspace(0.0, 1.0, steps + 1)
    if kind == "linear":
        return 1 + even * (alpha - 1)
    if kind == "geometric":
        return np.asarray(alpha**even)
    fine = alpha ** np.linspace(0.0, 1.0, 4097)  # closer together where powers are small
    speed = np.sqrt(along_powers(log_p, fine).variance)
    length = np.append(0.0, np.cumsum(0.5 * (speed[1:] + speed[:-1]) * np.abs(np.diff(fine))))
    if not length[-1] > 0:
        return 1 + even * (alpha - 1)
    found = np.interp(even * length[-1], length, fine)
    found[[0, -1]] = 1.0, alpha
    return np.asarray(found)


def schedule_cost(log_p: Any, powers: Any) -> float:
    """``sum_k KL(p_{a_{k-1}}‖p_{a_k})`` along a schedule, nats: what a sampler that mixes at every power loses.

    Raises:
        ValueError: no log-probabilities ``(A,)``, powers that are negative, not finite, or fewer than two.
    """
    log_p = _finite_law(log_p)
    powers = _powers(powers, "powers")
    if len(powers) < 2:
        _validate.fail("powers", f"must be a vector of at least two powers, got shape {powers.shape}")
    x = log_p[np.isfinite(log_p)]
    total = 0.0
    for a, b in pairwise(powers):
        law = log_normalize(a * x)
        move = (b - a) * (x - np.exp(law) @ x)  # centred: log E e^move is the KL
        total += float(np.log1p(np.exp(law) @ (np.expm1(move) - move))) if np.abs(move).max() < 1 else float(
            np.logaddexp.reduce(law + move)
        )  # fmt: skip
    return max(total, 0.0)


def annealed(levels: Sequence[Any], powers: Any, sweeps: int = 1) -> Annealed:
    """Annealed importance sampling over sequences of a tree, ``sweeps`` steps of `klsim.power.suffix_chain` a power.

    Args:
        levels: the tree. powers: ``1 = a_0, …, a_K``, ``(K + 1,)``. sweeps: >= 0.

    Raises:
        ValueError: no tree, powers that do not begin with 1, are negative or not finite, ``sweeps < 0``.
    """
    powers = _powers(powers, "powers")
    if powers[0] != 1.0:
        _validate.fail("powers", "must begin with 1, the law itself", float(powers[0]))
    sweeps = _validate.integer("sweeps", sweeps, low=0)
    log_p = np.asarray(sequence_log_probs(levels))
    if log_p.ndim != 1:
        _validate.fail("levels", "must be one tree, levels of shape (V**t, V)")
    inside = np.isfinite(log_p)
    x = np.where(inside, log_p, 0.0)
    peak = x[inside].max()
    law = weighted = squared = np.exp(log_p)
    for a, b in pairwise(powers):
        step = np.where(inside, np.exp((b - a) * (x - peak)), 0.0)
        weighted, squared = weighted * step, squared * step**2
        if not sweeps:
            continue
        target = np.where(inside, b * x, -np.inf)
        chain = np.linalg.matrix_power(suffix_chain(levels, target), sweeps)
        law, weighted, squared = law @ chain, weighted @ chain, squared @ chain
    mean, square = float(weighted.sum()), float(squared.sum())
    if not (mean > 0 and square > 0):
        _validate.fail("powers", "go so far in one step that all weights underflow")
    with np.errstate(divide="ignore"):
        log_law, log_weighted = np.log(law), np.log(weighted / mean)
    log_mean = float(np.log(mean) + (powers[-1] - 1) * peak)
    return Annealed(log_law, log_weighted, log_mean, max(square / mean**2 - 1, 0.0))
