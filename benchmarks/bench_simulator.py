"""BroRL's token simulator: the kernel against the same steps in torch with its own AdamW."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.table import Row
from klsim.learning import SimulatorConfig, simulate_tokens

STEPS = 50


def setup(tokens):
    return SimulatorConfig(tokens=tokens, correct=tokens * 10 // 128, rollouts=512, lr=1e-3)


def klsim(config):
    return simulate_tokens(config, STEPS)


def with_torch(config, draws=None):
    """The same steps; ``draws`` in place of torch's own."""
    torch.manual_seed(0)
    z = torch.tensor(config.initial_logits(), requires_grad=True)
    optimiser = torch.optim.AdamW([z], lr=config.lr, weight_decay=0.0)
    for step in range(STEPS):
        pi = torch.softmax(z, -1)
        if draws is None:
            drawn = torch.multinomial(pi.detach(), config.rollouts, replacement=True)
        else:
            cumulative = torch.cumsum(pi.detach(), -1)
            drawn = torch.searchsorted(cumulative, draws[step] * cumulative[-1], right=True)
        reward = torch.where(drawn < config.correct, 1.0, -1.0).double()
        loss = -((reward - reward.mean()) * pi[drawn]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return torch.softmax(z.detach(), -1)[: config.correct].sum().item()


def difference(config):
    """Of the final correct mass, torch with the uniforms of klsim."""
    rng = np.random.default_rng([config.seed, config.rollouts, 0])
    draws = [torch.tensor(rng.random(config.rollouts)) for _ in range(STEPS)]
    return abs(float(klsim(config).correct_mass[-1]) - with_torch(config, draws))


ROWS = (
    Row(
        "BroRL simulator, 128,000 tokens, 512 draws, 50 AdamW steps",
        "torch autograd and AdamW",
        setup,
        128_000,
        (1_280, 12_800, 128_000, 1_280_000),
        klsim,
        with_torch,
        difference,
        1e-9,
        target=4.0,
        unit="tokens",
    ),
)
