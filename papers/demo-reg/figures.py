"""Figures of demo-reg."""

import numpy as np

from klsim.distributions import expectation, log_normalize, tilt
from klsim.divergences import kl
from klsim.report.drawings import Lines
from klsim.report.figures import Figures, over_seeds

figures = Figures()


@figures.figure(
    "reward-against-beta",
    title="Reward of the tilt",
    caption="Mean over 20 random problems of 8 actions, 95 % intervals.",
    draw=Lines("beta", "reward", by="curve", xlabel="beta", ylabel="expected reward", xscale="log"),
)
def reward_against_beta(run):
    betas = np.geomspace(0.05, 20, 12)
    rng = run.rng("problems")
    log_ref, reward = log_normalize(rng.standard_normal((20, 8))), rng.standard_normal((20, 8))
    tilts = np.stack([tilt(log_ref, reward, b) for b in betas], axis=1)
    rewards = np.stack([expectation(tilts[:, i], reward) for i in range(len(betas))], axis=1)
    costs = np.stack([kl(tilts[:, i], log_ref) for i in range(len(betas))], axis=1)
    yield {"curve": "reward", "beta": betas, **over_seeds(reward=rewards)}
    yield {"curve": "reward - beta KL", "beta": betas, **over_seeds(reward=rewards - betas * costs)}
