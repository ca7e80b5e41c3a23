r"""What a loss is the gradient of: its exact expectation over batches of responses of token trees.

`expected_gradient` draws a group of responses for every prompt in all possible ways (as multisets, with their
probabilities), evaluates the loss on each batch with torch's autograd and adds up.
`klsim.learning.functional_gradient` is the gradient of a named functional, from sums over all sequences;
`klsim.learning.explain` regresses the first on the second.

A parametric policy needs no other check: its gradient is the tabular one times the Jacobian of the logits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from klsim import _validate
from klsim.learning.prompt_trees import PromptTree, TreeProblem, as_problem
from klsim.learning.tree_batches import TreeBatches, scalar_loss
from klsim.objectives.batch import TokenBatch

__all__ = [
    "Batches",
    "ExpectedGradient",
    "LossFunction",
    "check_loss",
    "enumerate_batches",
    "expected_gradient",
    "one_batch",
    "sum_batches",
]

LossFunction = Callable[[TokenBatch], Any]
"""A loss of a batch: the scalar to minimise, or it and a dict of metrics."""

CHECKED_BATCHES = 6
"""How many random batches are evaluated again and reordered before a loss is taken for a function of a multiset."""


@dataclass(frozen=True)
class ExpectedGradient:
    """Expectation of a loss's gradient in the logits.

    Attributes:
        gradient: ``(prefixes, V)``, of the loss (a descent step goes against it).
        value: expected loss.
        stderr: Monte Carlo standard error of every entry; None if the expectation is exact.
        batches: how many were evaluated.
    """

    gradient: np.ndarray
    value: float
    stderr: np.ndarray | None
    batches: int


def _multisets(rows: np.ndarray, log_prob: np.ndarray, size: int) -> list[tuple[tuple[int, ...], float]]:
    """All multisets of ``size`` responses with their probabilities."""
    alive = np.isfinite(log_prob)
    rows, prob = rows[alive], np.exp(log_prob[alive])
    out = []
    for places in itertools.combinations_with_replacement(range(len(rows)), size):
        counts = np.unique(places, return_counts=True)[1]
        orders = math.factorial(size) / math.prod(map(math.factorial, counts.tolist()))
        out.append((tuple(int(rows[i]) for i in places), orders * math.prod(float(prob[i]) for i in places)))
    return out


Source = tuple[np.ndarray, np.ndarray, int]
"""``(rows, log_prob, how many)`` of something that is drawn for one batch."""


def _sources(problem: TreeProblem, group_size: int, external: int) -> list[list[Source]]:
    """What is drawn for every batch, prompt by prompt."""
    out = []
    own = problem.log_prob("behaviour")
    other = problem.log_prob("external") if external else own
    for batch in np.unique(problem.together):
        drawn: list[Source] = []
        for i in np.flatnonzero(problem.together == batch):
            rows = np.flatnonzero(problem.prompt == i)
            if group_size:
                drawn.append((rows, own[rows], group_size))
            if external:
                drawn.append((rows, other[rows], external))
        out.append(drawn)
    return out


def _count(sources: Sequence[Source]) -> int:
    return math.prod(math.comb(int(np.isfinite(p).sum()) + n - 1, n) for _, p, n in sources)


def enumerate_batches(
    problem: TreeProblem, group_size: int, external: int = 0
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Rows of the problem and their probability, for every multiset of responses that a batch can hold."""
    for sources in _sources(problem, group_size, external):
        yield from _products(sources)


def _products(sources: Sequence[Source]) -> Iterator[tuple[tuple[int, ...], float]]:
    for chosen in itertools.product(*(_multisets(*source) for source in sources)):
        yield tuple(r for part, _ in chosen for r in part), math.prod(w for _, w in chosen)


def expected_gradient(
    loss: LossFunction,
    problem: TreeProblem | Sequence[PromptTree],
    *,
    group_size: int = 2,
    external: int = 0,
    max_batches: int = 20_000,
    samples: int = 4_000,
    rng: np.random.Generator | int = 0,
    checked: bool = False,
) -> ExpectedGradient:
    r"""``E[grad loss]`` over batches of ``group_size`` responses a prompt (and ``external`` ones), in the logits.

    Exact over multisets if there are at most ``max_batches`` of them, else the mean of ``samples`` draws with standard
    errors. The loss sees a `TokenBatch` of float64 torch tensors with everything in it; ``group`` numbers the prompts,
    the rows of a group stand together. Batches that a problem keeps apart (``together``) are added up.

    Raises:
        ValueError: the loss depends on the order of the responses within a group, or of the groups (multisets would be
            wrong); a gradient not finite.
        TypeError: it does not return a scalar tensor.
    """
    problem = as_problem(problem)
    loss = _validate.function("loss", loss)
    external = _validate.integer("external", external, low=0)
    group_size = _validate.integer("group_size", group_size, low=0 if external else 1)
    max_batches = _validate.integer("max_batches", max_batches, low=0)
    _validate.fits("group_size", group_size, group_size * len(problem.prompts), each=400)
    if external and "external" not in problem.tables:
        _validate.fail("external", "the prompts have no log_external", external)
    made = TreeBatches(problem)
    if not _validate.flag("checked", checked):
        check_loss(loss, made, group_size, external, rng=rng)
    sources = _sources(problem, group_size, external)
    count = sum(map(_count, sources))
    if count <= max_batches:
        batches = (batch for drawn in sources for batch in _products(drawn))
        gradient, value = sum_batches(loss, made, batches, _flags(problem, group_size, external))
        return ExpectedGradient(gradient, value, None, count)
    return _monte_carlo(loss, made, sources, group_size, external, samples, rng)


def _flags(problem: TreeProblem, group_size: int, external: int) -> Any:
    """Which rows of a batch are external."""
    import torch

    if not external:
        return None
    prompts = np.unique(np.bincount(problem.together))
    if len(prompts) > 1:
        raise ValueError(f"together: with external responses all batches need as many prompts, got {prompts.tolist()}")
    return torch.tensor(([False] * group_size + [True] * external) * int(prompts[0]))


def _monte_carlo(
    loss: LossFunction,
    made: TreeBatches,
    sources: Sequence[Sequence[Source]],
    group_size: int,
    external: int,
    samples: int,
    rng: np.random.Generator | int,
) -> ExpectedGradient:
    samples, rng = _validate.integer("samples", samples, low=2), _validate.generator(rng)
    gradient, value, variance = np.zeros(made.table.shape), 0.0, np.zeros(made.table.shape)
    flags = _flags(made.problem, group_size, external)
    for drawn in sources:
        found = [one_batch(loss, made, rows, flags) for rows in itertools.islice(_draws(drawn, rng), samples)]
        gradients = np.stack([g for g, _ in found])
        gradient, variance = gradient + gradients.mean(axis=0), variance + gradients.var(axis=0, ddof=1) / samples
        value += float(np.mean([v for _, v in found]))
    return ExpectedGradient(gradient, value, np.sqrt(variance), samples * len(sources))


class Batches(Protocol):
    """What makes batches of a problem's responses, and gradients in its parameters: `TreeBatches`, or another."""

    @property
    def problem(self) -> TreeProblem:
        """The responses."""

    def batch(self, rows: Any, external: Any = None) -> TokenBatch:
        """A batch of some rows of the problem."""

    def gradient(self, value: Any) -> np.ndarray:
        """Of a scalar in the parameters."""


def sum_batches(
    loss: LossFunction, made: Batches, batches: Iterable[tuple[tuple[int, ...], float]], external: Any = None
) -> tuple[np.ndarray, float]:
    """``(sum_b w_b grad loss(b), sum_b w_b loss(b))``.

    Raises:
        ValueError: it is not finite. TypeError: the loss returns no scalar tensor.
    """
    import torch

    total: np.ndarray | None = None
    value = 0.0
    for part in _batched(batches, 64):
        losses = [w * scalar_loss(loss(made.batch(torch.tensor(rows), external))) for rows, w in part]
        summed = torch.stack(losses).sum()
        gradient = _finite(made.gradient(summed))
        total = gradient if total is None else total + gradient
        value += float(summed.detach())
    if total is None:
        raise ValueError("batches: needs at least one")
    return total, value


def _batched(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """`itertools.batched` of Python 3.12."""
    iterator = iter(items)
    while part := tuple(itertools.islice(iterator, size)):
        yield part


def _finite(gradient: np.ndarray) -> np.ndarray:
    index = _validate.first_true(np, ~np.isfinite(gradient))
    if index is not None:
        where = f" at prefix {index[0]}, token {index[1]}" if gradient.ndim == 2 else ""
        raise ValueError(f"loss: its gradient is {float(gradient[index])}{where}")
    return gradient


def one_batch(loss: LossFunction, made: Batches, rows: Any, external: Any = None) -> tuple[np.ndarray, float]:
    """Gradient and value on one batch."""
    value = scalar_loss(loss(made.batch(rows, external)))
    return _finite(made.gradient(value)), float(value.detach())


def _draws(sources: Sequence[Source], rng: np.random.Generator) -> Iterator[Any]:
    import torch

    laws = [(rows, np.exp(p - p.max()) / np.exp(p - p.max()).sum(), n) for rows, p, n in sources]
    while True:
        yield torch.tensor(np.concatenate([rng.choice(rows, n, p=p) for rows, p, n in laws]))


def check_loss(
    loss: LossFunction,
    made: Batches,
    group_size: int,
    external: int = 0,
    *,
    rng: np.random.Generator | int = 0,
    batches: int = CHECKED_BATCHES,
) -> None:
    """Some random batches again, and in another order: a loss is a function, and a multiset has no order.

    Responses are permuted within their groups, and whole groups are moved: code that reshapes by group is fine.

    Raises:
        ValueError: the loss is random, or depends on that order.
    """
    rng = _validate.generator(rng)
    sources = _sources(made.problem, group_size, external)
    draws = [_draws(drawn, rng) for drawn in sources]
    flags = _flags(made.problem, group_size, external)
    for k in range(batches):
        rows = next(draws[k % len(draws)])
        order = _reordered(made.problem.prompt[rows.numpy()], rng)
        first = one_batch(loss, made, rows, flags)
        for _ in range(3):
            _differ("is random", first, one_batch(loss, made, rows, flags))
        other = one_batch(loss, made, rows[order], None if flags is None else flags[order])
        _differ("depends on the order of the responses", first, other)


def _reordered(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A permutation that moves whole groups, and responses within them."""
    groups = rng.permutation(np.unique(group))
    return np.concatenate([rng.permutation(np.flatnonzero(group == g)) for g in groups])


def _differ(rule: str, one: tuple[np.ndarray, float], two: tuple[np.ndarray, float]) -> None:
    # 1e-5 leaves room for losses that compute in float32
    if not np.allclose(one[1], two[1], rtol=1e-5, atol=1e-7, equal_nan=True):
        raise ValueError(f"loss: {rule} ({one[1]:.6g} and {two[1]:.6g} for the same responses)")
    gap = float(np.linalg.norm(one[0] - two[0]))
    if gap > 1e-5 * float(np.linalg.norm(one[0])) + 1e-7:
        raise ValueError(f"loss: {rule} (for the same responses, gradients are {gap:.3g} apart)")
