"""Preference matrices as fields of a space."""

from __future__ import annotations

from klsim.preferences import from_log_odds
from klsim.spaces.field import Field
from klsim.spaces.numbers import Normals

__all__ = ["preferences"]


def preferences(axis: str | int = "A", *, scale: float = 1.5) -> Field:
    """Preference matrices ``(A, A)`` whose log-odds are ``scale * N(0, 1)``, of no model: cycles too."""
    return Normals(axis, axis, scale=scale).map(from_log_odds)
