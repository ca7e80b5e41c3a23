r"""Powers of a sequence law, ``p^alpha / Z``, on token trees: per-token laws, low temperature beside them, samplers.

For a prefix s let ``S(s) = \sum_{x : s x} p(x | s)^\alpha``, the alpha-sum of its futures (1 at the end). Then

.. math:: p_\alpha(a | s) = \frac{p(a|s)^\alpha S(s a)}{S(s)}, \qquad S(s) = \sum_a p(a|s)^\alpha S(s a),

which is sampling at temperature ``1/alpha``, ``p(a|s)^\alpha / \sum_b p(b|s)^\alpha``, only where the futures of all
tokens have the same alpha-sum. *Suffix chain*: cut at a uniform place, draw a new suffix from p, accept by Metropolis
and Hastings; a Markov chain on sequences that leaves any target invariant.

A tree is a tuple of levels ``(V**t, V)`` as in `klsim.problems.token_tree`.

Sources: Karan and Du (2025), arXiv:2510.14901 (power sampling, the chain); the alpha-sums are folklore.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from klsim import _validate
from klsim.problems.token_tree import check_levels, sequence_log_probs

__all__ = ["future_sums", "power_levels", "suffix_chain", "temper_levels"]

Levels = tuple[np.ndarray, ...]


def _tree(levels: Sequence[Any]) -> list[np.ndarray]:
    _, _, found = check_levels("levels", levels, policy=True)
    arrays = [np.asarray(level, dtype=np.float64) for level in found]
    if any(level.ndim != 2 for level in arrays):
        _validate.fail("levels", "must be one tree, levels of shape (V**t, V)")
    return arrays


def _times(alpha: float, log_p: np.ndarray) -> np.ndarray:
    """``alpha log p``, tokens without probability stay so at alpha = 0."""
    return np.where(np.isneginf(log_p), -np.inf, alpha * np.where(np.isneginf(log_p), 0.0, log_p))


def future_sums(levels: Sequence[Any], alpha: float) -> Levels:
    """``log S`` of every prefix: H + 1 arrays ``(V**t,)``, the last one 0.

    Raises:
        ValueError: no tree of log-probabilities, ``alpha < 0`` or infinite.
    """
    tree = _tree(levels)
    alpha = _validate.real("alpha", alpha, low=0.0, open_high=True)
    sums = [np.zeros(tree[-1].size)]
    for level in reversed(tree):
        sums.append(np.logaddexp.reduce(_times(alpha, level) + sums[-1].reshape(level.shape), axis=-1))
    return tuple(sums[::-1])


def power_levels(levels: Sequence[Any], alpha: float) -> Levels:
    """The tree of ``p^alpha / Z`` over sequences.

    Raises:
        ValueError: as `future_sums`.
    """
    sums = future_sums(levels, alpha)
    return tuple(
        _times(alpha, level) + after.reshape(level.shape) - before[:, None]
        for level, before, after in zip(_tree(levels), sums, sums[1:])
    )


def temper_levels(levels: Sequence[Any], alpha: float) -> Levels:
    """The tree of sampling token by token at temperature ``1/alpha``.

    Raises:
        ValueError: as `future_sums`.
    """
    tree = _tree(levels)
    alpha = _validate.real("alpha", alpha, low=0.0, open_high=True)
    powered = [_times(alpha, level) for level in tree]
    return tuple(level - np.logaddexp.reduce(level, axis=-1, keepdims=True) for level in powered)


def suffix_chain(levels: Sequence[Any], log_target: Any) -> np.ndarray:
    """Transition matrix ``(V**H, V**H)`` of Metropolis-Hastings over suffixes, from rows to columns.

    A place ``t`` in ``0 … H-1`` is drawn uniformly, the tokens from t on are drawn anew from ``levels``, and the new
    sequence y is taken instead of x with probability ``min(1, target(y) p(x_{>=t}) / (target(x) p(y_{>=t})))``. Rows of
    sequences without probability under ``levels`` stay where they are.

    Args:
        levels: the tree that proposes. log_target: ``(V**H,)``, need not be normalised.

    Raises:
        ValueError: no tree of log-probabilities; a target of another shape, NaN, or with mass where the tree has none.
    """
    tree = _tree(levels)
    log_p = np.asarray(sequence_log_probs(tree))
    (target,) = _validate.numpy_arrays(log_target=log_target)
    if target.shape != log_p.shape:
        _validate.fail("log_target", f"must have shape {log_p.shape}, got {target.shape}")
    _validate.not_nan("log_target", np, target)
    if np.any(np.isneginf(log_p) & ~np.isneginf(target)):
        _validate.fail("log_target", "has mass on a sequence that the tree cannot propose")
    size, horizon = len(log_p), len(tree)
    inside = np.isfinite(log_p)
    chain = np.zeros((size, size))
    with np.errstate(invalid="ignore"):
        weight = np.where(inside, target - np.where(inside, log_p, 0.0), -np.inf)
        # p(suffix | prefix) of both share the prefix, so the ratio of suffixes is that of whole sequences
        accept = np.exp(np.minimum(np.where(np.isneginf(weight)[:, None], 0.0, weight[None] - weight[:, None]), 0.0))
    for t in range(horizon):
        block = size // tree[t].shape[0]  # sequences that share the first t tokens
        for start in range(0, size, block):
            own = slice(start, start + block)
            mass = np.logaddexp.reduce(log_p[own])
            if np.isfinite(mass):
                chain[own, own] += np.exp(log_p[own] - mass) * accept[own, own] / horizon
    chain[~inside] = 0.0
    chain[np.arange(size), np.arange(size)] += 1 - chain.sum(axis=1)
    return chain
