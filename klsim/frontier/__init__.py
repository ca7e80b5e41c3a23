"""What alignment could at best achieve from a base model: the KL–reward frontier of one's own rollouts."""

from klsim.frontier.estimate import BestOfN, Estimate, Frontier, FrontierPoint, PolicyPoint, as_json, estimate
from klsim.frontier.plot import plot
from klsim.frontier.rollouts import Rollouts, read_rollouts

__all__ = [
    "BestOfN",
    "Estimate",
    "Frontier",
    "FrontierPoint",
    "PolicyPoint",
    "Rollouts",
    "as_json",
    "estimate",
    "plot",
    "read_rollouts",
]
