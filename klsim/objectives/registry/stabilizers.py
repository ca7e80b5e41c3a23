"""Claims of the stabilisers."""

from __future__ import annotations

from functools import partial
from typing import Any

from klsim.objectives import policy_gradient as pg
from klsim.objectives import stabilizers
from klsim.objectives.advantages import advantages, group_mean, group_std
from klsim.objectives.aggregate import sequence_sum
from klsim.objectives.batch import Loss, TokenBatch
from klsim.objectives.registry.objective import BETA, Coefficients, Objective, Setting, terms

__all__ = ["STABILIZERS"]

_STABLE = "stabiliser"


def _sngs(rewards: Any, group: Any) -> Any:
    advantage = advantages(rewards, group, baseline=group_mean, scale=group_std)
    return stabilizers.sngs(advantage, rewards, group)


def _sngs_loss(batch: TokenBatch) -> Loss:
    return pg.surrogate(batch, _sngs(batch.total_rewards(), batch.groups()), aggregate=sequence_sum)


def _safe(s: Setting) -> Coefficients:
    return {"reverse_kl(frozen)": 2 * 0.1 * max(s.value("reverse_kl(frozen)") - 0.05, 0.0)}


STABILIZERS: tuple[Objective, ...] = (
    Objective("lp_reg", _STABLE, "lp-reg", partial(stabilizers.lp_reg, rho=0.5, kappa=0.1), None,
              "binary, equal lengths", "the gate depends on the whole batch", group_size=3),
    Objective("lp_reg, gate shut", _STABLE, "lp-reg", partial(stabilizers.lp_reg, rho=0.0),
              lambda s: {"reward": -s.std_weight / s.length}, "binary, equal lengths", "w(p) per prompt", group_size=3,
              optimum="best response"),
    Objective("apo", _STABLE, "apo C2", partial(stabilizers.apo, beta=BETA), None, "binary",
              "a reward-dependent weight on k3 pushes the forward KL and pays low-weight responses", group_size=3),
    Objective("hinge_kl", _STABLE, "safe C5", partial(stabilizers.hinge_kl, threshold=0.05), _safe, "one token",
              "not linear in the batch: exact for one prefix only", off_policy="same"),
    Objective("hinge_kl, detached", _STABLE, "safe C5",
              partial(stabilizers.hinge_kl, threshold=0.0, penalty="detached"), terms({}),
              bias="no gradient at all", off_policy="same"),
    Objective("sngs", _STABLE, "gui-libra C5", _sngs_loss, lambda s: {"reward": -float(s.weight(_sngs)[0])}, "binary",
              "a factor in [1-p, 1] per prompt, nothing else", group_size=4, optimum="best response"),
)  # fmt: skip
"""Rows of the table: stabilisers of entropy and of rare tokens."""
