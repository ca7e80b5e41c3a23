"""Small models over the characters 0, 1 and =."""

from __future__ import annotations

import torch

from klsim.lm import models

TOKENIZER = models.character_tokenizer("01=")


def model_of(seed, scale=40.0, **changes):
    """A small model whose next-token laws are far from uniform."""
    made = models.tiny_model(TOKENIZER, hidden=16, layers=1, heads=2, seed=seed, **changes)
    with torch.no_grad():
        made.lm_head.weight.mul_(scale)
    return made
