r"""Two small worlds for learning from prefixes: a combination lock, and prompts that share one rule.

*Lock*: a hidden string of H binary tokens, reward 1 for all of it, a tabular policy that starts uniform. REINFORCE with
the group's mean as baseline moves only when a group has both outcomes: from the root that takes ``2^H`` completions,
from correct prefixes of uniform length about ``H^1.6`` up to H = 40, towards ``H^2`` beyond.

*Rule*: step t of prompt x shows a symbol, and the right token is a function of the symbol. The policy is
``softmax(W[symbol])``: what is learnt at late steps serves the early ones. `RuleWorld.tabular` gives every step its own
parameters.

Source: ``prefixrl`` C5, C6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize

__all__ = ["RuleWorld", "lock_samples"]


def lock_samples(
    horizon: int,
    *,
    resets: bool = True,
    accuracy: float = 1.0,
    group: int = 8,
    lr: float = 1.0,
    target: float = 0.9,
    limit: int = 10**8,
    rng: np.random.Generator | int = 0,
) -> int:
    """Completions that one run samples until the lock opens with probability ``target``.

    Args:
        horizon: H. resets: each group starts after a prefix of length ``Unif{0..H-1}``; otherwise at the root.
        accuracy: chance that a token of the prefix is the correct one (1/2: random strings); the completions of a
            wrong prefix all fail.
        group: completions a step. lr: of plain ascent along ``sum_k (r_k - mean) grad log pi``.

    Raises:
        ValueError: numbers out of range; the target is not reached within ``limit`` completions.
    """
    from klsim.kernels.prefix_worlds import open_lock

    horizon, group = _validate.integer("horizon", horizon, low=1), _validate.integer("group", group, low=2)
    resets, accuracy = _validate.flag("resets", resets), _validate.probability("accuracy", accuracy)
    lr = _validate.real("lr", lr, low=0.0, high=1e3, open_low=True)
    target = _validate.real("target", target, low=0.0, high=1.0, open_low=True, open_high=True)
    limit = _validate.integer("limit", limit, low=1, high=2**62)
    took = int(open_lock(horizon, resets, accuracy, group, lr, target, limit, _validate.generator(rng)))
    if took < 0:
        _validate.fail("limit", f"{limit} completions are not enough for the target {target}")
    return took


@dataclass(frozen=True)
class RuleWorld:
    """Prompts of H steps whose right tokens follow from the symbols shown.

    Attributes:
        symbols: ``o[x, t]``, ``(P, H)`` integers below m. correct: the right token of a symbol, ``(m,)`` below A.
        answers: A, the number of tokens.

    Raises:
        ValueError: symbols or tokens out of range, other shapes.
    """

    symbols: np.ndarray
    correct: np.ndarray
    answers: int

    def __post_init__(self) -> None:
        answers = _validate.integer("answers", self.answers, low=2)
        correct = _validate.integers("correct", self.correct, low=0, high=answers - 1)
        if correct.ndim != 1 or not correct.size:
            _validate.fail("correct", f"must have shape (m,), got {correct.shape}")
        symbols = _validate.integers("symbols", self.symbols, low=0, high=correct.size - 1)
        if symbols.ndim != 2 or not symbols.size:
            _validate.fail("symbols", f"must have shape (P, H), got {symbols.shape}")
        object.__setattr__(self, "correct", np.ascontiguousarray(correct, dtype=np.int64))
        object.__setattr__(self, "symbols", np.ascontiguousarray(symbols, dtype=np.int64))

    @classmethod
    def draw(cls, rng: np.random.Generator, prompts: int, horizon: int, symbols: int, answers: int) -> RuleWorld:
        """Uniform symbols and a uniform rule."""
        shown = rng.integers(0, symbols, (prompts, horizon))
        return cls(shown, rng.integers(0, answers, symbols), answers)

    def tabular(self) -> RuleWorld:
        """The same prompts with a symbol of its own at every step: nothing is shared."""
        own = np.arange(self.symbols.size).reshape(self.symbols.shape)
        return RuleWorld(own, self.correct[self.symbols].ravel(), self.answers)

    def zeros(self) -> np.ndarray:
        """Logits ``(m, A)`` of the uniform policy."""
        return np.zeros((self.correct.size, self.answers))

    def success(self, logits: Any, start: int = 0) -> np.ndarray:
        """Chance of all right tokens from step ``start`` on, of every prompt, ``(P,)``."""
        (logits,) = _validate.numpy_arrays(logits=logits)
        if logits.shape != (self.correct.size, self.answers):
            _validate.fail("logits", f"must have shape {(self.correct.size, self.answers)}, got {logits.shape}")
        start = _validate.integer("start", start, low=0, high=self.symbols.shape[1])
        right = np.exp(log_normalize(logits))[np.arange(self.correct.size), self.correct]
        return np.asarray(np.prod(right[self.symbols[:, start:]], axis=1))

    def train(
        self,
        logits: Any,
        cuts: Any,
        *,
        steps: int,
        group: int = 8,
        lr: float = 0.5,
        target: float = 2.0,
        rng: np.random.Generator | int = 0,
    ) -> tuple[np.ndarray, int]:
        """``(logits, groups)`` after group-relative ascent: a uniform prompt, one of its cuts, a group of completions.

        ``W[o[x, t]] += (lr/n) sum_k A_k (e_{a_kt} - pi)`` for the steps t after the cut, ``A_k`` the reward minus the
        group's mean over its (population) std; groups with equal rewards do not move.

        Args:
            cuts: lengths of the prefixes, ``(P, C)`` integers in 0..H; the prefix shows the right tokens.
            target: training stops when the mean success reaches it; above 1 it never stops early.

        Raises:
            ValueError: shapes or numbers out of range.
        """
        from klsim.kernels.prefix_worlds import train_rule

        self.success(logits)
        weights = np.array(logits, dtype=np.float64)
        _validate.finite("logits", np, weights)
        prompts, horizon = self.symbols.shape
        starts = _validate.integers("cuts", cuts, low=0, high=horizon)
        if starts.ndim != 2 or starts.shape[0] != prompts or not starts.size:
            _validate.fail("cuts", f"must have shape ({prompts}, C), got {starts.shape}")
        steps, group = _validate.integer("steps", steps, low=0), _validate.integer("group", group, low=2)
        lr = _validate.real("lr", lr, low=-1e3, high=1e3)
        target = _validate.real("target", target, low=0.0)
        starts = np.ascontiguousarray(starts, dtype=np.int64)
        generator = _validate.generator(rng)
        took = train_rule(weights, self.symbols, self.correct, starts, group, lr, steps, target, generator)
        return weights, int(took)
