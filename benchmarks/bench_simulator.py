"""BroRL's token simulator: the kernel against the same steps in torch with its own AdamW."""

from __future__ import annotations

import torch

from klsim.learning import SimulatorConfig, simulate_tokens

CONFIG = SimulatorConfig(tokens=128_000, correct=10_000, rollouts=512, lr=1e-3)
STEPS = 50


def torch_run():
    torch.manual_seed(0)
    z = torch.tensor(CONFIG.initial_logits(), requires_grad=True)
    optimiser = torch.optim.AdamW([z], lr=CONFIG.lr, weight_decay=0.0)
    for _ in range(STEPS):
        pi = torch.softmax(z, -1)
        draws = torch.multinomial(pi.detach(), CONFIG.rollouts, replacement=True)
        reward = torch.where(draws < CONFIG.correct, 1.0, -1.0).double()
        loss = -((reward - reward.mean()) * pi[draws]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return torch.softmax(z.detach(), -1)[: CONFIG.correct].sum().item()


def cases():
    yield (
        "BroRL simulator, 128,000 tokens, N = 512, 50 AdamW steps (difference: of the final correct mass, other draws)",
        lambda: simulate_tokens(CONFIG, STEPS),
        "torch autograd and AdamW",
        torch_run,
        lambda: abs(simulate_tokens(CONFIG, STEPS).correct_mass[-1] - torch_run()),
    )
