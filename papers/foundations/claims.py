"""Statements that many papers use, from the literature or folklore, theme by theme."""

from . import attempts, constraints, continuous, gaussian, power, preferences, proofs, regularisers, selection
from .collection import paper

__all__ = [
    "attempts", "constraints", "continuous", "gaussian", "paper", "power", "preferences", "proofs", "regularisers", "selection",
]  # fmt: skip
