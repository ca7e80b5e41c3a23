"""Samples of prompts: checked columns, prompts as integers, rewards grouped by prompt in random order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from klsim import _validate
from klsim.frontier.bootstrap import MAX_BLOCKS
from klsim.frontier.partition import Spread, here

__all__ = ["Samples", "column", "common_prompts", "enough_samples", "numbered", "repeated_rows"]

REPEATED_BITS = 40.0
"""Rows that repeat in the same order by chance: with probability below 2^-40."""


def column(name: str, values: Any) -> np.ndarray:
    """One finite number a row.

    Raises:
        ValueError: another shape, no rows, NaN or infinities (with their row).
    """
    found = np.asarray(_validate.arrays(**{name: values})[1], dtype=np.float64)
    if found.ndim != 1 or not found.size:
        _validate.fail(name, f"needs one value a row, got shape {found.shape}")
    return np.asarray(_validate.finite(name, np, found))


def numbered(keys: Mapping[str, Any], rows: Sequence[int]) -> list[np.ndarray]:
    """Every prompt as an integer, the same in all columns (``name -> prompts``), in order of first appearance."""
    out = []
    known: dict[Any, int] = {}
    for (name, values), count in zip(keys.items(), rows):
        found = np.asarray(values)
        if found.ndim != 1 or len(found) != count:
            raise ValueError(f"{name}: needs one prompt a row ({count}), got shape {found.shape}")
        if found.dtype.kind == "f" and np.isnan(found).any():
            raise ValueError(f"{name}: is NaN in row {int(np.flatnonzero(np.isnan(found))[0])}")
        distinct, first, inverse = np.unique(found, return_index=True, return_inverse=True)
        numbers = np.empty(len(distinct), np.int64)
        for place in np.argsort(first):
            numbers[place] = known.setdefault(distinct[place].item(), len(known))
        codes = numbers[inverse]
        out.append(found if found.dtype == codes.dtype and np.array_equal(found, codes) else codes)
    return out


def common_prompts(groups: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray, int]:
    """Which rows of each group belong to prompts that all have; those prompts; how many prompts there are in all."""
    every, both = groups[0], groups[0]
    for codes in groups[1:]:
        every, both = np.union1d(every, codes), np.intersect1d(both, codes)
    both = np.unique(both)
    return [np.isin(codes, both) for codes in groups], both, len(np.unique(every))


def enough_samples(codes: np.ndarray, fewest: int, notes: list[str], what: str = "") -> np.ndarray:
    """Which rows belong to prompts with at least ``fewest`` samples; the others are noted.

    Raises:
        ValueError: fewer than two prompts have that many.
    """
    counts = np.bincount(codes)
    present = counts > 0
    good = counts >= fewest
    if good.sum() == present.sum() and good.sum() >= 2:
        return np.ones(len(codes), dtype=bool)
    if present.sum() < 2:
        raise ValueError(f"prompt: needs at least two prompts (intervals are over prompts){what}, got 1")
    if counts.max() == 1 and fewest > 1:
        raise ValueError(
            f"prompt: every prompt has one sample{what}; the frontier needs several samples of each prompt"
        )
    if good.sum() < 2:
        fewer = ", or ask for fewer with --min-samples" if fewest > 2 else ""
        raise ValueError(
            f"prompt: {int(good.sum())} of {int(present.sum())} prompts have at least {fewest} samples{what}; two such "
            "prompts "
            f"are needed: draw more{fewer}"
        )
    left = int(present.sum() - good.sum())
    notes.append(
        f"{left} of {int(present.sum())} prompts have fewer than {fewest} samples{what} and are left out "
        "(--min-samples)"
    )
    return np.asarray(good[codes])


def repeated_rows(codes: np.ndarray, *columns: np.ndarray) -> int:
    """How often a file repeats itself, row by row, where that is no chance; 1 if it does not."""
    rows = len(codes)
    for copies in (2, 3, 4, 5, 7):
        part = rows // copies
        if rows % copies or not part or not all(np.array_equal(c[part:], c[:-part]) for c in (codes, *columns)):
            continue
        # what the first value of each prompt, repeated by chance, would cost: its share among the prompt's values
        pairs, counts = np.unique(np.stack([codes[:part], columns[0][:part]]), axis=1, return_counts=True)
        owners = np.bincount(codes[:part])
        shares = counts / owners[pairs[0].astype(np.int64)]
        if float(-(counts * np.log2(shares)).sum()) * (copies - 1) > REPEATED_BITS:
            return copies
    return 1


class Samples:
    """Rewards in units of their range, grouped by prompt in random order, and prompts in random blocks.

    Attributes:
        reward: in [0, 1]: ``(reward - lowest) / scale``. order: the rows behind it.
        starts: of the prompts. counts: samples of each. members, block_starts, block_sizes: the blocks.
    """

    def __init__(self, codes: np.ndarray, reward: np.ndarray, seed: int, spread: Spread = here) -> None:
        from klsim.kernels.groups import grouped_order

        counts = np.bincount(codes)
        low, high = float(reward.min()), float(reward.max())
        if low == high:
            raise ValueError(f"reward: all {len(reward)} rewards are {low:g}: no KL buys any reward")
        if not math.isfinite(high - low):
            raise ValueError(f"reward: spans from {low:g} to {high:g}, more than a number can hold: divide the rewards")
        self.counts, self.spread = counts, spread
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        # halves must not depend on the order of the file
        self.order = grouped_order(codes, self.starts, np.arange(len(counts)), seed)
        self.lowest, self.scale = low, high - low
        self.reward = reward[self.order]
        self.reward -= low  # only differences matter: keep them exact
        self.reward /= self.scale
        best, worst = (f.reduceat(self.reward, self.starts[:-1]) for f in (np.maximum, np.minimum))
        self.constant = int(np.sum(best == worst))
        if self.constant == len(counts):
            raise ValueError("reward: is constant within every prompt: no KL buys any reward")
        self.best = best
        prompts = len(counts)
        blocks = min(prompts, MAX_BLOCKS)
        rng = np.random.default_rng(seed)
        self.members = rng.permutation(prompts) if blocks < prompts else np.arange(prompts)
        self.block_starts = np.linspace(0, prompts, blocks + 1).astype(np.int64)
        self.block_sizes = np.diff(self.block_starts).astype(np.float64)

    @property
    def prompts(self) -> int:
        """How many."""
        return len(self.counts)

    @property
    def binary(self) -> bool:
        """All rewards are 0 or 1."""
        return self.lowest == 0 and self.scale == 1 and bool(np.all((self.reward == 0) | (self.reward == 1)))

    def block_sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over the blocks of one value (or row) a prompt."""
        return np.asarray(np.add.reduceat(values[self.members], self.block_starts[:-1], axis=0))

    def kernel_sums(self, kernel: str, arrays: Sequence[np.ndarray], *arguments: Any) -> np.ndarray:
        """Sums over the blocks by a kernel of `klsim.kernels.log_partition`, of arrays in the order of `reward`."""
        return self.spread(kernel, arrays, self.starts, self.members, self.block_starts, arguments)

    def prompt_means(self, values: np.ndarray | None = None) -> np.ndarray:
        """Mean of every prompt, of the rewards or of other values in their order."""
        return np.asarray(np.add.reduceat(self.reward if values is None else values, self.starts[:-1]) / self.counts)

    def log_ties(self) -> np.ndarray:
        """Log of how many samples attain the best reward of each prompt."""
        ties = self.reward == np.repeat(self.best, self.counts)
        return np.asarray(np.log(np.add.reduceat(ties, self.starts[:-1], dtype=np.int64)))

    def in_units(self, x: float) -> float:
        """A reward in [0, 1] in the user's units."""
        return self.lowest + self.scale * x
