r"""Samplers of tilted and powered sequence laws, for anything that gives next-token log-probabilities.

A *law* is a function from prefixes ``(B, t)``, integers ``0 … V-1``, to log-probabilities ``(B, V)``: a tree
(`tree_law`) or a language model (`klsim.lm.samplers.next_token_law`). Sequences have ``horizon`` tokens. A *weight* is
a function of tokens ``(B, t)`` and their log-probability ``(B,)`` under the law to ``log w (B,)``; the target is
``p w/Z``, ``Z = E_p[w]``: ``w = p^{alpha-1}`` (`power_weight`), ``w = e^{r/beta}`` (`reward_weight`).

*Importance resampling*: one of n sequences from p, in proportion to w (`importance_resample`).

*Sequential Monte Carlo*: n particles; tokens from a proposal q; a particle's weight at step t is

.. math:: \frac{p(a|s)\, \psi_{t+1}(sa)}{q(a|s)\, \psi_t(s)}, \qquad \psi_0 = 1,\; \psi_H = w,

and all particles are drawn anew in proportion (`smc`). The *twist* ``psi`` is a weight that is also asked for prefixes.
The product of the mean weights has the mean Z whatever twist and proposal are; with the exact twist ``E_p[w | s]``
(`exact_twists`) and the proposal ``q \propto p psi`` (`adapted_proposal`) every particle has the target's law. A twist
may be learned from sequences of p (`fit_twist`).

*Metropolis-Hastings over suffixes*: cut at a uniform place, draw the rest anew, accept with ``min(1, w'/w)``
(`suffix_metropolis`); its transition matrix on a tree is `klsim.power.suffix_chain`.

The law of what `smc` returns, and the first two moments of its normaliser, are in `klsim.tree_smc`; that of importance
resampling is `klsim.selection_rules.weighted_choice`.

Sources: Karan and Du (2025), arXiv:2510.14901 (powers, suffixes); Zhao, Brekelmans, Makhzani and Grosse (2024),
arXiv:2404.17546 (twisted SMC of language models); Del Moral (2004), Feynman-Kac Formulae (unbiased normalisers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim._shown import Shown
from klsim.problems.token_tree import check_levels, sequence_log_probs, visit_log_probs

__all__ = [
    "Chains",
    "Law",
    "Particles",
    "Proposal",
    "Weight",
    "adapted_proposal",
    "draw_sequences",
    "exact_twists",
    "fit_twist",
    "importance_resample",
    "power_weight",
    "reward_weight",
    "smc",
    "suffix_metropolis",
    "table_weight",
    "tempered_proposal",
    "tree_law",
]

_CELLS = 1_000_000  # comparisons at once

Law = Callable[[np.ndarray], np.ndarray]
"""Prefixes ``(B, t)`` to next-token log-probabilities ``(B, V)``."""
Weight = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Tokens ``(B, t)`` and their log-probabilities ``(B,)`` to ``log w (B,)``."""
Proposal = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Prefixes ``(B, t)``, their log-probabilities ``(B,)``, those of the next token ``(B, V)`` to others, normalised."""


@dataclass(frozen=True, repr=False)
class Particles(Shown):
    """``size`` runs of a sampler with n sequences each.

    Attributes:
        tokens: of the sequence that each run returns, ``(size, H)``. log_p: its log-probability under the law.
        log_weight: its ``log w``. log_normalizer: log of each run's estimate of ``Z``, ``(size,)``; -inf if all weights
            were 0.
    """

    tokens: np.ndarray
    log_p: np.ndarray
    log_weight: np.ndarray
    log_normalizer: np.ndarray


@dataclass(frozen=True, repr=False)
class Chains(Shown):
    """``size`` Markov chains after their steps.

    Attributes:
        tokens: ``(size, H)``. log_p, log_weight: ``(size,)``. accepted: share of accepted moves.
    """

    tokens: np.ndarray
    log_p: np.ndarray
    log_weight: np.ndarray
    accepted: float


def tree_law(levels: Sequence[Any]) -> Law:
    """The law of a tree policy, levels ``(V**t, V)``.

    Raises:
        ValueError: no tree of log-probabilities.
    """
    _, vocab, found = check_levels("levels", levels, policy=True)
    rows = [np.asarray(level, dtype=np.float64) for level in found]
    if any(level.ndim != 2 for level in rows):
        _validate.fail("levels", "must be one tree, levels of shape (V**t, V)")

    def law(prefix: np.ndarray) -> np.ndarray:
        length = prefix.shape[1]
        if length >= len(rows):
            _validate.fail("levels", f"has {len(rows)} levels, and a token after {length} was asked for")
        return rows[length][_numbers(prefix, vocab)]

    return law


def _numbers(tokens: np.ndarray, vocab: int) -> np.ndarray:
    """Index of prefixes ``(B, t)`` among the ``V**t`` of their length."""
    out = np.zeros(len(tokens), dtype=np.int64)
    for column in tokens.T:
        out = out * vocab + column
    return out


def power_weight(alpha: float) -> Weight:
    """``p^{alpha-1}``, so that the target is ``p^alpha``; as a twist: the power of the prefix.

    Raises:
        ValueError: ``alpha < 0`` or infinite.
    """
    alpha = _validate.real("alpha", alpha, low=0.0, open_high=True)

    def weight(tokens: np.ndarray, log_p: np.ndarray) -> np.ndarray:
        return (alpha - 1) * log_p

    return weight


def reward_weight(reward: Callable[[np.ndarray], Any], beta: float) -> Weight:
    """``e^{r/beta}`` of a reward ``tokens (B, t) -> (B,)``.

    Raises:
        TypeError: a reward that is no function. ValueError: ``beta <= 0``.
    """
    reward = _validate.function("reward", reward)
    beta = _validate.real("beta", beta, low=0.0, open_low=True, open_high=True)

    def weight(tokens: np.ndarray, log_p: np.ndarray) -> np.ndarray:
        return np.asarray(reward(tokens), dtype=np.float64) / beta

    return weight


def table_weight(tables: Sequence[Any]) -> Weight:
    """A weight, or twist, of a tree from the values at its prefixes: ``tables[t-1]`` of shape ``(V**t,)``, t = 1 … H.

    Raises:
        ValueError: no tables, or of other shapes.
    """
    given = enumerate(_validate.sequence("tables", tables))
    rows = [_validate.numpy_arrays(**{f"tables[{t}]": row})[0].astype(np.float64) for t, row in given]
    vocab = len(rows[0]) if rows and rows[0].ndim == 1 else 0
    for t, row in enumerate(rows, 1):
        if row.shape != (vocab**t,) or np.isnan(row).any():
            _validate.fail(f"tables[{t - 1}]", f"must have shape ({vocab**t},) and no NaN, got {row.shape}")
    if not rows:
        _validate.fail("tables", "needs at least one table")

    def weight(tokens: np.ndarray, log_p: np.ndarray) -> np.ndarray:
        return rows[tokens.shape[1] - 1][_numbers(tokens, vocab)]

    return weight


def exact_twists(levels: Sequence[Any], log_weight: Any) -> tuple[np.ndarray, ...]:
    """``log E_p[w | s]`` of the prefixes of a tree, for `table_weight`: H arrays ``(V**t,)``, t = 1 … H.

    Args:
        log_weight: of all sequences, ``(V**H,)``. Prefixes without probability have the twist ``-inf``.

    Raises:
        ValueError: no tree of log-probabilities, weights of another shape, NaN or +inf.
    """
    whole = np.asarray(sequence_log_probs(levels))
    (log_weight,) = _validate.numpy_arrays(log_weight=log_weight)
    if whole.ndim != 1 or log_weight.shape != whole.shape:
        _validate.fail(
            "log_weight", f"must have the shape {whole.shape} of one tree's sequences, got {log_weight.shape}"
        )
    _validate.not_nan("log_weight", np, log_weight)
    if np.any(np.isposinf(log_weight)):
        _validate.fail("log_weight", "must be < inf")
    vocab = np.asarray(levels[0]).shape[-1]
    mass = np.where(np.isneginf(whole), -np.inf, whole + np.where(np.isneginf(whole), 0.0, log_weight))
    out = []
    for t, visit in enumerate(visit_log_probs(levels)[1:], 1):
        total = np.logaddexp.reduce(mass.reshape(vocab**t, -1), axis=1)
        seen = np.asarray(visit)
        out.append(np.where(np.isneginf(seen), -np.inf, total - np.where(np.isneginf(seen), 0.0, seen)))
    return tuple(out)


def tempered_proposal(alpha: float) -> Proposal:
    """Next tokens at temperature ``1/alpha``.

    Raises:
        ValueError: ``alpha < 0`` or infinite.
    """
    alpha = _validate.real("alpha", alpha, low=0.0, open_high=True)

    def proposal(tokens: np.ndarray, log_p: np.ndarray, log_next: np.ndarray) -> np.ndarray:
        powered = np.where(np.isneginf(log_next), -np.inf, alpha * np.where(np.isneginf(log_next), 0.0, log_next))
        return powered - np.logaddexp.reduce(powered, axis=-1, keepdims=True)

    return proposal


def adapted_proposal(twist: Weight) -> Proposal:
    """``q(a|s)`` proportional to ``p(a|s) psi(sa)``: every next token is weighed before one is drawn.

    Where all of them have the twist 0 it is p.
    """
    twist = _validate.function("twist", twist)

    def proposal(tokens: np.ndarray, log_p: np.ndarray, log_next: np.ndarray) -> np.ndarray:
        rows, vocab = log_next.shape
        longer = np.concatenate([np.repeat(tokens, vocab, axis=0), np.tile(np.arange(vocab), rows)[:, None]], axis=1)
        ahead = _weights("twist", twist, longer, np.repeat(log_p, vocab) + log_next.ravel()).reshape(rows, vocab)
        powered = np.where(np.isneginf(log_next), -np.inf, log_next + np.where(np.isneginf(log_next), 0.0, ahead))
        total = np.logaddexp.reduce(powered, axis=-1, keepdims=True)
        return np.where(np.isneginf(total), log_next, powered - np.where(np.isneginf(total), 0.0, total))

    return proposal


def _weights(name: str, weight: Weight, tokens: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    found = _answer(name, weight(tokens, np.where(np.isneginf(log_p), 0.0, log_p)))
    if found.shape != log_p.shape:
        _validate.fail(name, f"must return one number for each of {len(log_p)} sequences, got shape {found.shape}")
    index = _validate.first_true(np, np.isnan(found) | np.isposinf(found))
    if index is not None:
        _validate.fail(name, "must return numbers < inf", float(found[index]), index)
    return found


def _answer(name: str, value: Any) -> np.ndarray:
    """What a caller's function returned, as numbers."""
    return np.asarray(_validate.numpy_arrays(**{name: value})[0], dtype=np.float64)


def _next(law: Law, prefix: np.ndarray) -> np.ndarray:
    found = _answer("law", law(prefix))
    if found.ndim != 2 or len(found) != len(prefix):
        _validate.fail("law", f"must return (B, V) log-probabilities for {len(prefix)} prefixes, got {found.shape}")
    return found


def _pick(log_q: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One index a row of log-probabilities ``(B, V)``, by inversion of one uniform number a row."""
    upto = np.cumsum(np.exp(log_q - log_q.max(axis=1, keepdims=True)), axis=1)
    u = rng.random(len(log_q))[:, None] * upto[:, -1:]
    return np.asarray((upto <= u).sum(axis=1))


def _take(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.asarray(np.take_along_axis(values, index[:, None], axis=1)[:, 0])


def _sizes(horizon: Any, size: Any, n: Any = 1) -> tuple[int, int, int]:
    horizon, size, n = (
        _validate.integer(name, value, low=1) for name, value in (("horizon", horizon), ("size", size), ("n", n))
    )
    _validate.fits("size", size, size * n, each=8 * (horizon + 8))
    return horizon, size, n


def draw_sequences(law: Law, horizon: int, size: int, rng: np.random.Generator | int) -> tuple[np.ndarray, np.ndarray]:
    """``(tokens (size, H), log-probabilities of every token (size, H))`` drawn from the law.

    Raises:
        ValueError: sizes below 1, a law that does not return ``(B, V)`` log-probabilities.
    """
    law = _validate.function("law", law)
    horizon, size, _ = _sizes(horizon, size)
    rng = _validate.generator(rng)
    tokens, log_p = np.zeros((size, 0), dtype=np.int64), np.zeros((size, 0))
    for _ in range(horizon):
        log_next = _next(law, tokens)
        chosen = _pick(log_next, rng)
        tokens = np.column_stack([tokens, chosen])
        log_p = np.column_stack([log_p, _take(log_next, chosen)])
    return tokens, log_p


def importance_resample(
    law: Law, weight: Weight, horizon: int, n: int, size: int, rng: np.random.Generator | int
) -> Particles:
    """``size`` runs: one of n sequences from the law, in proportion to its weight (any, where all are 0).

    Raises:
        ValueError: sizes below 1; a law or weight that returns other shapes, NaN or +inf.
    """
    weight = _validate.function("weight", weight)
    horizon, size, n = _sizes(horizon, size, n)
    rng = _validate.generator(rng)
    tokens, parts = draw_sequences(law, horizon, size * n, rng)
    log_p = parts.sum(axis=1)
    log_w = _weights("weight", weight, tokens, log_p)
    return _chosen(tokens, log_p, log_w, log_w.reshape(size, n), np.zeros(size), rng)


def _chosen(
    tokens: np.ndarray,
    log_p: np.ndarray,
    log_w: np.ndarray,
    last: np.ndarray,
    log_z: np.ndarray,
    rng: np.random.Generator,
) -> Particles:
    """One particle of every run, in proportion to its last weight; ``last (size, n)``."""
    size, n = last.shape
    log_z, shares = _reweigh(last, log_z)
    row = np.arange(size) * n + _pick(shares, rng)
    return Particles(tokens[row], log_p[row], log_w[row], log_z)


def _reweigh(weights: np.ndarray, log_z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(log Z with the mean weight, log-shares (size, n))``; equal shares where all weights are 0."""
    total = np.logaddexp.reduce(weights, axis=1)
    dead = np.asarray(np.isneginf(total))
    shares = np.where(dead[:, None], 0.0, weights - np.where(dead, 0.0, total)[:, None])
    return log_z + total - np.log(weights.shape[1]), shares


def smc(
    law: Law,
    twist: Weight,
    horizon: int,
    n: int,
    size: int,
    rng: np.random.Generator | int,
    *,
    proposal: Proposal | None = None,
) -> Particles:
    """``size`` runs of sequential Monte Carlo with n particles, resampled after every token (multinomially).

    Args:
        twist: asked for prefixes of 1 … H tokens; at H it is the weight of the target. proposal: the law by default.

    Raises:
        ValueError: sizes below 1; a law, twist or proposal that returns other shapes, NaN or +inf.
    """
    law = _validate.function("law", law)
    twist = _validate.function("twist", twist)
    horizon, size, n = _sizes(horizon, size, n)
    rng = _validate.generator(rng)
    proposal = None if proposal is None else _validate.function("proposal", proposal)
    tokens, log_p = np.zeros((size * n, 0), dtype=np.int64), np.zeros(size * n)
    before, log_z = np.zeros(size * n), np.zeros(size)
    for t in range(horizon):
        log_next = _next(law, tokens)
        log_q = log_next if proposal is None else _proposed(proposal, tokens, log_p, log_next)
        chosen = _pick(log_q, rng)
        tokens = np.column_stack([tokens, chosen])
        step = _take(log_next, chosen)
        log_p = log_p + step
        after = _weights("twist", twist, tokens, log_p)
        after = np.where(np.isneginf(log_p), -np.inf, after)
        gained = step - _take(log_q, chosen) + after - np.where(np.isneginf(before), 0.0, before)
        gained = np.where(np.isneginf(before), -np.inf, gained).reshape(size, n)
        if t + 1 == horizon:
            return _chosen(tokens, log_p, after, gained, log_z, rng)
        log_z, shares = _reweigh(gained, log_z)
        parent = _parents(shares, rng)
        tokens, log_p, before = tokens[parent], log_p[parent], after[parent]
    raise AssertionError


def _parents(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Row numbers of n parents for every run ``(size * n,)``, drawn from its shares ``(size, n)``."""
    size, n = shares.shape
    upto = np.cumsum(np.exp(shares - shares.max(axis=1, keepdims=True)), axis=1)
    u = rng.random((size, n)) * upto[:, -1:]
    if size * n * n <= _CELLS:
        return np.asarray(((upto[:, None] <= u[..., None]).sum(axis=2) + np.arange(size)[:, None] * n).ravel())
    return np.concatenate([i * n + np.searchsorted(upto[i], u[i], side="right") for i in range(size)])


def _proposed(proposal: Proposal, tokens: np.ndarray, log_p: np.ndarray, log_next: np.ndarray) -> np.ndarray:
    found = _answer("proposal", proposal(tokens, log_p, log_next))
    if found.shape != log_next.shape:
        _validate.fail("proposal", f"must return the shape {log_next.shape} of log_next, got {found.shape}")
    _validate.log_probs("proposal", np, found)
    return found


def suffix_metropolis(
    law: Law,
    weight: Weight,
    horizon: int,
    steps: int,
    size: int,
    rng: np.random.Generator | int,
) -> Chains:
    """``size`` chains that begin with sequences of the law: cut at a uniform place, a new suffix, ``min(1, w'/w)``.

    Raises:
        ValueError: sizes below 1, ``steps < 0``; a law or weight that returns other shapes, NaN or +inf.
    """
    law, weight = _validate.function("law", law), _validate.function("weight", weight)
    horizon, size, _ = _sizes(horizon, size)
    steps = _validate.integer("steps", steps, low=0)
    rng = _validate.generator(rng)
    tokens, parts = draw_sequences(law, horizon, size, rng)
    log_w, accepted = _weights("weight", weight, tokens, parts.sum(axis=1)), 0
    for _ in range(steps):
        cut = rng.integers(0, horizon, size)
        new, new_parts = tokens.copy(), parts.copy()
        for t in range(int(cut.min()), horizon):
            moved = np.flatnonzero(cut <= t)
            log_next = _next(law, new[moved, :t])
            chosen = _pick(log_next, rng)
            new[moved, t], new_parts[moved, t] = chosen, _take(log_next, chosen)
        new_w = _weights("weight", weight, new, new_parts.sum(axis=1))
        gain = new_w - np.where(np.isneginf(log_w), 0.0, log_w)
        taken = np.isneginf(log_w) | (np.log1p(-rng.random(size)) <= gain)
        accepted += int(taken.sum())
        tokens, parts = (np.where(taken[:, None], a, b) for a, b in ((new, tokens), (new_parts, parts)))
        log_w = np.where(taken, new_w, log_w)
    return Chains(tokens, parts.sum(axis=1), log_w, accepted / max(steps * size, 1))


def fit_twist(
    law: Law,
    weight: Weight,
    horizon: int,
    features: Callable[[np.ndarray, np.ndarray], Any],
    samples: int,
    rng: np.random.Generator | int,
    *,
    ridge: float = 1e-6,
) -> Weight:
    """A learned twist: ``log w`` by least squares on features of the prefix, length by length, from drawn sequences.

    ``E[log w | s]`` is what it tends to; it is below the exact ``log E[w | s]``, and SMC stays unbiased with either. At
    the full length the twist is the weight itself.

    Args:
        features: tokens ``(B, t)`` and log-probabilities ``(B,)`` to ``(B, F)``; a constant is added.
        samples: sequences to learn from. ridge: penalty on coefficients but the constant, times their number.

    Raises:
        ValueError: sizes below 1, ``ridge < 0``; weights that are 0 on a sample (their log has no mean); features that
            are not finite.
    """
    weight, features = _validate.function("weight", weight), _validate.function("features", features)
    ridge = _validate.real("ridge", ridge, low=0.0, open_high=True)
    tokens, parts = draw_sequences(law, horizon, samples, rng)
    log_w = _weights("weight", weight, tokens, parts.sum(axis=1))
    if np.isneginf(log_w).any():
        _validate.fail("weight", "is 0 on a sample: its logarithm cannot be fitted")
    fits = []
    for t in range(1, tokens.shape[1]):
        x = _features(features, tokens[:, :t], parts[:, :t].sum(axis=1))
        centre = x.mean(axis=0)
        spread = x - centre
        gram = spread.T @ spread / len(x) + ridge * np.eye(x.shape[1])
        slope = np.linalg.lstsq(gram, spread.T @ (log_w - log_w.mean()) / len(x), rcond=None)[0]
        fits.append((slope, float(log_w.mean() - centre @ slope)))

    def twist(prefix: np.ndarray, log_p: np.ndarray) -> np.ndarray:
        if prefix.shape[1] == tokens.shape[1]:
            return _weights("weight", weight, prefix, log_p)
        slope, constant = fits[prefix.shape[1] - 1]
        return np.asarray(_features(features, prefix, log_p) @ slope + constant)

    return twist


def _features(features: Callable[[np.ndarray, np.ndarray], Any], tokens: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    found = _answer("features", features(tokens, log_p))
    if found.ndim != 2 or len(found) != len(tokens) or not np.all(np.isfinite(found)):
        _validate.fail("features", f"must return finite (B, F) numbers for {len(tokens)} prefixes, got {found.shape}")
    return found
