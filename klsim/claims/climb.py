"""Climbing: from the tightest instances of a one-sided claim, local ascent on its slack (Nelder-Mead of SciPy)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from klsim.spaces import Space

__all__ = ["Reached", "climb"]


class Reached(Exception):
    """Ends the ascent: a violation was confirmed."""


def climb(
    space: Space, drawn: Mapping[str, Any], height: Callable[[Mapping[str, Any]], float], evaluations: int
) -> None:
    """Move the continuous fields of one draw uphill; ``height`` sees every draw that is tried, and may raise `Reached`.

    The ascent restarts from the best point with a fresh simplex while that gains, up to ``evaluations``.
    """
    from scipy.optimize import minimize

    vectors = {name: kind.coordinates(drawn[name]) for name, kind in space.fields.items() if name not in space.sizes}
    vectors = {name: (x, step) for name, (x, step) in vectors.items() if x.size}
    if not vectors:
        return
    ends = np.cumsum([x.size for x, _ in vectors.values()])[:-1]
    x, step = (np.concatenate([v[i] for v in vectors.values()]) for i in (0, 1))

    def placed(point: np.ndarray) -> dict[str, Any] | None:
        pieces = dict(zip(vectors, np.split(point, ends)))
        try:
            return space.legal({**drawn, **{n: space.fields[n].at(drawn[n], p) for n, p in pieces.items()}})
        except (ValueError, TypeError):
            return None

    def depth(point: np.ndarray) -> float:
        at = placed(point)
        return np.inf if at is None else -height(at)

    best, left = np.inf, evaluations
    while left > 2 * x.size + 2:
        simplex = np.vstack([x, x + np.diag(step)])
        options = {"maxfev": left, "xatol": 1e-7, "fatol": 1e-10, "initial_simplex": simplex, "adaptive": x.size > 4}
        found = minimize(depth, x, method="Nelder-Mead", options=options)
        left -= found.nfev
        if not found.fun < best - 1e-4 * abs(best if np.isfinite(best) else found.fun):
            return
        x, best, step = found.x, float(found.fun), -step
