r"""Token trees: sequences of ``horizon`` tokens from a vocabulary of ``V``, all enumerated.

A tree policy is a tuple of ``horizon`` levels; ``levels[t]`` has shape ``(..., V**t, V)`` and holds the
log-probabilities of the next token for every prefix of length ``t``. A node's index is its prefix read
as a number in base V, first token most significant, so the children of node ``s`` are ``s V … s V + V-1``
and a sequence array has shape ``(..., V**H)``. Leading axes are a batch.

Variable length: after the token ``eos`` only ``eos`` follows, with probability 1 and no further reward
(`end_after_eos` makes a policy so). Lengths, masks and KLs then come out right without special cases.

The functions accept NumPy arrays, torch tensors and other array-API arrays; gradients flow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim._sums import log_sum, quiet
from klsim.divergences import GENERATORS, divergence_of

__all__ = [
    "TokenTree",
    "conditionals",
    "end_after_eos",
    "lengths",
    "node_kl",
    "path_sums",
    "restrict",
    "reverse_sums",
    "sequence_log_probs",
    "token_mask",
    "tokens",
    "visit_log_probs",
]

Array = Any
Levels = tuple[Any, ...]


def check_levels(name: str, levels: Sequence[Array], *, policy: bool) -> tuple[Any, ...]:
    """``(xp, V, levels)`` of validated levels ``(..., V**t, V)``.

    Raises:
        ValueError: no level, a wrong shape, rows that are not distributions (for a policy).
    """
    if not isinstance(levels, tuple | list) or not levels:
        raise TypeError(f"{name}: must be a tuple of levels, levels[t] of shape (..., V**t, V)")
    xp, *arrays = _validate.arrays(**{f"{name}[{t}]": level for t, level in enumerate(levels)})
    vocab = arrays[0].shape[-1] if arrays[0].ndim else 0
    try:
        np.broadcast_shapes(*(level.shape[:-2] for level in arrays))
    except ValueError:
        _validate.fail(name, f"leading (batch) axes must broadcast, got {[tuple(x.shape) for x in arrays]}")
    for t, level in enumerate(arrays):
        if level.ndim < 2 or level.shape[-2:] != (vocab**t, vocab) or vocab == 0:
            wanted = f"(..., {vocab**t}, {vocab})"
            _validate.fail(f"{name}[{t}]", f"must have shape {wanted} (vocabulary {vocab}), got {tuple(level.shape)}")
        if policy:
            _validate.log_probs(f"{name}[{t}]", xp, level)
        elif bool(xp.any(xp.isnan(level))):
            _validate.fail(f"{name}[{t}]", "must not be NaN", index=_validate.first_true(xp, xp.isnan(level)))
    return xp, vocab, arrays


@quiet
def path_sums(levels: Sequence[Array]) -> Array:
    """Sum of per-token values along every path: ``(..., V**t, V)`` levels -> ``(..., V**H)``."""
    xp, _, values = check_levels("levels", levels, policy=False)
    total = _path_sums(values)
    index = _validate.first_true(xp, xp.isnan(total))
    if index is not None:
        _validate.fail("levels", "a path has values inf and -inf, or overflows", index=index)
    return total


def _path_sums(values: Sequence[Array]) -> Array:
    total = values[0][..., 0, :]
    for level in values[1:]:
        total = total[..., None] + level
        total = total.reshape(*total.shape[:-2], total.shape[-2] * total.shape[-1])
    return total


@quiet
def sequence_log_probs(levels: Sequence[Array]) -> Array:
    """``log pi(y) = sum_t log pi(y_t | y_<t)`` of all ``V**H`` sequences, shape ``(..., V**H)``."""
    _, _, values = check_levels("levels", levels, policy=True)
    return _path_sums(values)


@quiet
def visit_log_probs(levels: Sequence[Array]) -> Levels:
    """``log d_t(s)``: the probability of every prefix, ``H + 1`` arrays of shape ``(..., V**t)``."""
    xp, _, values = check_levels("levels", levels, policy=True)
    visits = [xp.zeros_like(values[0][..., 0])]
    for level in values:
        new = visits[-1][..., None] + level
        visits.append(new.reshape(*new.shape[:-2], new.shape[-2] * new.shape[-1]))
    return tuple(visits)


@quiet
def conditionals(log_sequence: Array, vocab: int, horizon: int) -> Levels:
    """The tree policy of a law over sequences ``(..., V**H)``: the inverse of `sequence_log_probs`.

    Prefixes of probability 0 get the uniform distribution (they are never visited).

    Raises:
        ValueError: the last axis is not ``vocab ** horizon``, or a row is not a distribution.
    """
    xp, log_mass = _validate.arrays(log_sequence=log_sequence)
    vocab, horizon = _validate.integer("vocab", vocab, low=1), _validate.integer("horizon", horizon, low=1)
    _validate.log_probs("log_sequence", xp, log_mass)
    if log_mass.shape[-1] != _validate.outcomes("vocab", vocab, "horizon", horizon):
        _validate.fail("log_sequence", f"needs {vocab}**{horizon} outcomes, got {log_mass.shape[-1]}")
    levels = []
    for _ in range(horizon):
        rows = log_mass.reshape(*log_mass.shape[:-1], log_mass.shape[-1] // vocab, vocab)
        dead = xp.all(xp.isinf(rows), axis=-1, keepdims=True)
        safe = xp.where(dead, xp.zeros_like(rows), rows)
        total = log_sum(xp, safe, keepdims=True)
        levels.append(safe - total)
        log_mass = xp.where(dead, xp.full_like(total, -math.inf), total)[..., 0]
    return tuple(levels[::-1])


@quiet
def node_kl(levels: Sequence[Array], other: Sequence[Array]) -> Levels:
    """``KL(pi(.|s)‖q(.|s))`` of every node, arrays of shape ``(..., V**t)``."""
    xp, _, p = check_levels("levels", levels, policy=True)
    _, _, q = check_levels("other", other, policy=True)
    if len(p) != len(q):
        _validate.fail("other", f"must have {len(p)} levels, got {len(q)}")
    for t, (a, b) in enumerate(zip(p, q)):
        _validate.arrays(**{f"levels[{t}]": a, f"other[{t}]": b})
        if tuple(a.shape[-2:]) != tuple(b.shape[-2:]):
            _validate.fail("other", f"must have the vocabulary {p[0].shape[-1]} of levels, got {q[0].shape[-1]}")
        _validate.broadcast(levels=a, other=b)
    pairs = [xp.broadcast_arrays(a, b) for a, b in zip(p, q)]
    return tuple(divergence_of(xp, a, b, GENERATORS["kl"]) for a, b in pairs)


def reverse_sums(levels: Sequence[Array], log_policy: Sequence[Array], discount: float = 1.0) -> Levels:
    """Expected return-to-go of per-token values: ``Q(s,a) = x(s,a) + discount * E_pi[Q(sa, .)]``, levels.

    ``discount`` 1 credits a token with all that follows, 0 with its own value only.
    """
    xp, _, values = check_levels("levels", levels, policy=False)
    _, _, policy = check_levels("log_policy", log_policy, policy=True)
    discount = _validate.real("discount", discount, low=0.0, high=1.0)
    if [tuple(x.shape[-2:]) for x in values] != [tuple(x.shape[-2:]) for x in policy]:
        _validate.fail("log_policy", "must be a tree of the vocabulary and horizon of levels")
    for t, (x, p) in enumerate(zip(values, policy)):
        _validate.arrays(**{f"levels[{t}]": x, f"log_policy[{t}]": p})
        _validate.finite(f"levels[{t}]", xp, x)
    out = [values[-1]]
    for x, child in zip(values[-2::-1], policy[:0:-1]):
        value = xp.sum(xp.exp(child) * out[-1], axis=-1)
        out.append(x + discount * value.reshape(*value.shape[:-1], *x.shape[-2:]))
    _validate.representable("levels", xp, *out)
    return tuple(out[::-1])


def tokens(vocab: int, horizon: int) -> np.ndarray:
    """All sequences, ``(V**H, H)`` int64, in the order of sequence arrays; at most 10^8 of them.

    Raises:
        ValueError: ``vocab`` or ``horizon`` below 1, or too many sequences.
    """
    vocab, horizon = _validate.integer("vocab", vocab, low=1), _validate.integer("horizon", horizon, low=1, high=1000)
    count = _validate.outcomes("vocab", vocab, "horizon", horizon, each=8 * (horizon + 3))
    if count > 10**8:
        _validate.fail("horizon", f"{vocab}**{horizon} sequences are too many to list", horizon)
    index = np.arange(count)
    return np.stack([index // vocab ** (horizon - 1 - t) % vocab for t in range(horizon)], axis=1)


def token_mask(vocab: int, horizon: int, eos: int | None) -> np.ndarray:
    """``(V**H, H)`` boolean: token ``t`` is part of the response (up to and including the first ``eos``)."""
    sequences = tokens(vocab, horizon)
    if eos is None:
        return np.ones(sequences.shape, dtype=bool)
    eos = _validate.integer("eos", eos, low=0, high=vocab - 1)
    return np.cumsum(sequences == eos, axis=1) - (sequences == eos) == 0


def lengths(vocab: int, horizon: int, eos: int | None) -> np.ndarray:
    """Number of tokens of every sequence, ``eos`` included, ``(V**H,)``."""
    return token_mask(vocab, horizon, eos).sum(axis=1)


@quiet
def end_after_eos(levels: Sequence[Array], eos: int) -> Levels:
    """The same policy with ``eos`` absorbing: after it, ``eos`` has log-probability 0."""
    xp, vocab, values = check_levels("levels", levels, policy=True)
    eos = _validate.integer("eos", eos, low=0, high=vocab - 1)
    out = []
    for t, level in enumerate(values):
        if t == 0:
            out.append(level)
            continue
        ended = (tokens(vocab, t) == eos).any(axis=1)
        only = np.where(np.arange(vocab) == eos, 0.0, -np.inf)
        fixed = xp.asarray(np.broadcast_to(only, (vocab**t, vocab)).copy(), dtype=level.dtype)
        mask = xp.asarray(np.broadcast_to(ended[:, None], (vocab**t, vocab)).copy())
        out.append(xp.where(mask, fixed, level))
    return tuple(out)


def restrict(levels: Sequence[Array], prefix: Sequence[int]) -> Levels:
    """The policy after a reset to ``prefix``: the subtree below that node, ``H - len(prefix)`` levels.

    Raises:
        ValueError: a prefix as long as the horizon, or a token outside the vocabulary.
    """
    _, vocab, values = check_levels("levels", levels, policy=False)
    prefix = _validate.sequence("prefix", prefix)
    if len(prefix) >= len(values):
        _validate.fail("prefix", f"must be shorter than the horizon {len(values)}, got {len(prefix)} tokens")
    node = 0
    for i, token in enumerate(prefix):
        node = node * vocab + _validate.integer(f"prefix[{i}]", token, low=0, high=vocab - 1)
    return tuple(
        level[..., node * vocab**depth : (node + 1) * vocab**depth, :]
        for depth, level in enumerate(values[len(prefix) :])
    )


@dataclass(frozen=True)
class TokenTree:
    """Sequences of ``horizon`` tokens with a reward for the whole sequence.

    Attributes:
        vocab: V >= 1. horizon: H >= 1.
        reward: of every sequence, ``(..., V**H)``, finite; after ``eos`` the tokens do not matter, so
            only sequences that continue with ``eos`` count.
        eos: the token that ends a response; None if all have ``horizon`` tokens.

    Raises:
        ValueError: a wrong shape, a reward that is not finite, ``eos`` outside the vocabulary.
    """

    vocab: int
    horizon: int
    reward: Any
    eos: int | None = None

    def __post_init__(self) -> None:
        vocab = _validate.integer("vocab", self.vocab, low=1)
        horizon = _validate.integer("horizon", self.horizon, low=1)
        leaves = _validate.outcomes("vocab", vocab, "horizon", horizon)
        xp, reward = _validate.arrays(reward=self.reward)
        if reward.ndim == 0 or reward.shape[-1] != leaves:
            _validate.fail("reward", f"needs {vocab}**{horizon} entries on the last axis, got {tuple(reward.shape)}")
        if self.eos is not None:
            _validate.integer("eos", self.eos, low=0, high=vocab - 1)
        object.__setattr__(self, "reward", _validate.finite("reward", xp, reward))

    def uniform(self) -> Levels:
        """The policy that draws every token (up to ``eos``) uniformly."""
        shape = [(self.vocab**t, self.vocab) for t in range(self.horizon)]
        levels = tuple(np.full(s, -math.log(self.vocab)) for s in shape)
        return levels if self.eos is None else end_after_eos(levels, self.eos)

    def lengths(self) -> np.ndarray:
        """Tokens of every sequence, ``eos`` included."""
        return lengths(self.vocab, self.horizon, self.eos)
