r"""Regularised dynamic programming: optima, evaluation, occupancy and rollouts of sequential problems.

The soft Bellman operator of ``max E[sum r] - beta sum KL(pi(.|s)‖ref(.|s))`` is

.. math:: (TV)(s) = \beta \log \sum_a ref(a|s)\, e^{Q(s,a)/\beta}, \quad
          Q(s,a) = r(s,a) + \gamma \sum_{s'} P(s'|s,a) V(s').

``beta = 0`` is the unregularised problem. `solve`, `evaluate`, `occupancy` and `rollouts` dispatch on the
problem's type; a new problem registers its own implementation.
"""

from klsim.planning import low_rank, restless  # noqa: F401 (they register themselves)
from klsim.planning.effective_horizon import EffectiveHorizon, effective_horizon, qvi_iterates
from klsim.planning.evaluation import Evaluation, Trajectories, evaluate, occupancy, rollouts
from klsim.planning.histories import BeliefTree, ObservedTrajectories, belief_tree, history_levels
from klsim.planning.latent_mdp import VarianceParts, alpha_vectors, return_variance
from klsim.planning.markov_games import DualityGap, OptimisticGame, duality_gap, optimistic_game
from klsim.planning.matrix_games import cce_regret, coarse_correlated, nash
from klsim.planning.optimism import (
    elliptical_norm,
    feature_covariance,
    model_error_bonus,
    one_step_back,
    optimistic_values,
    simulation_difference,
)
from klsim.planning.robust import (
    PessimisticValues,
    RobustValues,
    pessimistic_values,
    robust_values,
    worst_case_regression,
)
from klsim.planning.solve import AverageSolution, Solution, backup, solve
from klsim.planning.token_regularized import TokenOptimum, regularized_tokens
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
    "DualityGap",
    "EffectiveHorizon",
    "Evaluation",
    "ObservedTrajectories",
    "OptimisticGame",
    "PessimisticValues",
    "RobustValues",
    "Solution",
    "TokenOptimum",
    "Trajectories",
    "VarianceParts",
    "VisitationOptimum",
    "alpha_vectors",
    "backup",
    "belief_tree",
    "cce_regret",
    "coarse_correlated",
    "duality_gap",
    "effective_horizon",
    "elliptical_norm",
    "evaluate",
    "feature_covariance",
    "flow_gap",
    "history_levels",
    "match_visitation",
    "model_error_bonus",
    "nash",
    "occupancy",
    "one_step_back",
    "optimistic_game",
    "optimistic_values",
    "pessimistic_values",
    "policy_dual",
    "qvi_iterates",
    "regularized_tokens",
    "return_variance",
    "robust_values",
    "rollouts",
    "simulation_difference",
    "solve",
    "visitation_optimum",
    "visitation_value",
    "worst_case_regression",
]
