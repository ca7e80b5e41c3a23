"""Claims of the losses that stay near the old policy in other ways than PPO's clip."""

from __future__ import annotations

import math
from functools import partial

from klsim.objectives import covariance, trust_region
from klsim.objectives import policy_gradient as pg
from klsim.objectives.registry.objective import Coefficients, Objective, Setting, Where

__all__ = ["TRUST_REGION"]

_NEAR = "trust region"
_EQUAL: Where = "binary, equal lengths"
_OFF = "on-policy the unclipped surrogate: w(p) per prompt"
_LENGTH = "on-policy GRPO: 1/length per response, w(p) per prompt"


def _token_mean(s: Setting) -> Coefficients:
    return {"reward": -s.std_weight / s.length}


def _sequence_mean(s: Setting) -> Coefficients:
    return {"reward_per_token": -s.std_weight}


def _sample_std(s: Setting) -> Coefficients:
    return {"reward_per_token": -s.std_weight * math.sqrt(s.correction)}


TRUST_REGION: tuple[Objective, ...] = (
    Objective("grpo, sample std", _NEAR, "TRL, verl", partial(pg.grpo, std="sample"), _sample_std, "binary",
              "sqrt((G-1)/G) of the population std's gradient", group_size=4),
    Objective("bnpo", _NEAR, "TRL", trust_region.bnpo, _token_mean, _EQUAL, _OFF, group_size=3,
              optimum="best response"),
    Objective("bnpo, variable lengths", _NEAR, "TRL", trust_region.bnpo, None, "binary",
              "a mean over the tokens of a batch is a ratio estimator", group_size=3),
    Objective("dual_clip", _NEAR, "Ye et al. 2020", trust_region.dual_clip, _token_mean, _EQUAL, _OFF, group_size=3),
    Objective("dppo tv", _NEAR, "arXiv:2602.04879", trust_region.dppo, _token_mean, _EQUAL, _OFF, group_size=3),
    Objective("dppo kl", _NEAR, "arXiv:2602.04879", partial(trust_region.dppo, divergence="kl"), _token_mean, _EQUAL,
              _OFF, group_size=3),
    Objective("sapo", _NEAR, "Gao et al. 2025", trust_region.sapo, _sequence_mean, "binary", _LENGTH, group_size=3,
              optimum="best response"),
    Objective("gmpo", _NEAR, "Zhao et al. 2025", trust_region.gmpo, _sequence_mean, "binary", _LENGTH, group_size=3,
              optimum="best response"),
    Objective("luspo", _NEAR, "Liu et al. 2026", trust_region.luspo, lambda s: {"reward": -s.std_weight}, "binary",
              "w(p) per prompt, no weight by length on-policy", group_size=4, optimum="best response"),
    Objective("vespo", _NEAR, "arXiv:2602.10693", trust_region.vespo, _token_mean, _EQUAL, _OFF, group_size=3),
    Objective("clip_cov", _NEAR, "Cui et al. 2025",
              partial(covariance.clip_cov, fraction=0.2, band=(0.0, math.inf)), None, _EQUAL,
              "tokens of large covariance leave, which depends on the whole batch", group_size=3),
    Objective("kl_cov", _NEAR, "Cui et al. 2025", partial(covariance.kl_cov, fraction=0.2), _token_mean, _EQUAL,
              "at pi = old the penalty has no gradient; w(p) per prompt", group_size=3),
)  # fmt: skip
"""Rows of the table: clips and other trust regions."""
