r"""Policy-gradient learning of tabular token-tree policies, sampled and exact.

The return of a token is built from per-token rewards ``x_t = token_reward - beta log(pi/ref)`` and a reward
for the whole sequence:

* ``credit="token"`` (discount 0): ``x_t`` alone;
* ``credit="to_go"`` (discount 1): ``sum_{u >= t} x_u`` plus the sequence reward;
* ``credit="sequence"``: the whole sum for every token;
* ``credit="target"`` (DPG): ``target(y)/pi(y) - 1``, the gradient of ``-KL(target‖pi)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.problems.token_tree import check_levels, reverse_sums

__all__ = ["TreeRun", "exact_tree_ascent", "train_tree"]

Credit = Literal["token", "to_go", "sequence", "target"]
_CREDIT = {"token": 0, "to_go": 1, "sequence": 2, "target": 3}
_BASELINE = {"none": 0, "mean": 1, "leave_one_out": 2}
Levels = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class TreeRun:
    """Policies along a run: ``steps[k]`` steps give ``log_policies[k]``, a tuple of levels."""

    steps: np.ndarray
    log_policies: tuple[Levels, ...]

    @property
    def final(self) -> Levels:
        """The policy at the end."""
        return self.log_policies[-1]


def _flat(levels: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(level, dtype=np.float64) for level in levels])


def _unflat(flat: np.ndarray, vocab: int, horizon: int) -> Levels:
    ends = np.cumsum([vocab**t for t in range(horizon)])[:-1]
    return tuple(log_normalize(level) for level in np.split(flat, ends))


def _one_tree(name: str, levels: Any) -> tuple[int, list[np.ndarray]]:
    _, vocab, values = check_levels(name, levels, policy=False)
    values = [_validate.numpy_arrays(**{f"{name}[{t}]": level})[0] for t, level in enumerate(values)]
    for t, level in enumerate(values):
        if level.ndim != 2:
            _validate.fail(f"{name}[{t}]", f"must have shape (V**t, V), got {level.shape}")
        _small(f"{name}[{t}]", level)
    return vocab, values


def _small(name: str, value: np.ndarray) -> np.ndarray:
    """Finite, and at most 1e100 in size: products of three such numbers do not overflow."""
    index = _validate.first_true(np, ~(np.abs(value.astype(np.float64)) <= 1e100))
    if index is not None:
        _validate.fail(name, "must be finite (at most 1e100)", float(value[index]), index)
    return value


def _law(name: str, log_law: Any) -> np.ndarray:
    (value,) = _validate.numpy_arrays(**{name: log_law})
    return np.asarray(_validate.log_probs(name, np, value), dtype=np.float64)


def _sampled_tree(
    logits: Any, log_ref: Any, token_reward: Any, reward: Any, log_target: Any
) -> tuple[int, int, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``(vocab, horizon, logits, log_ref, token_reward, reward, log_target)``: checked, flat; what is None is 0."""
    vocab, start = _one_tree("logits", logits)
    _, ref = _one_tree("log_ref", log_ref)
    horizon = len(start)
    leaves = vocab**horizon
    flat = _flat(start)
    extra = np.zeros_like(flat) if token_reward is None else _flat(_one_tree("token_reward", token_reward)[1])
    leaf = np.zeros(leaves) if reward is None else _validate.numpy_arrays(reward=reward)[0].astype(np.float64)
    target = np.zeros(leaves) if log_target is None else _law("log_target", log_target)
    for name, value, wanted in (("log_ref", _flat(ref), flat.shape), ("token_reward", extra, flat.shape),
                                ("reward", leaf, (leaves,)), ("log_target", target, (leaves,))):  # fmt: skip
        if value.shape != wanted:
            _validate.fail(name, f"does not fit a tree of vocabulary {vocab} and horizon {horizon}")
    _small("reward", leaf)
    return vocab, horizon, flat, _flat(ref), extra, leaf, target


def train_tree(
    logits: Sequence[np.ndarray],
    log_ref: Sequence[np.ndarray],
    *,
    reward: np.ndarray | None = None,
    token_reward: Sequence[np.ndarray] | None = None,
    log_target: np.ndarray | None = None,
    beta: float = 0.0,
    credit: Credit = "to_go",
    baseline: Literal["none", "mean", "leave_one_out"] = "leave_one_out",
    batch: int = 32,
    steps: int = 1000,
    lr: float = 1.0,
    lr_decay: float = math.inf,
    record: Sequence[int] = (),
    rng: np.random.Generator | int = 0,
) -> TreeRun:
    """Sampled REINFORCE with plain SGD ascent from ``logits`` (levels ``(V**t, V)``).

    Args:
        log_ref: reference levels, full support. reward: of sequences ``(V**H,)``. token_reward: levels. All these
            numbers, ``beta`` and ``lr`` are at most 1e100 in size: products of three of them do not overflow.
        log_target: of sequences, for ``credit="target"``.
        beta: coefficient of the sampled penalty ``log(pi/ref)`` inside the (detached) reward.
        credit, baseline: see the module; baselines are taken at each depth over the batch.
        lr, lr_decay: step size ``lr / (1 + k / lr_decay)`` at step k.
        record: numbers of steps after which the policy is kept (the end always is).

    Raises:
        ValueError: shapes, infinite logits, numbers above 1e100, a batch of one with leave-one-out, unknown names.
    """
    from klsim.kernels.tree_learning import train_tree as kernel

    vocab, horizon, flat, ref, extra, leaf, target = _sampled_tree(logits, log_ref, token_reward, reward, log_target)
    steps = _validate.integer("steps", steps, low=0)
    beta, lr = _validate.real("beta", beta, low=-1e100, high=1e100), _validate.real("lr", lr, low=-1e100, high=1e100)
    lr_decay = _validate.real("lr_decay", lr_decay, low=0.0, open_low=True)
    _validate.one_of("credit", credit, tuple(_CREDIT))
    _validate.one_of("baseline", baseline, tuple(_BASELINE))
    if credit == "target" and log_target is None:
        _validate.fail("log_target", "is required with credit='target'")
    batch = _validate.integer("batch", batch, low=2 if baseline == "leave_one_out" else 1)
    marks = sorted(
        {_validate.integer("record", k, low=0, high=steps) for k in _validate.sequence("record", record)} | {steps}
    )
    generator = _validate.generator(rng)
    kept, now = [], 0
    for mark in marks:
        # the decayed rate of step now + k is lr' / (1 + k / decay')
        factor = 1.0 + now / lr_decay
        kernel(
            flat, ref, extra, leaf, target, float(beta), _CREDIT[credit], _BASELINE[baseline], batch, horizon,
            mark - now, lr / factor, lr_decay * factor, generator,
        )  # fmt: skip
        kept.append(_unflat(flat.copy(), vocab, horizon))
        now = mark
    return TreeRun(np.asarray(marks), tuple(kept))


def exact_tree_ascent(
    logits: Sequence[np.ndarray],
    log_ref: Sequence[np.ndarray],
    *,
    reward: np.ndarray | None = None,
    token_reward: Sequence[np.ndarray] | None = None,
    beta: float = 0.0,
    credit: Literal["token", "to_go"] = "to_go",
    natural: bool = False,
    steps: int = 1000,
    lr: float = 1.0,
    record: Sequence[int] = (),
) -> TreeRun:
    """The expected step of `train_tree`, by enumeration; ``natural`` adds ``lr Q(s, a)`` to the logits instead.

    Credit ``"token"`` ascends with the visitation frozen; ``"to_go"`` is the gradient of the objective.

    Args:
        logits, log_ref, reward, token_reward, beta, lr, record: as `train_tree`, with its limit of 1e100 on their size.

    Raises:
        ValueError: shapes, infinite logits, numbers above 1e100, unknown names; a step that overflows.
    """
    vocab, now = _one_tree("logits", logits)
    _, ref = _one_tree("log_ref", log_ref)
    horizon = len(now)
    extra = [np.zeros_like(x) for x in now] if token_reward is None else _one_tree("token_reward", token_reward)[1]
    steps = _validate.integer("steps", steps, low=0)
    beta, lr = _validate.real("beta", beta, low=-1e100, high=1e100), _validate.real("lr", lr, low=-1e100, high=1e100)
    _validate.one_of("credit", credit, ("token", "to_go"))
    natural = _validate.flag("natural", natural)
    leaf = np.zeros((vocab ** (horizon - 1), vocab))
    if reward is not None:
        (given,) = _validate.numpy_arrays(reward=reward)
        if given.size != leaf.size:
            _validate.fail("reward", f"needs {leaf.size} entries, one a sequence, got shape {given.shape}")
        leaf = _small("reward", given).astype(np.float64).reshape(leaf.shape)
    for name, other in (("log_ref", ref), ("token_reward", extra)):
        if [x.shape for x in other] != [x.shape for x in now]:
            _validate.fail(name, f"does not fit a tree of vocabulary {vocab} and horizon {horizon}")
    marks = sorted(
        {_validate.integer("record", k, low=0, high=steps) for k in _validate.sequence("record", record)} | {steps}
    )
    kept = []
    for k in range(steps + 1):
        log_pi = tuple(log_normalize(level) for level in now)
        if k in marks:
            kept.append(log_pi)
        if k == steps:
            break
        values = [x - beta * (p - r) for x, p, r in zip(extra, log_pi, ref)]
        if credit == "to_go":
            values[-1] = values[-1] + leaf
            values = list(reverse_sums(values, log_pi))
        now = [z + lr * g for z, g in zip(now, _ascent(values, log_pi, natural))]
        _validate.representable("reward (or lr)", np, *now)
    return TreeRun(np.asarray(marks), tuple(kept))


def _ascent(values: Sequence[np.ndarray], log_pi: Levels, natural: bool) -> list[np.ndarray]:
    if natural:
        return list(values)
    out, visits = [], np.ones(1)
    for q, level in zip(values, log_pi):
        pi = np.exp(level)
        out.append(visits[:, None] * pi * (q - np.sum(pi * q, axis=-1, keepdims=True)))
        visits = (visits[:, None] * pi).reshape(-1)
    return out
