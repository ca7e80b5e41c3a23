"""What alignment could at best achieve from a base model: the KL–reward frontier of one's own rollouts.

`estimate` gives the frontier, best-of-N and trained policies; `gold` asks whether the reward is hacked, `against`
whether a second model is better than sampling more from the first, `prompts` which prompts there are, `forecast`
where RL would end. All return frozen results with ``table()``, ``plot()`` and a picture in a notebook;
`read_rollouts` reads files.
"""

from klsim.frontier.against import Comparison, PassAt, against
from klsim.frontier.estimate import estimate
from klsim.frontier.gold import Fit, Gold, GoldPoint, Turn, gold
from klsim.frontier.plot import plot
from klsim.frontier.policy import PolicySamples
from klsim.frontier.prompts import Difficulty, GroupShare, Prompts, prompts
from klsim.frontier.result import BestOfN, Estimate, Frontier, FrontierPoint, PolicyPoint, Result, Shown, as_json
from klsim.frontier.rollouts import Rollouts, read_rollouts
from klsim.frontier.tilt import Forecast, Outcome, TiltPoint, forecast

__all__ = [
    "BestOfN",
    "Comparison",
    "Difficulty",
    "Estimate",
    "Fit",
    "Forecast",
    "Frontier",
    "FrontierPoint",
    "Gold",
    "GoldPoint",
    "GroupShare",
    "Outcome",
    "PassAt",
    "PolicyPoint",
    "PolicySamples",
    "Prompts",
    "Result",
    "Rollouts",
    "Shown",
    "TiltPoint",
    "Turn",
    "against",
    "as_json",
    "estimate",
    "forecast",
    "gold",
    "plot",
    "prompts",
    "read_rollouts",
]
