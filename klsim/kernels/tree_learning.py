"""Sampled policy-gradient training of a tabular token-tree policy, one run a call."""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["train_tree"]


@numba.njit(cache=True)
def _log_softmax_rows(logits, out):
    for s in range(logits.shape[0]):
        top = logits[s].max()
        total = 0.0
        for a in range(logits.shape[1]):
            total += math.exp(logits[s, a] - top)
        shift = top + math.log(total)
        for a in range(logits.shape[1]):
            out[s, a] = logits[s, a] - shift


@numba.njit(cache=True)
def _rollout(log_pi, horizon, uniforms, nodes, actions):
    """Sample a batch: node index (level by level) and action of every step; returns leaf indices."""
    batch, vocab = uniforms.shape[0], log_pi.shape[1]
    leaves = np.empty(batch, np.int64)
    for b in range(batch):
        node, offset, width = 0, 0, 1
        for t in range(horizon):
            u, a = uniforms[b, t], 0
            total = math.exp(log_pi[offset + node, 0])
            while a < vocab - 1 and u >= total:
                a += 1
                total += math.exp(log_pi[offset + node, a])
            nodes[b, t], actions[b, t] = offset + node, a
            node = node * vocab + a
            offset += width
            width *= vocab
        leaves[b] = node
    return leaves


@numba.njit(cache=True)
def _returns(log_pi, log_ref, token_reward, leaf_reward, log_target, beta, credit, nodes, actions, leaves):
    """Credit of every token. ``credit``: 0 own token, 1 to go, 2 whole sequence, 3 target ratio minus 1 (DPG)."""
    batch, horizon = nodes.shape
    out = np.empty((batch, horizon))
    for b in range(batch):
        running = leaf_reward[leaves[b]] if credit != 0 else 0.0
        log_prob = 0.0
        for t in range(horizon - 1, -1, -1):
            s, a = nodes[b, t], actions[b, t]
            x = token_reward[s, a] - beta * (log_pi[s, a] - log_ref[s, a])
            running = x if credit == 0 else running + x
            out[b, t] = running
            log_prob += log_pi[s, a]
        if credit == 2:
            out[b, :] = running
        elif credit == 3:
            out[b, :] = math.exp(log_target[leaves[b]] - log_prob) - 1.0
    return out


@numba.njit(cache=True)
def _subtract_baseline(returns, kind):
    """``kind``: 0 none, 1 batch mean at each depth, 2 leave-one-out mean at each depth."""
    batch, horizon = returns.shape
    if kind == 0:
        return
    for t in range(horizon):
        total = returns[:, t].sum()
        for b in range(batch):
            if kind == 1:
                returns[b, t] -= total / batch
            else:
                returns[b, t] -= (total - returns[b, t]) / (batch - 1)


@numba.njit(cache=True)
def train_tree(
    logits,
    log_ref,
    token_reward,
    leaf_reward,
    log_target,
    beta,
    credit,
    baseline,
    batch,
    horizon,
    steps,
    lr,
    decay,
    rng,
):
    """Run ``steps`` SGD ascent steps on ``logits (nodes, V)`` in place.

    The score-function gradient averages over a fresh batch; the step size is ``lr / (1 + k / decay)`` at
    step k (``decay = inf``: constant). Node arrays list the levels one after another.
    """
    log_pi = np.empty_like(logits)
    nodes = np.empty((batch, horizon), np.int64)
    actions = np.empty((batch, horizon), np.int64)
    for k in range(steps):
        _log_softmax_rows(logits, log_pi)
        leaves = _rollout(log_pi, horizon, rng.random((batch, horizon)), nodes, actions)
        advantage = _returns(
            log_pi, log_ref, token_reward, leaf_reward, log_target, beta, credit, nodes, actions, leaves
        )
        _subtract_baseline(advantage, baseline)
        rate = lr / (1.0 + k / decay) / batch
        for b in range(batch):
            for t in range(horizon):
                s, g = nodes[b, t], rate * advantage[b, t]
                for a in range(logits.shape[1]):
                    logits[s, a] -= g * math.exp(log_pi[s, a])
                logits[s, actions[b, t]] += g
