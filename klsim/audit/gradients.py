"""Gradients of one loss by world, each computed once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from klsim.audit.properties import reason
from klsim.audit.target import LossFunction
from klsim.audit.worlds import Setting, world

__all__ = ["Gradients"]


@dataclass
class Gradients:
    """Gradients of one loss by world, each computed once; ``skipped``: why one could not be."""

    loss: LossFunction
    setting: Setting
    known: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def __call__(self, name: str) -> np.ndarray | None:
        if name not in self.known and name not in self.skipped:
            try:
                self.known[name] = world(name, self.setting).gradient(self.loss)
            except Exception as error:  # the loss's own: a world it does not support is reported, never passed over
                self.skipped[name] = reason(error)
        return self.known.get(name)

    def need(self, name: str) -> np.ndarray:
        """The gradient in a world.

        Raises:
            ValueError: the loss could not be evaluated there; says why.
        """
        found = self(name)
        if found is None:
            raise ValueError(self.skipped[name])
        return found
