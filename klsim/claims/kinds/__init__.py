r"""The kinds of claim: what a check returns, and when it holds.

=============  =====================================  ==================================================
kind           the check returns (or a dict of them)  holds when
=============  =====================================  ==================================================
`Identity`     ``lhs, rhs[, scale]``                  ``|lhs - rhs| <= rtol * max(|lhs|, |rhs|, scale)``
`Inequality`   ``lhs, rhs[, scale]``                  ``lhs - rhs <= rtol * max(|lhs|, |rhs|, scale)``
`Optimality`   ``value, challenger[, scale]``         no challenger (a dual bound or another solver's
                                                      value) exceeds ``value`` by more than
                                                      ``tol * max(|value|, |challenger|, scale)``
`Exists`       ``lhs, rhs[, scale]``                  some instance has ``lhs > rhs`` beyond rounding
`Limit`        ``n, error``                           the error falls along the sequence and, where theory
                                                      has a rate, its exponent at the end is that
`Effect`       one number a seed                      a 95 % interval lies on the stated side of ``null``
`Symbolic`     a sympy expression                     it simplifies to zero
`Proven`       ``lhs, rhs`` of balls                  ``lhs <= rhs`` on a whole box, by ball arithmetic
=============  =====================================  ==================================================

``scale`` is the magnitude of the terms that were added up to get ``lhs`` and ``rhs``: rounding is relative to what was
added, not to what is left after cancellation. It is given once for the kind (``Identity(1e-9, scale=1)``), or an
instance by the check, or both (the larger counts). A scalar side stands for all instances. Equal infinities are
equal; a NaN on either side is an error, never a verdict. Where the evidence does not decide, the verdict is
``not_shown``.

A kind owns how its checks are run (`Kind.run`), so that a new kind is one class.
"""

from klsim.claims.kinds.base import Kind, Trial
from klsim.claims.kinds.effect import Effect
from klsim.claims.kinds.instance import Exists, Identity, Inequality, InstanceKind, Measured, Optimality
from klsim.claims.kinds.limit import Limit
from klsim.claims.kinds.proven import Proven
from klsim.claims.kinds.symbolic import Symbolic

__all__ = [
    "Effect",
    "Exists",
    "Identity",
    "Inequality",
    "InstanceKind",
    "Kind",
    "Limit",
    "Measured",
    "Optimality",
    "Proven",
    "Symbolic",
    "Trial",
]
