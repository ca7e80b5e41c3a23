r"""Decoding orders of masked-diffusion models, for many models at once.

`klsim.problems.masked_diffusion` holds one tabular model; here leading axes are a batch (problems, seeds), and a model
is either the law of whole sequences whose conditionals it uses (*consistent*) or the conditionals themselves, those of
a network. Everything is exact: one token is committed a step, and the mass of every partially masked sequence is moved
on (`klsim.kernels.decoding`).

States are numbered in base ``V + 1`` with the mask as digit ``V``, first position most significant; answers in base V.

Source: ``flexibility-trap``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.kernels import decoding as kernel

__all__ = ["Decoded", "decode_conditionals", "decode_joint", "order_log_likelihood", "state_marginals"]

RULES = {"random": kernel.RANDOM, "confidence": kernel.CONFIDENCE, "entropy": kernel.ENTROPY,
         "top_prob": kernel.TOP_PROB}  # fmt: skip
Rule = str | Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Decoded:
    """What decoding gives.

    Attributes:
        law: probabilities of all answers, ``(..., V**L)``.
        entropy: expected entropy of the law that each position is drawn from when it is decoded, ``(..., L)``, nats.
    """

    law: np.ndarray
    entropy: np.ndarray


def _sizes(vocab: int, length: int) -> tuple[int, int, int]:
    vocab, length = _validate.integer("vocab", vocab, low=1), _validate.integer("length", length, low=1)
    states = _validate.outcomes("vocab", vocab + 1, "length", length)
    if states > 10**6:
        _validate.fail("length", f"a model of {vocab + 1}**{length} states is too large (10^6)", length)
    return vocab, length, states


def _joint(log_joint: Any, vocab: int, length: int) -> np.ndarray:
    (log_joint,) = _validate.numpy_arrays(log_joint=log_joint)
    _validate.log_probs("log_joint", np, log_joint)
    if log_joint.shape[-1] != vocab**length:
        _validate.fail("log_joint", f"must have shape (..., {vocab**length}), got {log_joint.shape}")
    return np.exp(log_joint.astype(np.float64))


def state_marginals(log_joint: Any, vocab: int, length: int) -> np.ndarray:
    """Probability of what every state shows, ``(..., V**L) -> (..., (V+1)**L)``.

    The conditional of a masked position is the marginal with that token over the marginal without.

    Raises:
        ValueError: not a law over ``vocab**length`` answers; more than 10^6 states.
    """
    vocab, length, states = _sizes(vocab, length)
    joint = _joint(log_joint, vocab, length)
    lead = joint.shape[:-1]
    table = joint.reshape(*lead, *(vocab,) * length)
    for axis in range(len(lead), len(lead) + length):
        table = np.concatenate([table, table.sum(axis=axis, keepdims=True)], axis=axis)
    return table.reshape(*lead, states)


def _mode(rule: Rule, states: int, length: int) -> tuple[int, np.ndarray]:
    """The kernel's number of a rule, and scores ``(..., S, L)``."""
    nothing = np.zeros((1, 1, length))
    if isinstance(rule, str):
        if rule == "left_to_right":
            return kernel.SCORED, np.broadcast_to(np.arange(float(length)), (1, states, length))
        return RULES[_validate.one_of("rule", rule, ("left_to_right", *RULES))], nothing
    (scores,) = _validate.numpy_arrays(rule=rule)
    if scores.ndim == 1:
        if sorted(scores.tolist()) != list(range(length)):
            _validate.fail("rule", f"must be a permutation of 0 … {length - 1}, scores, or a name")
        ranks = np.argsort(scores).astype(np.float64)
        return kernel.SCORED, np.broadcast_to(ranks, (1, states, length))
    if scores.shape[-2:] != (states, length):
        _validate.fail("rule", f"scores must have shape (..., {states}, {length}), got {scores.shape}")
    return kernel.SCORED, _validate.finite("rule", np, scores).astype(np.float64)


def _decoded(
    source: np.ndarray, consistent: bool, sizes: tuple[int, int, int], rule: Rule, temperature: float, block: int | None
) -> Decoded:
    vocab, length, states = sizes
    temperature = _validate.real("temperature", temperature, low=1e-3)
    block = length if block is None else _validate.integer("block", block, low=1, high=length)
    mode, scores = _mode(rule, states, length)
    lead = source.shape[:-1]
    if scores.ndim > 2 and scores.shape[:-2] not in (lead, (1,)):
        _validate.fail("rule", f"scores must have leading axes {lead}, got {scores.shape[:-2]}")
    flat = np.ascontiguousarray(source.reshape(-1, source.shape[-1]))
    rows = np.ascontiguousarray(scores.reshape(-1, *scores.shape[-2:]))
    powers = flat if temperature == 1 else flat ** (1 / temperature)
    law, entropy = kernel.decode(flat, powers, consistent, rows, vocab, length, temperature, block, mode)
    return Decoded(law.reshape(*lead, vocab**length), entropy.reshape(*lead, length))


def decode_joint(
    log_joint: Any, vocab: int, length: int, rule: Rule = "left_to_right", *, temperature: float = 1.0,
    block: int | None = None,
) -> Decoded:  # fmt: skip
    r"""Decoding with the conditionals of one law over answers, ``log_joint (..., V**L)``.

    Args:
        rule: ``"left_to_right"``, a permutation of positions, a ``"random"`` masked position; ``"entropy"`` the
            position of lowest entropy and ``"top_prob"`` of the highest probability, both chosen before the token is
            drawn; scores ``((V+1)**L, L)`` (or one such table a model): in every state the position with the lowest,
            that is any rule which looks at the visible tokens only; ``"confidence"``: a token is drawn at every
            position, and the one with the highest probability is committed.
        temperature: of the tokens drawn, at least 1e-3; what rules look at is untempered.
        block: positions are finished block by block of this size; None is one block.

    Ties go to the lowest position (after rounding to 1e-12).

    Raises:
        ValueError: what is not a law, a rule, a temperature or a block size.

    Source: ``flexibility-trap`` C1 to C5.
    """
    sizes = _sizes(vocab, length)
    return _decoded(state_marginals(log_joint, *sizes[:2]), True, sizes, rule, temperature, block)


def _conditionals(log_prob: Any) -> tuple[np.ndarray, tuple[int, int, int]]:
    (log_prob,) = _validate.numpy_arrays(log_prob=log_prob)
    if log_prob.ndim < 3 or 0 in log_prob.shape[-2:]:
        _validate.fail("log_prob", f"must have shape (..., (V+1)**L, L, V), got {log_prob.shape}")
    sizes = _sizes(log_prob.shape[-1], log_prob.shape[-2])
    if log_prob.shape[-3] != sizes[2]:
        _validate.fail("log_prob", f"must have shape (..., (V+1)**L, L, V), got {log_prob.shape}")
    return _validate.log_probs("log_prob", np, log_prob), sizes


def decode_conditionals(
    log_prob: Any, rule: Rule = "left_to_right", *, temperature: float = 1.0, block: int | None = None
) -> Decoded:
    """As `decode_joint`, with conditionals ``(..., (V+1)**L, L, V)`` that need not fit together (a network's).

    Raises:
        ValueError: as `decode_joint`; rows that are not distributions.
    """
    log_prob, sizes = _conditionals(log_prob)
    source = np.exp(log_prob.astype(np.float64)).reshape(*log_prob.shape[:-3], -1)
    return _decoded(source, False, sizes, rule, temperature, block)


def order_log_likelihood(log_prob: Any, order: Sequence[int] | None = None) -> np.ndarray:
    r"""``sum_k log p_{s_k}(o_{s_k} | o_{s_<k}, masks)`` of all answers, ``(..., V**L)``: the likelihood along an order.

    ``order`` None is left to right, the likelihood that JustGRPO trains on: exact, L network calls an answer.

    Raises:
        ValueError: not conditionals ``(..., (V+1)**L, L, V)``, not a permutation.

    Source: ``flexibility-trap``, Eq. 5-7.
    """
    log_prob, (vocab, length, states) = _conditionals(log_prob)
    steps = list(range(length)) if order is None else [_validate.integer("order", i) for i in order]
    if sorted(steps) != list(range(length)):
        _validate.fail("order", f"must be a permutation of 0 … {length - 1}")
    answers = np.arange(vocab**length)
    state, total = np.full(answers.size, states - 1), np.zeros((*log_prob.shape[:-3], answers.size))
    for i in steps:
        token = answers // vocab ** (length - 1 - i) % vocab
        total = total + log_prob[..., state, i, token]
        state = state + (token - vocab) * (vocab + 1) ** (length - 1 - i)
    return np.asarray(total)
