"""Statements that many papers use, from the literature or folklore, theme by theme."""

from . import attempts, continuous, power, preferences, proofs, regularisers, samplers, selection, selection_targets
from .collection import paper

__all__ = [
    "attempts",
    "continuous",
    "paper",
    "power",
    "preferences",
    "proofs",
    "regularisers",
    "samplers",
    "selection",
    "selection_targets",
]
