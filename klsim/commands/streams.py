"""Output where the terminal, or what a pipe is read as, has no Unicode."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

__all__ = ["fall_back_to_ascii"]

_ASCII = {
    "✓": "+", "✗": "x", "·": ".", "○": "o", "–": "-", "—": "-", "−": "-", "…": "...", "±": "+/-", "×": "x",
    "≥": ">=", "≤": "<=", "→": "->", "β": "beta", "λ": "lam", "α": "alpha", "δ": "delta",
    "‖": "||", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What a terminal or a pipe shows for characters that its encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    plain = (_ASCII.get(c) or unicodedata.normalize("NFKD", c).encode("ascii", "ignore").decode() for c in lacking)
    return "".join(p or "?" for p in plain), error.end


def fall_back_to_ascii() -> None:
    """Let standard output and error show what their encoding lacks in ASCII, instead of failing."""
    codecs.register_error("klsim", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="klsim")
