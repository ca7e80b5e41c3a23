"""Small rollout files for the tests of the command."""

import json

import numpy as np

PROMPTS, EACH = 30, 16


def write(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def base(seed=0, each=EACH):
    """Coins of 30 prompts, easier and easier."""
    rng = np.random.default_rng(seed)
    return [
        {"prompt": f"q{i}", "reward": float(rng.random() < 0.3 + 0.01 * i)} for i in range(PROMPTS) for _ in range(each)
    ]


def policy(seed=1, each=8):
    """Samples of a policy half a nat from the reference, with log-probabilities of whole responses."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(PROMPTS):
        for _ in range(each):
            ratio = float(rng.normal(0.125, 0.5))  # mean s^2/2: exp(-x) has the mean 1
            logp = -20 - float(rng.exponential(20))
            rows.append(
                {
                    "prompt": f"q{i}",
                    "reward": float(rng.random() < 0.5 + 0.01 * i),
                    "policy_logp": logp,
                    "ref_logp": logp - ratio,
                }
            )
    return rows
