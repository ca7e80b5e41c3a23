"""Batches of prompts with similar lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from trl.trainer.utils import RepeatSampler

__all__ = ["LengthSampler"]

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
