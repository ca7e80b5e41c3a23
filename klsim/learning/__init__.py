"""Learning dynamics: one softmax-step engine, tree learners, and the token simulator.

A step is an *estimator* of a gradient (population, sampled set, draw counts, score function), a
*baseline* and *scale* for the rewards, and an *optimiser* (SGD, natural gradient, Adam with explicit
epsilon). Published claims flip on these choices, so each is a visible argument.
"""

from klsim.learning.contrastive_ucb import ContrastiveRun, contrastive_ucb
from klsim.learning.expected_gradient import ExpectedGradient, expected_gradient
from klsim.learning.functionals import Explanation, explain, functional_gradient, functional_value
from klsim.learning.prompt_trees import PromptTree, TreeProblem, random_prompts
from klsim.learning.prompts import PromptRun, ascend_prompts, draw_answers, group_gradient, train_prompts
from klsim.learning.rehearsal import divergence_gradient, rehearsal_gradient, rehearsal_weights
from klsim.learning.softmax_step import (
    SGD,
    Adam,
    NaturalGradient,
    centre,
    counts_surrogate_gradient,
    population_gradient,
    score_function_gradient,
    set_surrogate_gradient,
)
from klsim.learning.sqirl import gorp, open_loop_return, policy_returns, sqirl
from klsim.learning.token_simulator import SimulatorConfig, SimulatorRun, SimulatorState, simulate_tokens
from klsim.learning.trees import TreeRun, exact_tree_ascent, train_tree
from klsim.learning.value_regression import chi2_value, expectile_value, gumbel_value, quantile_value

__all__ = [
    "SGD",
    "Adam",
    "ContrastiveRun",
    "ExpectedGradient",
    "Explanation",
    "NaturalGradient",
    "PromptRun",
    "PromptTree",
    "SimulatorConfig",
    "SimulatorRun",
    "SimulatorState",
    "TreeProblem",
    "TreeRun",
    "ascend_prompts",
    "centre",
    "chi2_value",
    "contrastive_ucb",
    "counts_surrogate_gradient",
    "divergence_gradient",
    "draw_answers",
    "exact_tree_ascent",
    "expected_gradient",
    "expectile_value",
    "explain",
    "functional_gradient",
    "functional_value",
    "gorp",
    "group_gradient",
    "gumbel_value",
    "open_loop_return",
    "policy_returns",
    "population_gradient",
    "quantile_value",
    "random_prompts",
    "rehearsal_gradient",
    "rehearsal_weights",
    "score_function_gradient",
    "set_surrogate_gradient",
    "simulate_tokens",
    "sqirl",
    "train_prompts",
    "train_tree",
]
