"""What a verdict is called where results are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["box", "word_of"]


def word_of(record: Mapping[str, Any]) -> str:
    """A verdict's key: ``vacuous`` for one that could not have failed, ``proven`` where every check is a proof.

    Args:
        record: a claim, a check or a control of a certificate.
    """
    if record.get("vacuous") and record["verdict"] != "error":
        return "vacuous"
    checks = record.get("checks", [record])
    if record["verdict"] == "holds" and checks and all(check.get("kind") == "proven" for check in checks):
        return "proven"
    return str(record["verdict"])


def box(measured: Mapping[str, Any]) -> str:
    """The box of a proof in words, ``0.02 <= q <= 0.98, 2 <= n <= 64``; empty without one."""
    sides = measured.get("box")
    if not isinstance(sides, Mapping):
        return ""
    return ", ".join(f"{low:g} <= {name} <= {high:g}" for name, (low, high) in sides.items())
