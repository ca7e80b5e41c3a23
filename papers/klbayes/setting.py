r"""What the claims and figures of klbayes share: the token tree T, its learners, and fits in log-linear classes.

T has 3 tokens and 3 steps (27 sequences, 13 prefixes); 9 sequences are correct. A table ``(13, 3)`` holds a row of logits
a prefix: 0 the empty one, ``1 + a`` after token a, ``4 + 3a + b`` after (a, b).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from klsim.distributions import log_normalize, tilt
from klsim.learning import train_tree
from klsim.problems.token_tree import sequence_log_probs, tokens

V, H = 3, 3
TOKENS = tokens(V, H)
#: the prefix before every token of every sequence
NODES = np.stack([np.zeros(27, dtype=int), 1 + TOKENS[:, 0], 4 + 3 * TOKENS[:, 0] + TOKENS[:, 1]], axis=1)
_S, _V = np.arange(13)[:, None], np.arange(3)[None, :]
THETA = np.sin(1 + 3 * _S + _V)


def rows_of(table):
    """A ``(13, 3)`` table from one or from a flat vector; several vectors ``(..., 39)`` keep their leading axes."""
    return np.reshape(table, (13, 3) if np.shape(table)[-1] == 3 else (*np.shape(table)[:-1], 13, 3))


def levels_of(table):
    """Rows of a table, see `rows_of`, as the levels of a tree."""
    return tuple(np.split(rows_of(table), (1, 4), axis=-2))


THETA_REF = levels_of(0.5 * np.cos(2 + 5 * _S + 2 * _V))
REF = tuple(log_normalize(level) for level in THETA_REF)
LOG_PRIOR = sequence_log_probs(REF)
REWARD = (TOKENS.sum(axis=1) % 3 == 0).astype(float)


def law_of(table):
    """Log-probabilities of the 27 sequences for a table of logits."""
    return sequence_log_probs(tuple(log_normalize(level) for level in levels_of(table)))


def token_scores(table):
    """``d log pi(y_t | y_<t) / d logits`` of every token of every sequence, ``(27, 3, 39)``."""
    pi, out = np.exp(log_normalize(np.reshape(table, (13, 3)))), np.zeros((27, 3, 13, 3))
    rows, steps = np.arange(27)[:, None], np.arange(3)[None, :]
    out[rows, steps, NODES] = -pi[NODES]
    out[rows, steps, NODES, TOKENS] += 1
    return out.reshape(27, 3, 39)


def token_log_ratios(table):
    """``log pi/pi_ref`` of every token of every sequence, ``(..., 27, 3)``."""
    return (log_normalize(rows_of(table)) - np.concatenate(REF))[..., NODES, TOKENS]


def gradient(f, table, h=1e-5):
    """Central differences over the logits, of an ``f`` that takes many tables: truncation h², rounding eps / h."""
    steps = h * np.eye(np.size(table))
    return (f(np.ravel(table) + steps) - f(np.ravel(table) - steps)) / (2 * h)


def reinforce(rng, beta, reward=REWARD, **options):
    """Final law over sequences of the run of C4: batch 32, learning rate 1, 1500 steps from the prior."""
    settings = {"credit": "sequence", "batch": 32, "lr": 1.0, "steps": 1500} | options
    return sequence_log_probs(train_tree(THETA_REF, REF, reward=reward, beta=beta, rng=rng, **settings).final)


def flow(log_p, reward, time):
    """Logits at ``time`` of the exact softmax policy gradient flow ``d theta = pi (r - E r)`` from ``log_p``."""

    def speed(_, theta):
        pi = np.exp(log_normalize(theta))
        return pi * (reward - pi @ reward)

    return solve_ivp(speed, (0.0, time), log_p, method="LSODA", rtol=1e-9, atol=1e-12).y[:, -1]


# misspecified inference ------------------------------------------------------------------------------
#: logits of 00, 01, 10, 11: all laws, and those of two independent bits
CLASSES = {"all": np.eye(4), "products": np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])}
TWO_MODES = tilt(np.full(4, -math.log(4)), np.array([1.0, 0.0, 0.0, 0.9]), 0.15)


def fit(log_target, direction, features, starts=(0.0,)):
    """The best law with logits ``features @ z`` by ``KL(pi ‖ target)`` (reverse) or ``KL(target ‖ pi)`` (forward)."""

    def loss(z):
        log_p = log_normalize(features @ z)
        p, t, gap = np.exp(log_p), np.exp(log_target), log_p - log_target
        value, slope = (p @ gap, p * (gap - p @ gap)) if direction == "reverse" else (-(t @ gap), p - t)
        return value, slope @ features

    zero = np.zeros(features.shape[1])
    runs = [minimize(loss, zero + start, jac=True, method="BFGS", options={"gtol": 1e-10}) for start in starts]
    return log_normalize(features @ min(runs, key=lambda run: run.fun).x)
