"""Orders of a data set: batches of prompts with similar lengths, and epochs that a resumed training meets again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import RandomSampler, Sampler
from trl.trainer.utils import RepeatSampler

__all__ = ["EpochSampler", "LengthSampler", "by_epoch"]

_MEGABATCH = 50
"""Batches that are sorted together: all prompts keep a chance to meet, and neighbours differ little in length."""


class LengthSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's `RepeatSampler`, whose batches hold prompts of similar lengths: a random order, cut into stretches of 50
    batches, each sorted by length, and then its batches shuffled. Every epoch draws anew; what it repeats is TRL's.

    Args:
        lengths: of the prompts. mini_repeat_count, batch_size, repeat_count, seed: as in `RepeatSampler`.
    """

    def __init__(
        self, lengths: Sequence[int], *, mini_repeat_count: int, batch_size: int, repeat_count: int, seed: int
    ) -> None:
        super().__init__(lengths, mini_repeat_count, batch_size, repeat_count, shuffle=True, seed=seed)
        self.lengths = list(lengths)

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.num_samples, generator=self.generator).tolist()
        order = order[: len(order) // self.batch_size * self.batch_size]
        stretch = _MEGABATCH * self.batch_size
        batches = []
        for start in range(0, len(order), stretch):
            near = sorted(order[start : start + stretch], key=self.lengths.__getitem__)
            batches += [near[i : i + self.batch_size] for i in range(0, len(near), self.batch_size)]
        for i in torch.randperm(len(batches), generator=self.generator).tolist():
            for _ in range(self.repeat_count):
                for index in batches[i]:
                    yield from [index] * self.mini_repeat_count


class EpochSampler(Sampler[int]):
    """Another sampler, whose order in an epoch follows from ``seed`` and the epoch's number alone.

    TRL's and transformers' own go on with their generators from epoch to epoch, which a resumed training does not.

    Args:
        sampler: with an attribute ``generator``, that all its random numbers come from. seed: of the first epoch.
    """

    def __init__(self, sampler: Any, seed: int) -> None:
        self.sampler, self.seed = sampler, seed
        self.generator = sampler.generator = torch.Generator()
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """The next pass is that of ``epoch`` (from 0)."""
        self.generator.manual_seed(self.seed + epoch)

    def __iter__(self) -> Iterator[int]:
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)


def by_epoch(sampler: Any, seed: int) -> Any:
    """The sampler as an `EpochSampler`, unless it draws nothing, or accelerate seeds its epochs (`RandomSampler`)."""
    own = isinstance(sampler, RandomSampler) or not hasattr(sampler, "generator")
    return sampler if own else EpochSampler(sampler, seed)
