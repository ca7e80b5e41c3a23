r"""A masked-diffusion language model small enough to enumerate.

Sequences of ``L`` tokens from a vocabulary of ``V``; a state is a partially masked sequence, a number in base ``V + 1``
with the mask as digit ``V``, first position most significant. The model gives, in every state, a distribution for each
position; only masked positions are ever asked. Everything that an LM of this kind does is then a finite sum: the law of
a decoding rule (`output_law`), the ELBO over masked sets or over orders (`elbo`, `elbo_by_orders`), the estimators with
sampled masks.

Sources: ``bgpo``, ``flexibility-trap``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim import _validate
from klsim.distributions import log_normalize, to_numpy

__all__ = [
    "MaskedDiffusionLM",
    "count_scheme",
    "elbo",
    "elbo_by_orders",
    "elbo_samples",
    "from_joint",
    "masked_sets",
    "output_law",
    "time_scheme",
]

RULES = ("random", "left_to_right", "entropy", "top_prob", "confidence")


@dataclass(frozen=True)
class MaskedDiffusionLM:
    """Tabular conditionals.

    Attributes:
        log_prob: ``((V + 1)**L, L, V)``, log-probabilities of every position in every state.

    Raises:
        ValueError: a wrong shape, rows that are not distributions, more than 10^6 states.
    """

    log_prob: Any

    def __post_init__(self) -> None:
        xp, log_prob = _validate.arrays(log_prob=self.log_prob)
        _validate.log_probs("log_prob", xp, log_prob)
        shape = tuple(log_prob.shape)
        if len(shape) != 3 or shape[0] != (shape[2] + 1) ** shape[1] or shape[0] > 10**6:
            _validate.fail("log_prob", f"must have shape ((V+1)**L, L, V), at most 10^6 states, got {shape}")
        object.__setattr__(self, "log_prob", log_prob)

    @property
    def length(self) -> int:
        """L."""
        return int(self.log_prob.shape[1])

    @property
    def vocab(self) -> int:
        """V."""
        return int(self.log_prob.shape[2])

    def state(self, tokens: Sequence[int]) -> int:
        """Number of a partially masked sequence; the mask is token V."""
        tokens = _validate.sequence("tokens", tokens)
        if len(tokens) != self.length:
            _validate.fail("tokens", f"must have {self.length} entries, got {len(tokens)}")
        number = 0
        for i, token in enumerate(tokens):
            number = number * (self.vocab + 1) + _validate.integer(f"tokens[{i}]", token, low=0, high=self.vocab)
        return number


def from_joint(log_joint: Any, vocab: int, length: int) -> MaskedDiffusionLM:
    """The conditionals of one law over sequences ``(V**L,)``: a "well-trained" model, whose orders all agree."""
    vocab, length = _validate.integer("vocab", vocab, low=1), _validate.integer("length", length, low=1)
    if _validate.outcomes("vocab", vocab + 1, "length", length) > 10**6:
        _validate.fail("length", f"a model of {vocab + 1}**{length} states is too large (10^6)", length)
    (log_joint,) = _validate.numpy_arrays(log_joint=log_joint)
    _validate.log_probs("log_joint", np, log_joint)
    if log_joint.shape != (vocab**length,):
        _validate.fail("log_joint", f"must have shape ({vocab**length},), got {log_joint.shape}")
    joint = np.exp(log_joint).reshape((vocab,) * length)
    out = np.full(((vocab + 1) ** length, length, vocab), -math.log(vocab))
    for number, tokens in enumerate(itertools.product(range(vocab + 1), repeat=length)):
        seen = tuple(slice(None) if t == vocab else slice(t, t + 1) for t in tokens)
        part = joint[seen]
        for i in (i for i, t in enumerate(tokens) if t == vocab):
            marginal = part.sum(axis=tuple(j for j in range(length) if j != i))
            if marginal.sum() > 0:
                with np.errstate(divide="ignore"):
                    out[number, i] = log_normalize(np.log(marginal))
    return MaskedDiffusionLM(out)


def masked_sets(length: int) -> Iterator[tuple[int, ...]]:
    """All non-empty sets of masked positions, by size."""
    length = _validate.integer("length", length, low=1)
    _validate.fits("length", length, length, each=40)  # a pointer and an integer a position, per size
    return itertools.chain.from_iterable(itertools.combinations(range(length), size) for size in range(1, length + 1))


def _masked_log_prob(model: MaskedDiffusionLM, answer: Sequence[int], masked: Sequence[int]) -> Any:
    """``sum_{i in masked} log p(y_i | the others)``."""
    tokens = [model.vocab if i in masked else int(t) for i, t in enumerate(answer)]
    row = model.log_prob[model.state(tokens)]
    total = row[masked[0], int(answer[masked[0]])]
    for i in masked[1:]:
        total = total + row[i, int(answer[i])]
    return total


def _answer(model: MaskedDiffusionLM, answer: Sequence[int]) -> tuple[int, ...]:
    _validate.instance("model", model, MaskedDiffusionLM)
    answer = _validate.sequence("answer", answer)
    if len(answer) != model.length:
        _validate.fail("answer", f"must have {model.length} tokens, got {len(answer)}")
    return tuple(_validate.integer(f"answer[{i}]", t, low=0, high=model.vocab - 1) for i, t in enumerate(answer))


def elbo(model: MaskedDiffusionLM, answer: Sequence[int]) -> Any:
    r"""``B(y) = sum_S B(|S|, L - |S| + 1) sum_{i in S} log p(y_i | y_{-S})``, over masked sets S, exactly.

    Equal to the mean of ``log p_sigma(y)`` over decoding orders (`elbo_by_orders`), at most the log-likelihood of
    random-order sampling. Works with torch log-probabilities: gradients flow.

    Source: ``bgpo`` C6, C7.
    """
    answer, length = _answer(model, answer), model.length
    total = 0.0
    for masked in masked_sets(length):
        size = len(masked)
        weight = math.factorial(size - 1) * math.factorial(length - size) / math.factorial(length)
        total = total + weight * _masked_log_prob(model, answer, masked)
    return total


def elbo_by_orders(model: MaskedDiffusionLM, answer: Sequence[int]) -> np.ndarray:
    """``log p_sigma(y)`` of every decoding order, ``(L!,)``; its mean is the ELBO, its log-mean-exp the likelihood."""
    answer = _answer(model, answer)
    _validate.fits("answer", model.length, math.factorial(min(model.length, 100)), each=40)
    out = []
    for order in itertools.permutations(range(model.length)):
        tokens, total = [model.vocab] * model.length, 0.0
        for i in order:
            total += _validate.number("log_prob", model.log_prob[model.state(tokens)][i, answer[i]])
            tokens[i] = answer[i]
        out.append(total)
    return np.array(out)


def count_scheme(length: int, size: int, rng: np.random.Generator | int) -> tuple[np.ndarray, np.ndarray]:
    """Masks ``(size, L)`` with ``l ~ U{1..L}`` masked positions, a uniform subset, and their weights ``L/l``.

    The estimator ``weight · masked log-likelihood`` is unbiased for the ELBO and bounded.
    """
    length, size = _validate.integer("length", length, low=1), _validate.integer("size", size, low=1)
    rng = _validate.generator(rng)
    _validate.fits("size", size, size * length, each=25)
    counts = rng.integers(1, length + 1, size)
    ranks = np.argsort(np.argsort(rng.random((size, length)), axis=1), axis=1)
    return ranks < counts[:, None], length / counts


def time_scheme(
    length: int, size: int, rng: np.random.Generator | int, *, floor: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Masks ``(size, L)`` with ``t ~ U[floor, 1]``, each position masked with probability t, and weights ``1/t``.

    With ``floor = 0`` unbiased for the ELBO, but the second moment is infinite (``bgpo`` C6).
    """
    length, size = _validate.integer("length", length, low=1), _validate.integer("size", size, low=1)
    floor = _validate.probability("floor", floor)
    rng = _validate.generator(rng)
    _validate.fits("size", size, size * length, each=9)
    t = 1 - (1 - floor) * rng.random(size)
    return rng.random((size, length)) < t[:, None], 1 / t


def elbo_samples(model: MaskedDiffusionLM, answer: Sequence[int], masks: Any, weights: Any) -> Any:
    """``weight_j · sum_{masked i} log p(y_i | visible)`` of every mask, ``(size,)``; an empty mask gives 0."""
    answer = _answer(model, answer)
    masks = _validate.boolean_mask("masks", masks)
    (weights,) = _validate.numpy_arrays(weights=weights)
    _validate.finite("weights", np, weights)
    if masks.ndim != 2 or masks.shape[1] != model.length or np.shape(weights) != masks.shape[:1]:
        _validate.fail("masks", f"must be (size, {model.length}) beside weights (size,), got {masks.shape}")
    digits = np.where(masks, model.vocab, np.array(answer))
    states = digits @ (model.vocab + 1) ** np.arange(model.length)[::-1]
    xp = _validate.arrays(log_prob=model.log_prob)[0]
    rows = model.log_prob[states][:, np.arange(model.length), np.array(answer)]
    if isinstance(rows, np.ndarray):
        return np.sum(np.where(masks, rows, 0.0), axis=1) * np.asarray(weights)
    kept = xp.asarray(masks)
    return xp.sum(xp.where(kept, rows, xp.zeros_like(rows)), axis=1) * xp.asarray(np.asarray(weights), dtype=rows.dtype)


def output_law(
    model: MaskedDiffusionLM,
    rule: str | Sequence[int] = "random",
    *,
    temperature: float = 1.0,
    block: int | None = None,
) -> np.ndarray:
    r"""Exact log-law over the ``V**L`` outputs of a decoding rule, one token a step.

    Args:
        rule: ``"random"`` masked position, ``"left_to_right"``, a permutation of positions; ``"entropy"`` the position
            of lowest entropy, ``"top_prob"`` of the highest probability, both chosen before the token is drawn;
            ``"confidence"``: a token is drawn at every position and the one with the highest (untempered) probability
            is committed, the others are thrown away.
        temperature: > 0, of the tokens drawn; scores are untempered.
        block: positions are finished block by block of this size; None is one block.

    Ties go to the lowest position (scores rounded to 1e-12).

    Raises:
        ValueError: an unknown rule, not a permutation, bad numbers.

    Source: ``flexibility-trap``, exact decoding.
    """
    _validate.instance("model", model, MaskedDiffusionLM)
    length, vocab = model.length, model.vocab
    temperature = _validate.real("temperature", temperature, low=0.0, open_low=True)
    block = length if block is None else _validate.integer("block", block, low=1, high=length)
    if isinstance(rule, str):
        _validate.one_of("rule", rule, RULES)
    elif sorted(_validate.integer("rule", i) for i in _validate.sequence("rule", rule)) != list(range(length)):
        _validate.fail("rule", f"must be a permutation of 0 … {length - 1} or one of {', '.join(RULES)}")
    plain = np.asarray(to_numpy(model.log_prob), dtype=float)
    if temperature < 1e-300:
        _validate.fail("temperature", "must be at least 1e-300", temperature)
    tempered = np.exp(log_normalize((plain - plain.max(axis=-1, keepdims=True)) / temperature))
    mass = np.zeros(len(plain))
    mass[-1] = 1.0
    place = (vocab + 1) ** np.arange(length)[::-1]
    numbers = np.arange(len(plain))
    digits = numbers[:, None] // place % (vocab + 1)
    for number in numbers[np.argsort(-(digits == vocab).sum(axis=1), kind="stable")]:
        masked = np.flatnonzero(digits[number] == vocab)
        if mass[number] == 0 or not masked.size:
            continue
        eligible = masked[masked // block == masked.min() // block]
        commits = _commits(rule, np.exp(plain[number]), tempered[number], eligible)
        for i, share in zip(eligible, commits):
            targets = number + (np.arange(vocab) - vocab) * place[i]
            mass[targets] += mass[number] * share
    words = np.array(list(itertools.product(range(vocab), repeat=length)))
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(mass[words @ place]))


def _commits(rule: Any, plain: np.ndarray, tempered: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """``(eligible, V)``: the probability that the rule commits token v at each eligible position."""
    drawn = tempered[eligible]
    if rule == "random":
        return np.asarray(drawn / len(eligible))
    if rule == "confidence":
        return _confident(np.round(plain[eligible], 12), drawn)
    if rule == "left_to_right":
        chosen = 0
    elif rule == "entropy":
        p = plain[eligible]
        with np.errstate(divide="ignore", invalid="ignore"):
            chosen = int(np.argmin(np.round(-np.sum(np.where(p > 0, p * np.log(p), 0.0), axis=1), 12)))
    elif rule == "top_prob":
        chosen = int(np.argmax(np.round(plain[eligible].max(axis=1), 12)))
    else:
        chosen = int(np.argmin([list(rule).index(i) for i in eligible]))
    return np.asarray(drawn * (np.arange(len(eligible)) == chosen)[:, None])


def _confident(score: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """``w_i(v) = pi_i(v) prod_{j != i} P(score of j's draw is lower, or equal and j > i)``."""
    out = drawn.copy()
    for i in range(len(drawn)):
        for j in range(len(drawn)):
            if j != i:
                lower = score[j][None, :] < score[i][:, None]
                equal = score[j][None, :] == score[i][:, None]
                out[i] *= ((lower | (equal & (j > i))) * drawn[j]).sum(axis=1)
    return out
