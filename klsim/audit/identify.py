"""Which combination of population gradients is a gradient? The smallest one that leaves only rounding."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from klsim.audit.worlds import Setting, World, world
from klsim.learning.identification import Combination, distinct_columns, smallest_combination

__all__ = [
    "EXACT",
    "LIBRARY",
    "ZERO",
    "Combination",
    "combination_text",
    "identify",
    "is_combination",
    "library",
    "share_text",
]

EXACT = 2e-5
"""A residual below this is rounding: some trainers compute in float32 (2^-24 = 6e-8 a term, and advantages cancel), and
add up to 1e-8 to denominators. Functionals of the library are apart by far more."""
ZERO = 1e-7
"""A gradient this small beside those of the library is float32 rounding of zero."""
_KLS = ("reverse_kl", "forward_kl")
LIBRARY = (
    "reward", "reward_per_token", "reward_over_length", "length", "inverse_length",
    *_KLS, *(f"{kl}(frozen)" for kl in _KLS), "js(frozen)", "chi2(frozen)", "k2(frozen)", "k2_ref(frozen)",
    "entropy", "entropy(frozen)",
    *(f"{kl}(teacher)" for kl in _KLS), *(f"{kl}(teacher, frozen)" for kl in _KLS), "js(teacher, frozen)",
    "forward_kl(teacher, frozen, mode)",
    *(f"sequence_mean({kl}({how}))" for kl in _KLS for how in ("sampled", "frozen", "teacher, frozen")),
    *(f"sequence_mean({kl}(teacher, sampled))" for kl in _KLS),
    "sequence_mean(js(teacher, frozen))", "sequence_mean(entropy(frozen))",
    "value_loss",
)  # fmt: skip
"""What a gradient is searched in."""
_OFF_POLICY = ("reverse_kl(sampled)", "forward_kl(sampled)", "reverse_kl(teacher, sampled)", "forward_kl(old)")
_OF_A_BATCH = ("reward", "reverse_kl(frozen)", "forward_kl(frozen)", "entropy(frozen)", "reverse_kl(teacher, frozen)",
               "forward_kl(teacher, frozen)", "js(teacher, frozen)", "reward(ended)", "length")  # fmt: skip


@cache
def library(name: str, setting: Setting, beta: float = 0.0) -> dict[str, np.ndarray]:
    """Gradients of the library in a world; of collinear ones the first. ``beta``: of preference objectives."""
    here = world(name, setting)
    terms = list(LIBRARY)
    if "off-policy" in name or name == "sampler":
        terms += _OFF_POLICY
    if name == "pairs" and beta > 0:
        terms = [f"dpo(beta={beta!r})", f"ipo(beta={beta!r})", f"ipo(averaged, beta={beta!r})", *terms]
    if name == "cut responses masked":
        terms += ["reward(ended)"]
    if name.startswith("large batch"):
        terms = [*(f"token_mean({t})" for t in _OF_A_BATCH), *terms]
    if not here.problem.ended.any():
        terms = [term for term in terms if "ended" not in term]
    columns = {term: here.column(term) for term in terms}
    return distinct_columns(columns, smallest=1e-12 * here.unit)


def identify(gradient: np.ndarray, name: str, setting: Setting, beta: float = 0.0) -> Combination:
    """The smallest combination of at most three functionals that explains a world's gradient, else the best three."""
    found = smallest_combination(
        library(name, setting, beta if name == "pairs" else 0.0), gradient, exact=EXACT, zero=ZERO
    )
    if sum(term.startswith(("dpo", "ipo")) for term in found.coefficients) > 1:
        return replace(found, exact=False)  # a line and two sigmoids of a small margin: any smooth curve is nearly that
    return found


def is_combination(gradient: np.ndarray, combination: Combination, here: World) -> bool:
    """Whether an exact combination also gives the gradient of another world."""
    if not combination.exact:
        return False
    wanted = sum((c * here.column(n) for n, c in combination.coefficients.items()), np.zeros_like(gradient))
    scale = max(float(np.linalg.norm(gradient)), float(np.linalg.norm(wanted)), ZERO * here.unit)
    return float(np.linalg.norm(gradient - wanted)) < EXACT * scale


def share_text(share: float) -> str:
    """A share with two digits, also where it is small: ``7%``, ``0.3%``, ``0.002%``."""
    percent = 100 * share
    return f"{percent:.0f}%" if percent >= 1 else f"{percent:.1g}%"


def combination_text(combination: Combination) -> str:
    """``-0.707 reward + 0.05 forward_kl(frozen)``; what is left if it is not exact."""
    if not combination.coefficients:
        return "0"
    parts = [f"{c:+.3g} {n}" for n, c in combination.coefficients.items()]
    text = " ".join(parts).removeprefix("+")
    return text if combination.exact else f"no combination; nearest {text}, {share_text(combination.residual)} left"
