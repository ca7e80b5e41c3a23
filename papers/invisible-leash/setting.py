"""What claims and figures share: the prompt world of C6, its training, and the base that an update makes less certain."""

from __future__ import annotations

import math

import numpy as np

from klsim.learning import SGD, train_prompts
from klsim.problems import PromptBandit

COUNTEREXAMPLE = np.log(np.concatenate([[0.98], np.full(20, 0.001)]))  # wrong with .98, twenty correct answers
PROMPTS, LABELS, FEATURES, STEPS, ROLLOUTS = 40, 30, 8, 300, 8
KS = (1, 8, 64, 1024)
THRESHOLD = -math.log(0.05) / 1024  # the paper's form; `klsim.estimators.support_threshold` is slightly smaller


def prompt_world(rng, *, shared=True):
    """C6's problem: one correct label a prompt, with an advantage in the base logits of U(-3, 4)."""
    correct = rng.integers(0, LABELS, PROMPTS)
    reward = (np.arange(LABELS) == correct[:, None]).astype(float)
    logits = rng.standard_normal((PROMPTS, LABELS)) + reward * rng.uniform(-3, 4, (PROMPTS, 1))
    if not shared:
        return PromptBandit.tabular(logits, reward)
    phi = rng.standard_normal((PROMPTS, FEATURES))
    phi /= np.linalg.norm(phi, axis=1, keepdims=True)
    return PromptBandit(logits, reward, np.concatenate([phi, np.ones((PROMPTS, 1))], axis=1))


def leash_run(rng, *, shared=True, exact=False, record=()):
    """``(problem, run)`` of C6: group-normalised policy gradient, sampled or exact."""
    world = prompt_world(rng, shared=shared)
    optimiser, rollouts = SGD(6 / PROMPTS if shared else 0.2), None if exact else ROLLOUTS
    return world, train_prompts(world, optimiser, steps=STEPS, rollouts=rollouts, record=record, rng=rng)
