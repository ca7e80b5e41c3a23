"""What does a loss implementation really optimise? Exact expected gradients on token trees, identified.

`audit` takes any function of a `klsim.objectives.TokenBatch` of torch tensors, or the loss code of an installed trainer
(`load_target`), and says which combination of population gradients it descends, what it depends on, what its
coefficients do, and whether that is what was expected, in every world of `klsim.audit.worlds`.
"""

from klsim.audit.expectation import Expectation, parse_expectation
from klsim.audit.measure import Audit, audit
from klsim.audit.target import Target
from klsim.audit.targets import load_target

__all__ = ["Audit", "Expectation", "Target", "audit", "load_target", "parse_expectation"]
