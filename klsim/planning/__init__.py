r"""Regularised dynamic programming: optima, evaluation, occupancy and rollouts of sequential problems.

The soft Bellman operator of ``max E[sum r] - beta sum KL(pi(.|s)‖ref(.|s))`` is

.. math:: (TV)(s) = \beta \log \sum_a ref(a|s)\, e^{Q(s,a)/\beta}, \quad
          Q(s,a) = r(s,a) + \gamma \sum_{s'} P(s'|s,a) V(s').

``beta = 0`` is the unregularised problem. `solve`, `evaluate`, `occupancy` and `rollouts` dispatch on the
problem's type; a new problem registers its own implementation.
"""

from klsim.planning.effective_horizon import EffectiveHorizon, effective_horizon, qvi_iterates
from klsim.planning.evaluation import Evaluation, Trajectories, evaluate, occupancy, rollouts
from klsim.planning.histories import BeliefTree, ObservedTrajectories, belief_tree, history_levels
from klsim.planning.robust import (
    PessimisticValues,
    RobustValues,
    pessimistic_values,
    robust_values,
    worst_case_regression,
)
from klsim.planning.solve import AverageSolution, Solution, backup, solve
from klsim.planning.visitation import (
    VisitationOptimum,
    flow_gap,
    match_visitation,
    policy_dual,
    visitation_optimum,
    visitation_value,
)

__all__ = [
    "AverageSolution",
    "BeliefTree",
    "EffectiveHorizon",
    "Evaluation",
    "ObservedTrajectories",
    "PessimisticValues",
    "RobustValues",
    "Solution",
    "Trajectories",
    "VisitationOptimum",
    "backup",
    "belief_tree",
    "effective_horizon",
    "evaluate",
    "flow_gap",
    "history_levels",
    "match_visitation",
    "occupancy",
    "pessimistic_values",
    "policy_dual",
    "qvi_iterates",
    "robust_values",
    "rollouts",
    "solve",
    "visitation_optimum",
    "visitation_value",
    "worst_case_regression",
]
