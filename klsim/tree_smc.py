r"""The exact law of sequential Monte Carlo on a token tree, and the moments of its estimate of the normaliser.

Given the weighted particles, those of the next step are independent draws from one law on prefixes: that of a parent in
proportion to its weight and a token from the proposal. What matters is therefore the multiset of particles, and its
steps are multinomial: the law over multisets is followed from the root to the end, with the mean of the normaliser and
of its square on every multiset.

Source: derived here; the algorithm is `klsim.sequence_samplers.smc`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb, lgamma
from typing import Any

import numpy as np

from klsim import _validate
from klsim._shown import Shown
from klsim.problems.token_tree import check_levels

__all__ = ["SMCLaw", "smc_law"]

_MANY = 2_000_000


@dataclass(frozen=True, repr=False)
class SMCLaw(Shown):
    """Of sequential Monte Carlo with n particles.

    Attributes:
        log_law: of the sequence that is returned, ``(V**H,)``. log_mean: log of the mean of the estimate of the
            normaliser. relative_variance: ``Var Z^ / (E Z^)^2``. mean_log: ``E log Z^``, -inf where all weights may be
            0.
    """

    log_law: np.ndarray
    log_mean: float
    relative_variance: float
    mean_log: float


@dataclass
class _State:
    """A multiset of particles: its probability, and ``E[Z; here]``, ``E[Z^2; here]``, ``E[log Z; here]``."""

    probability: float
    mean: float
    square: float
    log: float


def smc_law(levels: Sequence[Any], twists: Sequence[Any], n: int, *, proposal: Sequence[Any] | None = None) -> SMCLaw:
    """The law of `klsim.sequence_samplers.smc` on a tree.

    Args:
        levels: the tree. twists: ``log psi`` of prefixes of 1 … H tokens, H arrays ``(V**t,)``; the last is the weight.
        n: particles. proposal: a tree of the same shape with every token that ``levels`` has; ``levels`` by default.

    Raises:
        ValueError: no trees of the same shape, a proposal without a token of the law, twists of other shapes, NaN or
            +inf, ``n < 1``, more than two million steps between multisets.
    """
    law = _tree("levels", levels)
    drawn = law if proposal is None else _tree("proposal", proposal)
    if [x.shape for x in law] != [x.shape for x in drawn]:
        _validate.fail("proposal", "must be a tree of the shape of levels")
    n = _validate.integer("n", n, low=1)
    psi, shift = _twists(twists, law)
    for t, (one, other) in enumerate(zip(law, drawn)):
        if np.any(np.isneginf(other) & np.isfinite(one)):
            _validate.fail(f"proposal[{t}]", "lacks a token that levels has")
    vocab = law[0].shape[-1]
    states = {(0,) * n: _State(1.0, 1.0, 1.0, 0.0)}
    shares = {(0,) * n: np.full(n, 1.0 / n)}
    for t in range(len(law)):
        moved: dict[tuple[int, ...], _State] = {}
        for particles, state in states.items():
            _spread(particles, shares[particles], state, drawn[t], n, vocab, moved)
        states, shares = _weigh(moved, t, law, drawn, psi, vocab)
    out = np.zeros(len(psi[-1]))
    for particles, state in states.items():
        np.add.at(out, list(particles), state.probability * shares[particles])
    total = {name: sum(getattr(s, name) for s in states.values()) for name in ("mean", "square", "log")}
    mean = float(total["mean"])
    spread = total["square"] / mean**2 - 1 if mean > 0 else np.inf
    with np.errstate(divide="ignore"):
        log_law = np.log(out)
        log_mean = float(np.log(mean) + shift)
    return SMCLaw(log_law, log_mean, max(float(spread), 0.0), float(total["log"] + shift))


def _tree(name: str, levels: Sequence[Any]) -> list[np.ndarray]:
    _, _, found = check_levels(name, levels, policy=True)
    if any(level.ndim != 2 for level in found):
        _validate.fail(name, "must be one tree, levels of shape (V**t, V)")
    return [np.asarray(level, dtype=np.float64) for level in found]


def _twists(twists: Sequence[Any], law: list[np.ndarray]) -> tuple[list[np.ndarray], float]:
    """Every length's twists less their maximum, which cancels; and the maximum of the last, which does not."""
    given = _validate.sequence("twists", twists)
    if len(given) != len(law):
        _validate.fail("twists", f"needs {len(law)} arrays, one for each length, got {len(given)}")
    out = []
    for t, row in enumerate(given):
        (found,) = _validate.numpy_arrays(**{f"twists[{t}]": row})
        if found.shape != (law[t].size,):
            _validate.fail(f"twists[{t}]", f"must have shape ({law[t].size},), got {found.shape}")
        if np.any(np.isnan(found) | np.isposinf(found)):
            _validate.fail(f"twists[{t}]", "must be numbers < inf")
        peak = float(found.max()) if np.isfinite(found.max()) else 0.0
        out.append(found.astype(np.float64) - peak)
    return out, peak


def _spread(
    particles: tuple[int, ...],
    shares: np.ndarray,
    state: _State,
    drawn: np.ndarray,
    n: int,
    vocab: int,
    moved: dict[tuple[int, ...], _State],
) -> None:
    """Adds the multisets that follow one: n independent draws of a parent and a token."""
    chances: dict[int, float] = {}
    for parent, share in zip(particles, shares):
        if share > 0:
            for token, chance in enumerate(share * np.exp(drawn[parent])):
                if chance > 0:
                    chances[parent * vocab + token] = chances.get(parent * vocab + token, 0.0) + float(chance)
    children = sorted(chances)
    if comb(n + len(children) - 1, n) * (len(moved) + 1) > 50 * _MANY or comb(n + len(children) - 1, n) > _MANY:
        _validate.fail("n", "gives too many multisets of particles", n)
    log_chance = {child: float(np.log(chances[child])) for child in children}
    for after in combinations_with_replacement(children, n):
        exponent, run = lgamma(n + 1), 0
        for i, child in enumerate(after):
            run = run + 1 if i and after[i - 1] == child else 1
            exponent += log_chance[child] - float(np.log(run))
        chance = float(np.exp(exponent))
        found = moved.setdefault(after, _State(0.0, 0.0, 0.0, 0.0))
        found.probability += state.probability * chance
        found.mean += state.mean * chance
        found.square += state.square * chance
        found.log += state.log * chance


def _weigh(
    moved: dict[tuple[int, ...], _State],
    t: int,
    law: list[np.ndarray],
    drawn: list[np.ndarray],
    psi: list[np.ndarray],
    vocab: int,
) -> tuple[dict[tuple[int, ...], _State], dict[tuple[int, ...], np.ndarray]]:
    """The same states with the step's mean weight in their moments, and the shares of the particles."""
    shares = {}
    flat_law, flat_drawn = law[t].ravel(), drawn[t].ravel()
    for particles, state in moved.items():
        at = np.array(particles)
        before = psi[t - 1][at // vocab] if t else np.zeros(len(at))
        gone = np.isneginf(before) | np.isneginf(flat_law[at])
        with np.errstate(invalid="ignore"):
            log_w = np.where(gone, -np.inf, flat_law[at] - flat_drawn[at] + psi[t][at] - np.where(gone, 0.0, before))
        total = np.logaddexp.reduce(log_w)
        alive = np.isfinite(total)
        shares[particles] = np.exp(log_w - total) if alive else np.full(len(at), 1.0 / len(at))
        factor = float(np.exp(total)) / len(at)
        state.mean *= factor
        state.square *= factor**2
        if state.probability > 0:
            state.log = state.log + state.probability * float(np.log(factor)) if alive else -np.inf
    return moved, shares
