"""The claims engine: state a claim about objectives and policies, and let klsim try to break it.

`Paper`, `Claim.check` and `Check.control` declare (`klsim.claims.paper`); the kinds judge
(`klsim.claims.kinds`); `verify` runs and returns a certificate (`klsim.claims.runner`).
"""

from klsim.claims.assuming import assume
from klsim.claims.authors import Study, shared
from klsim.claims.definition import DefinitionError
from klsim.claims.kinds import Effect, Exists, Identity, Inequality, Limit, Optimality, Proven, Symbolic
from klsim.claims.loader import LoadError, load, load_check, select
from klsim.claims.paper import Check, Claim, Control, Paper, Variant
from klsim.claims.runner import verify

__all__ = [
    "Check",
    "Claim",
    "Control",
    "DefinitionError",
    "Effect",
    "Exists",
    "Identity",
    "Inequality",
    "Limit",
    "LoadError",
    "Optimality",
    "Paper",
    "Proven",
    "Study",
    "Symbolic",
    "Variant",
    "assume",
    "load",
    "load_check",
    "select",
    "shared",
    "verify",
]
