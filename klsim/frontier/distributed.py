"""Rollouts read on a Dask cluster: a task a file; what comes back is 16 bytes a sample.

A killed worker's files are read again by another. Prompts are numbered in the order of the files, as one process
does, so that the result is the same to the last bit. Workers need the same paths (or addresses of fsspec). Sums over
the prompts are then made there, too: `klsim.frontier.partition`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from klsim.frontier.formats.sources import Source, find
from klsim.frontier.rollouts import Rollouts, conditions, read_rollouts, stop_if_pooled, stop_if_pooled_files
from klsim.parallel import Died, execute

__all__ = ["read_distributed"]

_NONE = "no row has"


@dataclass(frozen=True)
class _File:
    source: Source
    options: Mapping[str, Any]

    def run(self) -> tuple[np.ndarray, Rollouts] | str:
        """The keys of its prompts in order of appearance, and its columns; or why no row satisfies ``where``."""
        known: dict[int, int] = {}
        try:
            found = read_rollouts([self.source], known=known, stable=True, **self.options)
        except ValueError as error:
            if _NONE in str(error):
                return str(error)
            raise
        return np.array(list(known), dtype=np.uint64), replace(found, origins=())


def read_distributed(
    paths: Sequence[str],
    *,
    scheduler: str | None,
    jobs: int = 1,
    prompt: str | None = None,
    reward: Sequence[str] = (),
    where: Sequence[str] = (),
    on_file: Callable[[str], None] = lambda name: None,
) -> Rollouts:
    """`klsim.frontier.read_rollouts` with a task a file, on a Dask cluster or in ``jobs`` processes.

    Raises:
        ValueError: as `read_rollouts`; the scheduler cannot be reached.
    """
    sources = find(paths)
    stop_if_pooled_files(sources, conditions(where), None)
    options = {"prompt": prompt, "reward": tuple(reward), "where": tuple(where)}
    tasks = [_File(source, options) for source in sources]
    parts: list[Any] = [None] * len(tasks)
    for index, found in execute(tasks, jobs=jobs, scheduler=scheduler):
        if isinstance(found, Died):
            raise ValueError(f"{sources[index].path}: {found.reason}")
        parts[index] = found
        on_file(sources[index].path)
    read = [part for part in parts if not isinstance(part, str)]
    if not read:
        raise ValueError(parts[0])
    known: dict[int, int] = {}
    prompts: list[np.ndarray] = []
    seen: dict[str, dict[str, None]] = {}
    for keys, found in read:
        numbers = np.array([known.setdefault(int(key), len(known)) for key in keys], dtype=np.int64)
        prompts.append(numbers[found.prompt])
        for name, distinct in found.watched.items():
            seen.setdefault(name, {}).update(dict.fromkeys(distinct))
    stop_if_pooled(", ".join(paths), seen)
    notes = tuple(dict.fromkeys(note for _, found in read for note in found.notes))
    return Rollouts(np.concatenate(prompts), np.concatenate([found.reward for _, found in read]), {}, notes)
