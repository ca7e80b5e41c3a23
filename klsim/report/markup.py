"""Text from elsewhere in Rich's markup."""

from __future__ import annotations

import rich.markup

from klsim.files import printable

__all__ = ["escape"]


def escape(text: str) -> str:
    """Neither markup nor control characters of ``text`` act."""
    return rich.markup.escape(printable(text))
