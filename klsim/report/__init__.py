"""Figures and the static HTML report.

`Figures`, `Run` and `Table` are those of `klsim.report.figures`, imported when they are asked for: what only prints
tables (`klsim.report.terminal`) needs neither claims nor figures.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from klsim.report.figures import Figures, Run, Table

__all__ = ["Figures", "Run", "Table"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'klsim.report' has no attribute {name!r}")
    from klsim.report import figures

    return getattr(figures, name)
