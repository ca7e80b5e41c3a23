"""Claims of the objectives of several attempts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from klsim.objectives import several_attempts as several
from klsim.objectives.registry.objective import Coefficients, Objective, Setting, terms

__all__ = ["SEVERAL"]

_SEVERAL = "several attempts"


def _pass(k: int, factor: Callable[[int], float] = lambda group_size: 1.0) -> Callable[[Setting], Coefficients]:
    """``-grad pass@k``, mean over prompts: ``-k (1-p)^{k-1} grad p`` each."""

    def claim(s: Setting) -> Coefficients:
        weights = factor(s.group_size) * k * (1 - s.success) ** (k - 1) / len(s.success)
        return {f"reward@{q}": -float(w) for q, w in enumerate(weights)}

    return claim


def _likelihood(short: int) -> Callable[[Setting], Coefficients]:
    """``-(1 - (1-p)^T)/p grad p``, ``T = G - short``, mean over prompts."""

    def claim(s: Setting) -> Coefficients:
        weights = (1 - (1 - s.success) ** (s.group_size - short)) / s.success / len(s.success)
        return {f"reward@{q}": -float(w) for q, w in enumerate(weights)}

    return claim


SEVERAL: tuple[Objective, ...] = (
    Objective("max_at_k", _SEVERAL, "Walder and Karkhanis 2025", several.max_at_k, _pass(2), "binary",
              "none: pass@2", prompts=2, group_size=3),
    Objective("max_at_k, k = G = 3", _SEVERAL, "Walder and Karkhanis 2025", partial(several.max_at_k, k=3), _pass(3),
              "binary", "none: pass@3", group_size=3, optimum="best response"),
    Objective("max_at_k, no baseline", _SEVERAL, "Walder and Karkhanis 2025",
              partial(several.max_at_k, baseline="none"), _pass(2), "binary", "none: pass@2", group_size=3),
    Objective("max_at_k, leave one out", _SEVERAL, "Walder and Karkhanis 2025",
              partial(several.max_at_k, baseline="leave_one_out"), _pass(2), "binary", "none: pass@2", group_size=4),
    Objective("max_at_k, group baseline", _SEVERAL, "Walder and Karkhanis 2025",
              partial(several.max_at_k, baseline="group"), _pass(2, lambda size: 1 - 2 / size), "binary",
              "factor 1 - k/G; nothing at k = G", group_size=4),
    Objective("pass_at_k", _SEVERAL, "Chen et al. 2025", partial(several.pass_at_k, k=2),
              lambda s: {"reward_per_token": -float(s.weight(partial(several.pass_at_k_advantages, k=2))[0])},
              "binary", "pass@2 with a std of its own per prompt, 1/length per response", group_size=4),
    Objective("pass_at_k, k = G = 3", _SEVERAL, "Chen et al. 2025", partial(several.pass_at_k, k=3), terms({}),
              "binary", "no gradient at all: the pass rate of a group is 0 or 1", group_size=3, deep=(2, 3)),
    Objective("maxrl", _SEVERAL, "arXiv:2602.02710", several.maxrl, _likelihood(1), "binary",
              "log p truncated at order G - 1", prompts=2, group_size=3, optimum="best response"),
    Objective("maxrl, not centred", _SEVERAL, "arXiv:2602.02710", partial(several.maxrl, centred=False),
              _likelihood(0), "binary", "log p truncated at order G", group_size=3),
)  # fmt: skip
"""Rows of the table: objectives of several attempts."""
