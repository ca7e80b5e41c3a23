"""klsim: where a claim about KL-regularised RL objectives for language models is settled.

Modules are imported when first used, so that ``import klsim`` costs next to nothing:
``klsim.optima``, ``klsim.best_of_n``, ``klsim.claims`` … (see the README for what is where).
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"
"""Version of the installed klsim."""

__all__ = [
    "__version__",
    "audit",
    "best_of_n",
    "claims",
    "distributions",
    "divergences",
    "estimators",
    "frontier",
    "learning",
    "lm",
    "mass_balance",
    "memoryless",
    "objectives",
    "optima",
    "planning",
    "problems",
    "report",
    "spaces",
    "testing",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"klsim.{name}")
    raise AttributeError(f"module 'klsim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
