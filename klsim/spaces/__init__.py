r"""Distributions over problem instances: one object, two samplers.

A `Space` names the arguments of a check and says where each comes from. It can be drawn from in two ways: as a
Hypothesis strategy (adversarial: small sizes, ties, zero support, one action, extreme scales) and as a vectorised bulk
sampler (thousands of random instances in arrays with a leading batch axis, for one call of a batched function).

::

    Space(log_policy=Policies(), log_ref=Policies(), beta=Betas(), A=Sizes(1, 8))

Fields refer to sizes by name: ``Policies("A")`` has as many outcomes as the size ``A`` of the same space. A size that
is not declared is drawn from 1…8 and not handed to the check. Within one bulk batch all instances share their sizes.
`Drawn` and the problem fields (`Bandits`, `DiscountedMDPs`, …) draw one object an instance; ``field.map(f)`` hands
the check what ``f`` makes of the draw. Assumptions that concern several fields are a predicate, ``where=lambda a, b:
...``, true where the instance is allowed (one boolean an instance).
"""

from typing import Any

from klsim.spaces.field import Drawn, Field
from klsim.spaces.numbers import Betas, Choice, Floats, Integers, Masks, Normals, Seeds, Sizes
from klsim.spaces.policies import Policies, Rewards, TreeNormals, TreePolicies, on_support_of
from klsim.spaces.space import Space

_PROBLEMS = (
    "Bandits",
    "CoupledRestlessBandits",
    "DiscountedMDPs",
    "LinearMDPs",
    "MaskedDiffusionLMs",
    "OfflineData",
    "POMDPs",
    "PromptBandits",
    "TabularMDPs",
    "TokenTrees",
)

__all__ = [
    "Bandits",
    "Betas",
    "Choice",
    "CoupledRestlessBandits",
    "DiscountedMDPs",
    "Drawn",
    "Field",
    "Floats",
    "Integers",
    "LatentMDPs",
    "LinearMDPs",
    "MaskedDiffusionLMs",
    "Masks",
    "Normals",
    "OfflineData",
    "POMDPs",
    "Policies",
    "PreferenceBandits",
    "PromptBandits",
    "Rewards",
    "Seeds",
    "Sizes",
    "Space",
    "TabularMDPs",
    "TokenTrees",
    "TreeNormals",
    "TreePolicies",
    "on_support_of",
]


def __getattr__(name: str) -> Any:
    """The problem fields load with `klsim.problems`, when first used."""
    if name == "LatentMDPs":
        from klsim.spaces.latent_mdp import LatentMDPs

        return LatentMDPs
    if name == "PreferenceBandits":
        from klsim.spaces.preferences import PreferenceBandits

        return PreferenceBandits
    if name in _PROBLEMS:
        from klsim.spaces import problems

        return getattr(problems, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
