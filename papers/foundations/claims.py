"""Statements that many papers use, from the literature or folklore, theme by theme."""

from . import (
    attempts,
    constraints,
    continuous,
    gaussian,
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
    "constraints",
    "continuous",
    "gaussian",
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
