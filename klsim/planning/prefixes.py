r"""Token trees reset to prefixes: values, the law of accepted samples, prefixed objectives, moments of gradients.

``V(s)`` is the expected reward after prefix s. Adding start states to the objective, ``J_pre = V(root) + sum_s V(s)``,
keeps its optimum wherever one policy is best after every added prefix: always for tabular policies, and in a restricted
class if a member succeeds everywhere. A rejection sample, ``mu = pi(.|r = 1)``, has the next-token law
``pi(a|s) V(sa)/V(s)`` and costs ``1/V(root)`` attempts, ``KL(mu‖pi) = -log V(root)``.

Arrays are NumPy, leading axes a batch; nodes as in `klsim.problems.token_tree`.

Source: ``prefixrl`` C1, C3-C5, C7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from klsim import _validate
from klsim.problems.token_tree import check_levels

__all__ = [
    "GradientMoments",
    "accepted_policy",
    "gradient_moments",
    "prefix_node",
    "prefix_values",
    "prefixed_objective",
]

Levels = tuple[np.ndarray, ...]


class GradientMoments(NamedTuple):
    """``|E g|^2`` and ``E|g|^2`` of every prefix below the horizon, ``H`` arrays ``(..., V**t)`` each."""

    squared_mean: Levels
    second: Levels


def _tree(log_policy: Sequence[Any], reward: Any) -> tuple[int, list[np.ndarray], np.ndarray]:
    """``(V, levels of probabilities, reward)``, checked."""
    _, vocab, levels = check_levels("log_policy", log_policy, policy=True)
    levels = [_validate.numpy_arrays(**{f"log_policy[{t}]": level})[0] for t, level in enumerate(levels)]
    (reward,) = _validate.numpy_arrays(reward=reward)
    reward = _validate.finite("reward", np, reward).astype(np.float64)
    if reward.ndim == 0 or reward.shape[-1] != vocab ** len(levels):
        _validate.fail("reward", f"needs {vocab}**{len(levels)} entries on the last axis, got shape {reward.shape}")
    if np.abs(reward).max(initial=0.0) > 1e100:
        _validate.fail("reward", "must be at most 1e100 in size")
    return vocab, [np.exp(level.astype(np.float64)) for level in levels], reward


def _children(values: np.ndarray, vocab: int) -> np.ndarray:
    """Values of nodes ``(..., V**(t+1))`` by parent, ``(..., V**t, V)``."""
    return values.reshape(*values.shape[:-1], values.shape[-1] // vocab, vocab)


def _upwards(policy: list[np.ndarray], leaves: np.ndarray, vocab: int) -> Levels:
    values = [leaves]
    for pi in policy[::-1]:
        values.append(np.sum(pi * _children(values[-1], vocab), axis=-1))
    return tuple(values[::-1])


def prefix_values(log_policy: Sequence[Any], reward: Any) -> Levels:
    """``V(s)``, the expected reward after every prefix: ``H + 1`` arrays ``(..., V**t)``, the last the reward itself.

    Args:
        log_policy: levels ``(..., V**t, V)``. reward: of sequences, ``(..., V**H)``; the batch axes broadcast.
    """
    vocab, policy, reward = _tree(log_policy, reward)
    return _upwards(policy, reward, vocab)


def accepted_policy(log_policy: Sequence[Any], right: Any) -> Levels:
    """The tree policy of a sample that was drawn until it was right: ``mu(a|s) = pi(a|s) V(sa)/V(s)``, levels.

    Prefixes from which nothing right can be reached get the uniform distribution (they are never visited).

    Args:
        right: boolean, of sequences, ``(..., V**H)``.

    Raises:
        ValueError: nothing right has positive probability.
    """
    mask = _validate.boolean_mask("right", right)
    vocab, policy, leaves = _tree(log_policy, mask.astype(np.float64))
    values = _upwards(policy, leaves, vocab)
    index = _validate.first_true(np, values[0] <= 0)
    if index is not None:
        _validate.fail("right", "has probability 0 under log_policy", index=index[:-1] or None)
    out = []
    for pi, value, after in zip(policy, values, values[1:]):
        joint, total = pi * _children(after, vocab), value[..., None]
        law = np.where(total > 0, joint / np.where(total > 0, total, 1.0), 1.0 / vocab)
        with np.errstate(divide="ignore"):
            out.append(np.log(law / law.sum(axis=-1, keepdims=True)))
    return tuple(out)


def prefix_node(prefix: Sequence[int], vocab: int) -> int:
    """The index of a prefix at its depth: its tokens read as a number in base ``vocab``.

    Raises:
        ValueError: a token outside the vocabulary.
    """
    vocab, node = _validate.integer("vocab", vocab, low=1), 0
    for i, token in enumerate(_validate.sequence("prefix", prefix)):
        node = node * vocab + _validate.integer(f"prefix[{i}]", token, low=0, high=vocab - 1)
    return node


def prefixed_objective(log_policy: Sequence[Any], reward: Any, prefixes: Sequence[Sequence[int]]) -> np.ndarray:
    """``J_pre = V(root) + sum over prefixes of V(prefix)``, ``(...)``; a prefix may occur several times.

    Raises:
        ValueError: a prefix longer than the horizon, a token outside the vocabulary.
    """
    values = prefix_values(log_policy, reward)
    vocab, total = np.shape(log_policy[0])[-1], values[0][..., 0]
    for i, prefix in enumerate(_validate.sequence("prefixes", prefixes)):
        prefix = _validate.sequence(f"prefixes[{i}]", prefix)
        if len(prefix) >= len(values):
            _validate.fail(f"prefixes[{i}]", f"must have at most {len(values) - 1} tokens, got {len(prefix)}")
        total = total + values[len(prefix)][..., prefix_node(prefix, vocab)]
    return np.asarray(total)


def gradient_moments(log_policy: Sequence[Any], reward: Any, *, baseline: bool = True) -> GradientMoments:
    r"""Moments of one sample's ``g = (r - b) sum_t grad log pi(y_t|.)`` after a reset to each prefix, exactly.

    ``|E g|^2 = sum_{s'} P(s'|s)^2 sum_a (pi(a|s') (Q - V))^2`` over the prefixes at or below s, and
    ``E|g|^2 = E[(r - b)^2 sum_t |e_{y_t} - pi|^2]``: one logit for every prefix and token, no gradient on tokens of
    the prefix itself.

    Args:
        baseline: ``b = V(s)`` of the prefix; otherwise 0.
    """
    vocab, policy, reward = _tree(log_policy, reward)
    baseline = _validate.flag("baseline", baseline)
    powers = [_upwards(policy, reward**k, vocab) for k in range(3)]
    mean, below = np.zeros_like(reward), [np.zeros_like(reward) for _ in powers]
    squared, second = [], []
    for t in reversed(range(len(policy))):
        pi, value = policy[t], powers[1][t]
        gain = pi * (_children(powers[1][t + 1], vocab) - value[..., None])
        mean = np.sum(gain**2 + pi**2 * _children(mean, vocab), axis=-1)
        norm = 1 - 2 * pi + np.sum(pi**2, axis=-1, keepdims=True)
        below = [
            np.sum(pi * (norm * _children(power[t + 1], vocab) + _children(rest, vocab)), axis=-1)
            for power, rest in zip(powers, below)
        ]
        b = value if baseline else np.zeros_like(value)
        squared.append(mean)
        second.append(np.maximum(below[2] - 2 * b * below[1] + b**2 * below[0], 0.0))
    return GradientMoments(tuple(squared[::-1]), tuple(second[::-1]))
