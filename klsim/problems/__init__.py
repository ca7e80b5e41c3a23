"""Problems: small, frozen, validated objects that say what is optimised over, not how."""

from klsim.problems.bandit import Bandit
from klsim.problems.prompt_bandit import PromptBandit
from klsim.problems.tabular_mdp import DiscountedMDP, TabularMDP
from klsim.problems.token_tree import TokenTree

__all__ = ["Bandit", "DiscountedMDP", "PromptBandit", "TabularMDP", "TokenTree"]
