"""Claims of the losses on pairs: none is the gradient of a named functional; their minima are tested instead."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from klsim.objectives import preferences
from klsim.objectives.batch import Loss, TokenBatch
from klsim.objectives.registry.objective import BETA, Objective

__all__ = ["PREFERENCES"]

_PAIRS = "preferences"
_PUSH = "pushes y+ and y- apart: no functional of rewards"


def _by_reward(loss: Callable[[TokenBatch], Loss]) -> Callable[[TokenBatch], Loss]:
    """The response with the larger reward of every pair is preferred; of two equal ones either."""

    def labelled(batch: TokenBatch) -> Loss:
        xp = batch.xp
        reward, group = batch.total_rewards(), batch.groups()
        rows = xp.arange(group.shape[0], device=batch.log_probs.device)
        above = (reward[None, :] > reward[:, None]) | (
            (reward[None, :] == reward[:, None]) & (rows[None, :] < rows[:, None])
        )
        beaten = xp.any((group[None, :] == group[:, None]) & above, axis=-1)
        return loss(batch.replace(preferred=~beaten))

    return labelled


_PAIR = (2, 2)
"""Their groups are pairs, at horizon 3 too."""

PREFERENCES: tuple[Objective, ...] = (
    Objective("dpo, Bradley-Terry labels", _PAIRS, "Rafailov et al. 2023",
              partial(preferences.online_dpo, labels="bradley_terry", beta=BETA), None, draws="ref",
              bias="a logistic regression of reward differences on log ratios; the minimum is the sequence tilt",
              deep=_PAIR),
    Objective("ipo, Bradley-Terry labels", _PAIRS, "Azar et al. 2024",
              partial(preferences.online_dpo, labels="bradley_terry", loss="ipo", beta=BETA), None, draws="ref",
              bias="a least-squares regression; the minimum is the tilt by P(y > ref)", deep=_PAIR),
    Objective("dpo", _PAIRS, "Rafailov et al. 2023", _by_reward(preferences.dpo), None, draws="ref", bias=_PUSH,
              deep=_PAIR),
    Objective("ipo", _PAIRS, "Azar et al. 2024", _by_reward(preferences.ipo), None, draws="ref",
              bias="a least-squares regression on certain labels", deep=_PAIR),
    Objective("kto", _PAIRS, "Ethayarajh et al. 2024", _by_reward(preferences.kto), None, draws="ref",
              bias="a bounded utility per response: what is far from the reference point stops moving"),
    Objective("orpo", _PAIRS, "Hong et al. 2024", _by_reward(preferences.orpo), None, draws="ref",
              bias="imitates y+ by mean log-likelihood; no reference", deep=_PAIR),
    Objective("cpo", _PAIRS, "Xu et al. 2024", _by_reward(preferences.cpo), None, draws="ref",
              bias="imitates y+; no reference", deep=_PAIR),
    Objective("simpo", _PAIRS, "Meng et al. 2024", _by_reward(preferences.simpo), None, draws="ref",
              bias="mean log-probabilities and a target margin; no reference", deep=_PAIR),
    Objective("online_dpo", _PAIRS, "Guo et al. 2024", preferences.online_dpo, None, bias=_PUSH, deep=_PAIR),
)  # fmt: skip
"""Rows of the table: preference losses."""
