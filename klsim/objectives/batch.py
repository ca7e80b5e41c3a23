r"""What a loss sees: log-probabilities of sampled tokens, and what goes with them.

``B`` responses, padded to ``T`` tokens, vocabulary ``V``. Arrays are NumPy, torch or whatever else
``array_api_compat`` knows, all of one library; gradients flow through ``log_probs``, ``vocab_log_probs`` and ``values``
only. Positions outside ``mask`` never count, whatever they hold.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from array_api_compat import array_namespace

from klsim import _sums, _validate

__all__ = ["Loss", "TokenBatch", "detach"]

Array = Any
Loss = tuple[Array, dict[str, Array]]
"""The scalar to minimise, and detached scalars to log."""

_TOKEN = ("log_probs", "old_log_probs", "rollout_log_probs", "ref_log_probs", "teacher_log_probs")
_VOCAB = ("vocab_log_probs", "old_vocab_log_probs", "ref_vocab_log_probs", "teacher_vocab_log_probs")
_REAL = ("rewards", "advantages", "values", "old_values", "greedy_rewards")


Function = TypeVar("Function", bound=Callable[..., Any])
_CALLED = ("aggregate", "ratio")  # options that are functions


def takes_batch(function: Function) -> Function:
    """The door of a function of a `TokenBatch`: its kind, options that are functions, and a loss that is a number."""

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        given = [*args, options.get("batch")]
        batch = next((x for x in given if isinstance(x, TokenBatch)), None)
        if batch is None:
            _validate.instance("batch", given[0], TokenBatch)
        for name in _CALLED:
            if name in options:
                options[name] = _validate.function(name, options[name])
        result = function(*args, **options)
        loss = result[0] if isinstance(result, tuple) else None
        if loss is not None and getattr(loss, "shape", None) == () and bool(loss != loss):
            raise ValueError("batch: the loss is not a number (its rewards or log-ratios overflow)")
        return result

    return wrapper  # type: ignore[return-value]


def two_numbers(name: str, pair: Any) -> list[Any]:
    """The two entries of an option that is a pair."""
    entries = _validate.sequence(name, pair)
    if len(entries) != 2:
        _validate.fail(name, f"must be a pair of numbers, got {len(entries)} entries")
    return entries


def of_batch(name: str, value: Array, batch: TokenBatch) -> Array:
    """``value`` as real numbers of the kind of the batch: ``[B]``, ``[B, 1]`` or ``[B, T]``."""
    _, like, x = _validate.arrays(log_probs=batch.log_probs, **{name: value})
    rows, columns = like.shape
    if tuple(x.shape) not in ((rows,), (rows, 1), (rows, columns)):
        _validate.fail(name, f"must have shape [{rows}] or [{rows}, {columns}], got {list(x.shape)}")
    return x


def detach(x: Array) -> Array:
    """``x`` as a constant (stop-gradient). NumPy arrays are constants already.

    Raises:
        TypeError: not real numbers.
        ValueError: NaN.
    """
    xp, numbers = _validate.arrays(x=x)
    _validate.not_nan("x", xp, numbers)
    return _sums.detach(x)


@dataclass(frozen=True)
class TokenBatch:
    """A batch of responses.

    Attributes:
        log_probs: log-probability of every sampled token under the policy, ``[B, T]``.
        tokens: ``[B, T]`` integers, which token was sampled; few losses need them.
        mask: ``[B, T]`` boolean, the tokens that count (None: all). Every response needs one.
        old_log_probs: of the policy that drew the tokens, ``[B, T]``; None means on-policy, the (detached)
            policy itself.
        rollout_log_probs: of the sampler, ``[B, T]``, where it is not the old policy that the trainer computes (an
            inference engine with other rounding, a staler copy); None means that the old policy drew the tokens.
        ref_log_probs, teacher_log_probs: of the reference and of the teacher, ``[B, T]``.
        rewards: ``[B]``, or one a token, ``[B, T]``.
        advantages: ``[B]`` or ``[B, T]``; losses that estimate advantages from rewards do so only if None.
        group: ``[B]`` integers; responses with the same number answer the same prompt. None: one group.
        external: ``[B]`` boolean, responses that somebody else wrote (demonstrations).
        vocab_log_probs, old_…, ref_…, teacher_vocab_log_probs: of the whole vocabulary, ``[B, T, V]``.
        values: of a value head before every token, ``[B, T]``. old_values: when the responses were drawn; None: the
            (detached) values themselves.
        preferred: ``[B]`` boolean, the liked responses. Losses on pairs want groups of two with one of them liked.
        greedy_rewards: ``[B]``, the reward of the prompt's greedy response (ReMax).

    Raises:
        TypeError: not arrays of real numbers, or of two libraries.
        ValueError: an empty batch, shapes that do not fit, a mask with no token in a response, NaN, ``+inf``,
            ``-inf`` at a sampled token, rewards, advantages or values that are not finite.
    """

    log_probs: Array
    mask: Array = None
    old_log_probs: Array = None
    ref_log_probs: Array = None
    teacher_log_probs: Array = None
    rewards: Array = None
    advantages: Array = None
    group: Array = None
    external: Array = None
    tokens: Array = None
    vocab_log_probs: Array = None
    old_vocab_log_probs: Array = None
    ref_vocab_log_probs: Array = None
    teacher_vocab_log_probs: Array = None
    rollout_log_probs: Array = None
    values: Array = None
    old_values: Array = None
    preferred: Array = None
    greedy_rewards: Array = None

    def __post_init__(self) -> None:
        if self.log_probs is None:
            raise TypeError("log_probs: must hold real numbers, got NoneType")
        given = {n: getattr(self, n) for n in (*_TOKEN, *_VOCAB, *_REAL)}
        xp, *arrays = _validate.arrays(**{n: x for n, x in given.items() if x is not None})
        if str(arrays[0].dtype).rpartition(".")[2] in ("float16", "bfloat16"):
            arrays = [xp.astype(x, xp.float32) for x in arrays]  # losses are computed in float32 at least
        floats = dict(zip((n for n, x in given.items() if x is not None), arrays))
        log_probs = floats["log_probs"]
        if log_probs.ndim != 2 or 0 in log_probs.shape:
            _validate.fail("log_probs", f"needs shape [B, T] with B, T >= 1, got {tuple(log_probs.shape)}")
        shape = tuple(log_probs.shape)
        mask = self._of_shape(xp, "mask", self.mask, shape, log_probs)
        for name, x in floats.items():
            floats[name] = _checked(xp, name, x, shape, mask)
        for name, x in floats.items():
            object.__setattr__(self, name, x)
        object.__setattr__(self, "mask", mask)
        for name in ("group", "external", "preferred", "tokens"):
            if getattr(self, name) is not None:
                wanted = shape if name == "tokens" else shape[:1]
                object.__setattr__(self, name, self._of_shape(xp, name, getattr(self, name), wanted, log_probs))

    @staticmethod
    def _of_shape(xp: Any, name: str, value: Array, shape: tuple[int, ...], like: Array) -> Array:
        """A mask or a list of integers, on the device of ``like``."""
        if value is None:
            return xp.ones(shape, dtype=xp.bool, device=like.device)
        if not hasattr(value, "dtype") or (isinstance(value, np.ndarray) and not isinstance(like, np.ndarray)):
            value = xp.asarray(np.asarray(value).tolist(), device=like.device)
        if tuple(value.shape) != shape:
            _validate.fail(name, f"must have shape {list(shape)}, got {list(value.shape)}")
        if name in ("group", "tokens"):
            if not xp.isdtype(value.dtype, "integral"):
                raise TypeError(f"{name}: must hold integers, got dtype {value.dtype}")
            return value
        if not xp.isdtype(value.dtype, "bool"):
            index = _validate.first_true(xp, (value != 0) & (value != 1))
            if index is not None:
                _validate.fail(name, "must be 0 or 1", float(value[index]), index)
            value = xp.astype(value, xp.bool)
        if name == "mask":
            index = _validate.first_true(xp, ~xp.any(value, axis=-1))
            if index is not None:
                _validate.fail("mask", "this response has no token", index=index)
        return value

    @property
    def xp(self) -> Any:
        """The array namespace."""
        return array_namespace(self.log_probs)

    @property
    def old(self) -> Array:
        """``old_log_probs``, or the detached policy if the batch is on-policy."""
        return _sums.detach(self.log_probs) if self.old_log_probs is None else self.old_log_probs

    @property
    def rollout(self) -> Array:
        """``rollout_log_probs``, or `old`: who drew the tokens."""
        return self.old if self.rollout_log_probs is None else self.rollout_log_probs

    @property
    def weights(self) -> Array:
        """The mask as floats."""
        return self.xp.astype(self.mask, self.log_probs.dtype)

    def groups(self) -> Array:
        """``group``, or zeros: one group."""
        if self.group is not None:
            return self.group
        return self.xp.zeros(self.log_probs.shape[:1], dtype=self.xp.int64, device=self.log_probs.device)

    def total_rewards(self) -> Array:
        """The reward of every response ``[B]``: per-token rewards are summed over its tokens."""
        (rewards,) = self.need("rewards")
        if rewards.ndim == 1:
            return _sums.detach(rewards)
        return _sums.detach(self.xp.sum(rewards * self.weights, axis=-1))

    def token_rewards(self) -> Array:
        """The rewards as one a token, ``[B, T]``: a response's reward stands at its last token, 0 elsewhere."""
        (rewards,) = self.need("rewards")
        if rewards.ndim == 2:
            return _sums.detach(rewards) * self.weights
        place = self.xp.cumulative_sum(self.weights, axis=-1)
        last = self.mask & (place == place[:, -1:])
        return _sums.detach(self.xp.where(last, rewards[:, None], self.xp.zeros_like(self.weights)))

    def need(self, *names: str) -> tuple[Array, ...]:
        """The named fields.

        Raises:
            ValueError: one of them is None.
        """
        for name in names:
            if getattr(self, name) is None:
                _validate.fail(name, "this loss needs it; the batch has none")
        return tuple(getattr(self, name) for name in names)

    def replace(self, **changes: Array) -> TokenBatch:
        """The same batch with some fields exchanged."""
        return dataclasses.replace(self, **changes)


def _checked(xp: Any, name: str, x: Array, shape: tuple[int, ...], mask: Array) -> Array:
    """``x`` with a legal shape and legal values; outside the mask 0, over the vocabulary uniform."""
    wanted = {"rewards": (shape[:1], shape), "advantages": (shape[:1], shape), "greedy_rewards": (shape[:1],)}.get(
        name, (shape,)
    )
    vocab = name in _VOCAB
    seen = tuple(x.shape[:-1]) if vocab else tuple(x.shape)
    if seen not in wanted or (vocab and x.shape[-1] == 0):
        shapes = " or ".join(str([*s, "V"] if vocab else list(s)).replace("'", "") for s in wanted)
        _validate.fail(name, f"must have shape {shapes}, got {list(x.shape)}")
    if seen == shape:
        kept = mask[..., None] if vocab else mask
        x = xp.where(kept, x, xp.full_like(x, -math.log(x.shape[-1]) if vocab else 0.0))
    if name in _REAL:
        return _validate.finite(name, xp, x)
    index = _validate.first_true(xp, xp.isnan(x) | (x == xp.inf))
    if index is not None:
        _validate.fail(name, "log-probabilities must not be NaN or inf", float(x[index]), index)
    if not vocab:
        index = _validate.first_true(xp, xp.isinf(x))
        if index is not None:
            _validate.fail(name, "a sampled token has probability 0", float(x[index]), index)
    return x
