"""Low-rank and linear MDPs are solved, evaluated and sampled as the tabular problems that they write out."""

from __future__ import annotations

from typing import Any

import numpy as np

from klsim.planning.evaluation import Evaluation, Trajectories, evaluate, occupancy, rollouts
from klsim.planning.solution import Solution
from klsim.planning.solve import solve
from klsim.problems import LinearMDP
from klsim.problems.low_rank_mdp import LowRankMDP

__all__: list[str] = []


@solve.register
def _(problem: LowRankMDP | LinearMDP, log_ref: Any = None, beta: float = 1.0, **options: Any) -> Solution:
    found: Solution = solve(problem.tabular(), log_ref, beta, **options)
    return found


@evaluate.register
def _(problem: LowRankMDP | LinearMDP, log_policy: Any, log_ref: Any = None, beta: float = 0.0) -> Evaluation:
    found: Evaluation = evaluate(problem.tabular(), log_policy, log_ref, beta)
    return found


@occupancy.register
def _(problem: LowRankMDP | LinearMDP, log_policy: Any) -> np.ndarray:
    return np.asarray(occupancy(problem.tabular(), log_policy))


@rollouts.register
def _(
    problem: LowRankMDP | LinearMDP, log_policy: Any, count: int, rng: Any, horizon: int | None = None
) -> Trajectories:
    found: Trajectories = rollouts(problem.tabular(), log_policy, count, rng, horizon)
    return found
