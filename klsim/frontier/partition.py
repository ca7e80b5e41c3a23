"""Sums over blocks of prompts: here, or by tasks that hold a part of the prompts each.

Every quantity of the frontier and every bootstrap of it is a function of sums over blocks of prompts. A block's sum
depends on nothing but its own prompts, so that tasks with whole blocks give the bytes that one process gives.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klsim.parallel import Died, execute

__all__ = ["Spread", "here", "parts_of", "spread_over"]

PART = 2_000_000
"""Samples of one task: 16 MB of rewards."""

Spread = Callable[[str, Sequence[np.ndarray], np.ndarray, np.ndarray, np.ndarray, Sequence[Any]], np.ndarray]
"""``(kernel, arrays, starts, members, block_starts, arguments)`` to one row a block; see `here`."""


def here(
    kernel: str,
    arrays: Sequence[np.ndarray],
    starts: np.ndarray,
    members: np.ndarray,
    block_starts: np.ndarray,
    arguments: Sequence[Any],
) -> np.ndarray:
    """A kernel of `klsim.kernels.log_partition` by its name, in this process.

    ``arrays``: one value a sample, prompt i at ``starts[i]:starts[i+1]``; block b has the prompts
    ``members[block_starts[b]:block_starts[b+1]]``.
    """
    from klsim.kernels import log_partition

    return np.asarray(getattr(log_partition, kernel)(*arrays, starts, members, block_starts, *arguments))


@dataclass(frozen=True, eq=False)
class _Part:
    """Some blocks, with the samples of their prompts only."""

    kernel: str
    arrays: tuple[np.ndarray, ...]
    starts: np.ndarray
    block_starts: np.ndarray
    arguments: tuple[Any, ...]

    def run(self) -> np.ndarray:
        members = np.arange(len(self.starts) - 1)
        return here(self.kernel, self.arrays, self.starts, members, self.block_starts, self.arguments)


def parts_of(samples: int) -> int:
    """How many tasks a file of this many samples is worth."""
    return -(-samples // PART)


def spread_over(parts: int, *, jobs: int = 1, scheduler: str | None = None) -> Spread:
    """`here`, by ``parts`` tasks in ``jobs`` processes or on a Dask cluster; the result is the same to the last bit.

    Raises:
        ValueError: a part whose worker died twice; the scheduler cannot be reached.
    """

    def spread(
        kernel: str,
        arrays: Sequence[np.ndarray],
        starts: np.ndarray,
        members: np.ndarray,
        block_starts: np.ndarray,
        arguments: Sequence[Any],
    ) -> np.ndarray:
        tasks = list(_parts(parts, kernel, arrays, starts, members, block_starts, arguments))
        found: list[Any] = [None] * len(tasks)
        for index, sums in execute(tasks, jobs=jobs, scheduler=scheduler):
            if isinstance(sums, Died):
                raise ValueError(f"part {index + 1} of {len(tasks)} of the prompts: {sums.reason}")
            found[index] = sums
        return np.concatenate(found)

    return spread


def _parts(
    parts: int,
    kernel: str,
    arrays: Sequence[np.ndarray],
    starts: np.ndarray,
    members: np.ndarray,
    block_starts: np.ndarray,
    arguments: Sequence[Any],
) -> Iterator[_Part]:
    edges = np.unique(np.linspace(0, len(block_starts) - 1, parts + 1).astype(np.int64))
    for first, last in itertools.pairwise(edges):
        bounds = block_starts[first : last + 1]
        chosen = members[bounds[0] : bounds[-1]]
        counts = starts[chosen + 1] - starts[chosen]
        own = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(starts[chosen] - own[:-1], counts) + np.arange(own[-1])
        held = tuple(a[rows] for a in arrays)
        yield _Part(kernel, held, own, bounds - bounds[0], tuple(arguments))
