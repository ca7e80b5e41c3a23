r"""Every objective: by name with its options, and with what it claims to be the gradient of.

* `LOSSES`: the losses of `klsim.objectives` by the names of their functions, each with its options and defaults.
  `named` builds one from Python values, `from_text` from an address such as ``grpo?clip=0.2,0.28``. This is the one
  namespace of ``klsim objectives --list``, ``klsim train`` and ``klsim audit klsim:NAME?option=…``.
* `OBJECTIVES`: settings of these losses whose gradients are claimed and measured. An `Objective` names the combination
  of population gradients (`klsim.learning.functional_gradient`) that its expected on-policy gradient equals, or the
  bias it has instead. Tests, ``klsim objectives`` and the documentation iterate over them; no number is written down
  twice. A row that has a function's name measures it with its defaults, or with the options that it must be given and
  those that the table states; `address` writes a row as `from_text` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping

from klsim.objectives.registry.actor_critic import ACTOR_CRITIC
from klsim.objectives.registry.baselines import BASELINES
from klsim.objectives.registry.data import DATA
from klsim.objectives.registry.distillation import DISTILLATION
from klsim.objectives.registry.kl import KL_TERMS
from klsim.objectives.registry.names import (
    LOSSES,
    LossFunction,
    NamedLoss,
    Option,
    address,
    fields_needed,
    from_text,
    named,
    near,
)
from klsim.objectives.registry.objective import BETA, LAM, Coefficients, Objective, Setting, Where
from klsim.objectives.registry.policy_gradient import POLICY_GRADIENT
from klsim.objectives.registry.preferences import PREFERENCES
from klsim.objectives.registry.rollout import ROLLOUT
from klsim.objectives.registry.several import SEVERAL
from klsim.objectives.registry.stabilizers import STABILIZERS
from klsim.objectives.registry.trust_region import TRUST_REGION

__all__ = [
    "BETA",
    "LAM",
    "LOSSES",
    "OBJECTIVES",
    "Coefficients",
    "LossFunction",
    "NamedLoss",
    "Objective",
    "Option",
    "Setting",
    "Where",
    "address",
    "fields_needed",
    "from_text",
    "named",
    "near",
    "resolve",
]

OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for rows in (
        POLICY_GRADIENT, TRUST_REGION, BASELINES, SEVERAL, ROLLOUT, ACTOR_CRITIC, KL_TERMS, DISTILLATION, PREFERENCES,
        DATA, STABILIZERS,
    )
    for objective in rows
}  # fmt: skip
"""All rows of the table of objectives, by name."""


def resolve(text: str) -> LossFunction:
    """The loss of an address (`from_text`); else that of the row of `OBJECTIVES` with exactly this name.

    Raises:
        ValueError: as `from_text`.
    """
    name = text.partition("?")[0]
    if name not in LOSSES and text in OBJECTIVES:
        return OBJECTIVES[text].loss
    return from_text(text)
