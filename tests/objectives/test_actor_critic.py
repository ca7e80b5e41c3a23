"""GAE, the clipped value loss, entropy terms and PPO by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from klsim import objectives as o
from klsim.objectives import TokenBatch

LOG = np.log([[0.5, 0.4, 0.3], [0.2, 0.9, 0.9]])
MASK = np.array([[True, True, True], [True, False, False]])
VALUES = np.array([[0.5, 0.25, 1.0], [0.75, 8.0, 9.0]])
VOCAB = np.log(np.array([[[0.5, 0.5], [0.4, 0.6], [0.3, 0.7]], [[0.2, 0.8], [0.9, 0.1], [0.9, 0.1]]]))


def batch(**changes):
    fields = {"log_probs": LOG, "mask": MASK, "values": VALUES, "rewards": np.array([1.0, 0.0])}
    return TokenBatch(**(fields | changes))


def test_gae_by_hand():
    deltas = [0.25 - 0.5, 1.0 - 0.25, 1.0 - 1.0]
    third, second = deltas[2], deltas[1] + 0.5 * deltas[2]
    assert np.allclose(o.gae(batch(), lam=0.5), [[deltas[0] + 0.5 * second, second, third], [-0.75, 0, 0]])
    assert np.allclose(o.gae(batch(), lam=1.0)[0], 1 - VALUES[0])
    assert np.allclose(o.gae(batch(), lam=0.0)[0], deltas)
    discounted = o.gae(batch(), lam=1.0, discount=0.5)
    assert np.allclose(discounted[0], [0.25 - 0.5, 0.5 - 0.25, 1 - 1])
    per_token = batch(rewards=np.array([[0.0, 2.0, 1.0], [3.0, 5.0, 5.0]]))
    assert np.allclose(o.gae(per_token, lam=1.0), [[2.5, 2.75, 0], [2.25, 0, 0]])
    with pytest.raises(ValueError, match="values: this loss needs it"):
        o.gae(batch(values=None))
    with pytest.raises(ValueError, match="lam"):
        o.gae(batch(), lam=1.5)


def test_gae_skips_holes_and_left_padding():
    spread = np.zeros((2, 6))
    places = np.array([1, 3, 4])
    mask = np.zeros((2, 6), dtype=bool)
    mask[:, places] = MASK
    values = np.full((2, 6), 7.0)
    values[:, places] = VALUES
    spread[:, places] = LOG
    found = o.gae(TokenBatch(spread, mask=mask, values=values, rewards=[1.0, 0.0]), lam=0.5)
    assert np.allclose(found[:, places], o.gae(batch(), lam=0.5))
    assert np.all(found[~mask] == 0)


def test_value_loss():
    old = batch(old_values=np.array([[0.5, 0.5, 0.5], [0.75, 0, 0]]))
    returns = np.array([[1.0, 1.0, 0.0], [0.0, 0, 0]])
    # V - V_old: 0, -.25, .5, 0; clipped at .2: .5, .3, .7, .75
    plain = np.array([0.25, 0.75**2, 1.0, 0.75**2])
    clipped = np.array([0.25, 0.7**2, 0.7**2, 0.75**2])
    assert np.isclose(o.value_loss(old, returns)[0], np.maximum(plain, clipped).mean() / 2)
    assert np.isclose(o.value_loss(old, returns, clip=math.inf)[0], plain.mean() / 2)
    assert np.isclose(
        o.value_loss(old, 1 + 0 * returns)[1]["value_clip_fraction"], 1 / 4
    )  # the third, moved past 1 - .3


def test_ppo_is_the_sum_of_its_parts():
    made = batch(vocab_log_probs=VOCAB)
    raw = o.gae(made, lam=0.95)
    white = o.whitened(raw, made)
    policy = o.surrogate(made, white, clip=(0.2, 0.2), aggregate=o.token_mean)[0]
    value = o.value_loss(made, raw + VALUES)[0]
    entropy = -(np.exp(VOCAB) * VOCAB).sum(-1)[MASK].mean()
    assert np.isclose(o.ppo(made)[0], policy + 0.5 * value)
    assert np.isclose(o.ppo(made, entropy_coefficient=0.1)[0], policy + 0.5 * value - 0.1 * entropy)
    assert np.isclose(o.ppo(made, whiten="none", value_coefficient=0.0)[0], -raw[MASK].mean())
    given = o.ppo(batch(advantages=np.array([1.0, -1.0])), value_coefficient=0.0)[0]
    assert np.isclose(given, -(3 - 1) / 4)
    moments = white[MASK]
    assert np.isclose(moments.mean(), 0)
    assert np.isclose(moments.std(ddof=1), 1)


def test_the_value_head_and_the_policy_have_separate_gradients():
    log, values = torch.tensor(LOG, requires_grad=True), torch.tensor(VALUES, requires_grad=True)

    def loss(coefficient):
        made = TokenBatch(log, torch.tensor(MASK), values=values, rewards=torch.tensor([1.0, 0.0]).double())
        return o.ppo(made, value_coefficient=coefficient)[0]

    loss(0.0).backward()
    assert values.grad is None or not values.grad.any()
    assert log.grad.any()
    assert log.grad[~MASK].abs().max() == 0
    log.grad = None
    (loss(0.5) - loss(0.0)).backward()
    assert values.grad.any()
    assert values.grad[~MASK].abs().max() == 0
    assert log.grad.abs().max() < 1e-15


def test_entropy_bonus():
    made = batch(vocab_log_probs=VOCAB)
    entropies = -(np.exp(VOCAB) * VOCAB).sum(-1)
    assert np.isclose(o.entropy_bonus(made, coefficient=0.5)[0], -0.5 * entropies[MASK].mean())
    per_response = (entropies[0].sum() + entropies[1, 0]) / 2
    assert np.isclose(o.entropy_bonus(made, coefficient=1.0, aggregate=o.sequence_sum)[0], -per_response)


def test_adaptive_entropy():
    state = o.AdaptiveEntropy(coefficient=0.01, target=0.5, delta=0.02)
    assert state.applied == 0.0  # nothing seen yet
    low = state.update(0.3)
    assert np.isclose(low.coefficient, 0.03)
    assert low.applied == low.coefficient
    high = low.update(0.9)
    assert np.isclose(high.coefficient, 0.01)
    assert high.applied == 0.0
    assert high.update(0.9).coefficient == 0.0  # not below its lower bound
    top = o.AdaptiveEntropy(coefficient=0.99, target=0.5, delta=0.02).update(0.5)
    assert top.coefficient == 1.0
    with pytest.raises(ValueError, match="coefficient"):
        o.AdaptiveEntropy(coefficient=2.0)
    with pytest.raises(ValueError, match="entropy"):
        state.update(-1.0)
