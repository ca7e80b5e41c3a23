"""`assume`: instances that a check finds outside its assumptions are dropped and counted, never judged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

__all__ = ["Dropped", "assume", "collecting"]


class Dropped(Exception):
    """The one instance at hand is outside the assumptions."""


_masks: ContextVar[list[np.ndarray] | None] = ContextVar("klsim_assumed", default=None)


def assume(condition: Any) -> None:
    """Inside a check: go on only with instances for which ``condition`` is true.

    On a batch ``condition`` has one boolean an instance; those with False are dropped from the verdict and counted
    apart in the certificate. Where nearly all are dropped the check fails as vacuous. Outside of a search (a check
    called by hand) a False condition raises `Dropped`.
    """
    mask = np.asarray(condition, dtype=bool)
    if mask.ndim == 0 or _masks.get() is None:
        if not mask.all():
            raise Dropped("the instance is outside the assumptions of the check")
        return
    kept = _masks.get()
    assert kept is not None
    kept.append(np.asarray(mask.reshape(len(mask), -1).all(axis=1)))


@contextmanager
def collecting() -> Iterator[list[np.ndarray]]:
    """While it lasts, conditions on a batch are collected into the list instead of raised."""
    kept: list[np.ndarray] = []
    token = _masks.set(kept)
    try:
        yield kept
    finally:
        _masks.reset(token)
