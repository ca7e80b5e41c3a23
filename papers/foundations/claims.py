"""Statements that many papers use, from the literature or folklore, theme by theme."""

from . import attempts, power, selection
from .collection import paper

__all__ = ["attempts", "paper", "power", "selection"]
