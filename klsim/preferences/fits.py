r"""Rewards fitted to a preference matrix.

*Bradley-Terry*: ``P_ij = sigma(r_i - r_j)``. The fit maximises ``sum_ij w_ij P_ij log sigma(r_i - r_j)``; it solves
``sum_j w_ij sigma(r_i - r_j) = sum_j w_ij P_ij`` for every i, is unique up to a constant where the comparisons connect
all responses, and finite where no group beats the rest every time. With a *margin* gamma (SimPO) the logarithm is that
of ``sigma(r_i - r_j - gamma)``; existence and uniqueness are decided by the same graph.

*IPO* fits ``h = log(pi/ref)`` by least squares to ``(P_ij - P_ji)/(2 tau)``.

Where the comparisons fall into groups that are not compared with each other, rewards are comparable inside a group
only. Gradient flow on the logits of a table keeps the sum of a group's logits (every comparison moves its two
responses oppositely), hence ends at the tilt by the fits that have mean 0 in every group: `bradley_terry_groups`.

Sources: Hunter (2004), Annals of Statistics 32 (existence of the fit); Azar et al. (2023), arXiv:2310.12036 (IPO);
Meng et al. (2024), arXiv:2405.14734 (SimPO); the end of the flow: derived here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, log_expit

from klsim import _validate
from klsim.preferences.matrices import checked_preference, checked_weights

__all__ = ["bradley_terry_fit", "bradley_terry_groups", "ipo_fit"]


def bradley_terry_fit(preference: Any, weights: Any = None, *, margin: float = 0.0) -> np.ndarray:
    """The maximum-likelihood rewards of a preference matrix, mean 0, ``(A,)``.

    Args:
        preference: ``(A, A)``. weights: how often each pair is compared, symmetric; None: every pair as often.
        margin: by how much the preferred reward has to be larger, in [0, 100].

    Raises:
        ValueError: no preference matrix; comparisons that do not connect all responses (rewards of the parts are not
            comparable), or a group that always wins against the rest (no finite fit).
    """
    p = checked_preference(preference)
    w = checked_weights(weights, p)
    margin = _validate.real("margin", margin, low=0.0, high=100.0)
    if connected_components(w > 0, directed=False)[0] > 1:
        _validate.fail("weights", "do not connect all responses: rewards of the parts are not comparable")
    return _fit(p, w, margin)


def bradley_terry_groups(preference: Any, weights: Any = None) -> np.ndarray:
    """The maximum-likelihood rewards, mean 0 in every group of responses that comparisons connect, ``(A,)``.

    Raises:
        ValueError: as `bradley_terry_fit`, but for comparisons that do not connect all responses.
    """
    p = checked_preference(preference)
    w = checked_weights(weights, p)
    count, label = connected_components(w > 0, directed=False)
    out = np.zeros(len(p))
    for group in (label == k for k in range(count)):
        out[group] = _fit(p[np.ix_(group, group)], w[np.ix_(group, group)], 0.0)
    return out


def _fit(p: np.ndarray, w: np.ndarray, margin: float) -> np.ndarray:
    """The fit of connected comparisons."""
    if connected_components(w * p > 0, directed=True, connection="strong")[0] > 1:
        _validate.fail("preference", "has a group that is preferred to the rest every time: the fit is infinite")
    w = w / max(w.max(initial=0.0), 1e-300)
    r, total = np.zeros(len(p)), max(w.sum(), 1e-300)

    def negative(r: np.ndarray) -> tuple[float, np.ndarray]:
        gap = r[:, None] - r[None] - margin
        pull = w * p * expit(-gap)
        return float(-np.sum(w * p * log_expit(gap)) / total), (pull - pull.T).sum(axis=1) / -total

    r = minimize(negative, r, jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "maxiter": 10_000}).x
    for _ in range(100):  # Newton from there
        gap = r[:, None] - r[None] - margin
        pull, bend = w * p * expit(-gap), w * p * expit(gap) * expit(-gap)
        curvature = bend + bend.T
        hessian = np.diag(curvature.sum(axis=1)) - curvature + 1 / len(p)
        step = np.linalg.lstsq(hessian, (pull - pull.T).sum(axis=1), rcond=None)[0]
        r = r + step * min(1.0, 1.0 / max(np.abs(step).max(), 1e-300))
        if np.abs(step).max() < 1e-13 * (1 + np.abs(r).max()):
            break
    return np.asarray(r - r.mean())


def ipo_fit(preference: Any, tau: float, weights: Any = None) -> np.ndarray:
    """``log(pi/ref)`` up to a constant (mean 0) at the optimum of IPO with population labels, ``(A,)``.

    Raises:
        ValueError: as `bradley_terry_fit`, but for groups that always win: least squares stay finite; ``tau <= 0``.
    """
    p = checked_preference(preference)
    tau = _validate.real("tau", tau, low=0.0, open_low=True, open_high=True)
    w = checked_weights(weights, p)
    if connected_components(w > 0, directed=False)[0] > 1:
        _validate.fail("weights", "do not connect all responses: rewards of the parts are not comparable")
    laplacian = np.diag(w.sum(axis=1)) - w + np.full_like(w, w.max(initial=1.0))
    return np.asarray(np.linalg.solve(laplacian, np.sum(w * (p - p.T), axis=1) / (2 * tau)))
