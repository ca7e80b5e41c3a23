"""Statements that many papers use, from the literature or folklore, theme by theme."""

from . import (
    attempts,
    continuous,
    power,
    preference_optimisation,
    preferences,
    proofs,
    proxies,
    regularisers,
    samplers,
    samples,
    selection,
    selection_targets,
)
from .collection import paper

__all__ = [
    "attempts",
    "continuous",
    "paper",
    "power",
    "preference_optimisation",
    "preferences",
    "proofs",
    "proxies",
    "regularisers",
    "samplers",
    "samples",
    "selection",
    "selection_targets",
]
