"""What alignment could at best achieve from a base model: the KL–reward frontier of one's own rollouts."""

from klsim.frontier.estimate import estimate
from klsim.frontier.policy import PolicySamples
from klsim.frontier.plot import plot
from klsim.frontier.result import BestOfN, Estimate, Frontier, FrontierPoint, PolicyPoint, as_json
from klsim.frontier.rollouts import Rollouts, read_rollouts

__all__ = [
    "BestOfN",
    "Estimate",
    "Frontier",
    "FrontierPoint",
    "PolicyPoint",
    "PolicySamples",
    "Rollouts",
    "as_json",
    "estimate",
    "plot",
    "read_rollouts",
]
