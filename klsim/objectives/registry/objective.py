r"""What a claim about an objective is: where it holds and which combination of population gradients it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from klsim import objectives
from klsim.objectives.advantages import advantages, group_mean, group_std, prompt_weights
from klsim.objectives.aggregate import sequence_sum
from klsim.objectives.batch import Loss, TokenBatch

__all__ = ["BETA", "LAM", "Coefficients", "Objective", "Setting", "Where", "by_prompt", "summed", "terms"]

Coefficients = Mapping[str, float]
"""A combination of functionals: coefficient by name."""
Where = Literal["any", "equal lengths", "binary", "binary, equal lengths", "one token"]
"""The rewards and lengths for which a row's claim holds."""
BETA = 0.3
"""The KL coefficient of the table's rows."""
LAM = 1.25
"""The reward scale of the table's distillation rows."""


@dataclass(frozen=True)
class Setting:
    """What a claim may depend on.

    Attributes:
        group_size: responses a prompt. success: ``E[r]`` of every prompt. length: the horizon T.
        value: the value of a named functional of the policy.
    """

    group_size: int
    success: np.ndarray
    length: int
    value: Callable[[str], float]

    @property
    def correction(self) -> float:
        """``(G-1)/G``: what the group mean leaves of the gradient."""
        return (self.group_size - 1) / self.group_size

    def weight(self, estimator: Callable[[Any, Any], Any]) -> np.ndarray:
        """`prompt_weights` of an estimator here."""
        return prompt_weights(estimator, self.success, self.group_size)

    @property
    def std_weight(self) -> float:
        """That of group normalisation, one prompt."""
        return float(self.weight(partial(advantages, baseline=group_mean, scale=group_std))[0])


@dataclass(frozen=True)
class Objective:
    """One objective of the literature in the form that its claim is about.

    Attributes:
        name, family, source: for people. loss: of a batch, to be minimised.
        population: coefficients of the population gradients that the expected gradient equals; None if there is no
            such combination, then ``bias`` says what happens instead.
        where: the problems on which the claim holds. bias: in words.
        off_policy: the claim for responses of another policy (``"same"``: as on-policy); None: it has a bias there.
        draws: who writes the responses: the policy, or the reference (rehearsal, SFT).
        prompts, group_size, external: of a batch. prefix: tokens that responses are conditioned on.
        deep: vocabulary and group size where the claim is also measured at horizon 3.
        seen_as: the prompt with the reference that the objective makes for itself; the claim is about that one.
        optimum: name of the closed form that ascent ends at, see `klsim.report.objectives`.
    """

    name: str
    family: str
    source: str
    loss: Callable[[TokenBatch], Loss]
    population: Callable[[Setting], Coefficients] | None
    where: Where = "any"
    bias: str = ""
    off_policy: Callable[[Setting], Coefficients] | Literal["same"] | None = None
    draws: Literal["policy", "ref"] = "policy"
    prompts: int = 1
    group_size: int = 2
    external: int = 0
    prefix: tuple[int, ...] = ()
    seen_as: Callable[[Any], Any] | None = None
    optimum: str = ""
    deep: tuple[int, int] = (2, 4)

    @property
    def options(self) -> tuple[str, Mapping[str, Any]]:
        """Name of the function of `klsim.objectives` and the options it is given; ``("", {})`` if it is none."""
        options: dict[str, Any] = {}
        function: Any = self.loss
        while isinstance(function, partial):
            options = {**function.keywords, **options}
            function = function.func
        name = getattr(function, "__name__", "")
        return (name, options) if getattr(objectives, name, None) is function else ("", {})

    @property
    def call(self) -> str:
        """The loss as a call, ``"g_opd(lam=1.25, aggregate=sequence_sum)"``; ``""`` for one put together by hand."""
        name, options = self.options
        shown = ", ".join(f"{key}={getattr(value, '__name__', value)}" for key, value in options.items())
        return f"{name}({shown})" if name else ""


def terms(coefficients: Coefficients) -> Callable[[Setting], Coefficients]:
    """A claim that does not depend on the problem."""
    return lambda setting: coefficients


def summed(loss: Callable[..., Loss], **options: Any) -> Callable[[TokenBatch], Loss]:
    """The loss with its tokens summed, so that it is an expectation over responses."""
    return partial(loss, aggregate=sequence_sum, **options)


def by_prompt(estimator: Callable[[Any, Any], Any]) -> Callable[[Setting], Coefficients]:
    """Token mean, equal lengths: ``-w_q/T grad p_q`` for every prompt."""
    return lambda s: {f"reward@{q}": -w / s.length for q, w in enumerate(s.weight(estimator))}
