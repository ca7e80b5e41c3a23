"""Problems: small, frozen, validated objects that say what is optimised over, not how."""

from klsim.problems.bandit import Bandit
from klsim.problems.latent_mdp import Histories, LatentMDP, histories
from klsim.problems.linear_mdp import LinearMDP
from klsim.problems.low_rank_mdp import LowRankMDP, block_mdp
from klsim.problems.markov_games import ZeroSumMarkovGame
from klsim.problems.masked_diffusion import MaskedDiffusionLM
from klsim.problems.pomdp import POMDP
from klsim.problems.preference_bandit import PreferenceBandit
from klsim.problems.prompt_bandit import PromptBandit
from klsim.problems.restless_bandit import CoupledRestlessBandit
from klsim.problems.tabular_mdp import AverageMDP, DiscountedMDP, TabularMDP, sticky_actions
from klsim.problems.token_tree import TokenTree
from klsim.problems.transitions import Transitions, sample_transitions

__all__ = [
    "POMDP",
    "AverageMDP",
    "Bandit",
    "CoupledRestlessBandit",
    "DiscountedMDP",
    "Histories",
    "LatentMDP",
    "LinearMDP",
    "LowRankMDP",
    "MaskedDiffusionLM",
    "PreferenceBandit",
    "PromptBandit",
    "TabularMDP",
    "TokenTree",
    "Transitions",
    "ZeroSumMarkovGame",
    "block_mdp",
    "histories",
    "sample_transitions",
    "sticky_actions",
]
