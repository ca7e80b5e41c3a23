"""Dual clip, DPPO, SAPO, LUSPO, VESPO, GMPO, BNPO, Clip-Cov and KL-Cov by hand, and at their extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from klsim import objectives as o
from klsim.objectives import TokenBatch
from klsim.objectives.covariance import covariance
from klsim.objectives.trust_region import binary_divergence, gamma_weight, soft_gate

# Two responses to one prompt, of 2 and 1 tokens; pi/old = (2, 1/2) and (1/2); advantages 1 and -1.
PI = np.log([[0.5, 0.4], [0.2, 0.9]])
OLD = np.log([[0.25, 0.8], [0.4, 0.9]])
MASK = np.array([[True, True], [True, False]])


def batch(**changes):
    fields = {"log_probs": PI, "old_log_probs": OLD, "mask": MASK, "advantages": np.array([1.0, -1.0])}
    return TokenBatch(**(fields | changes))


def value(loss, *args, **kwargs):
    return float(loss(batch(), *args, **kwargs)[0])


def test_dual_clip():
    # ratio 4 with A = -1: PPO's term is -4, the ceiling 3 stops it at -3, and its gradient
    exploded = batch(old_log_probs=np.log([[0.25, 0.8], [0.05, 0.9]]))
    assert np.isclose(o.dual_clip(exploded)[0], -(1.2 + 0.5 - 3) / 3)
    assert np.isclose(o.dual_clip(exploded, ceiling=5.0)[0], -(1.2 + 0.5 - 4) / 3)
    assert np.isclose(o.dual_clip(exploded)[1]["dual_clip_fraction"], 1 / 3)
    assert np.isclose(value(o.dual_clip), -(1.2 + 0.5 - 0.8) / 3)
    with pytest.raises(ValueError, match="ceiling"):
        o.dual_clip(batch(), ceiling=1.0)


def test_binary_divergences():
    assert np.allclose(binary_divergence(batch(), "tv")[MASK], [0.25, 0.4, 0.2])
    kl = [q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)) for p, q in ((0.5, 0.25), (0.4, 0.8), (0.2, 0.4))]
    assert np.allclose(binary_divergence(batch(), "kl")[MASK], kl)
    certain = batch(log_probs=np.log([[1.0, 1.0], [0.2, 0.9]]), old_log_probs=np.log([[1.0, 0.5], [1.0, 0.9]]))
    found = binary_divergence(certain, "kl")
    assert found[0].tolist() == [0.0, math.inf]
    assert np.isclose(found[1, 0], math.log(5))


def test_dppo_masks_what_has_moved_too_far_in_the_direction_of_its_advantage():
    logs = np.log([0.5, 0.4, 0.2])
    # the first token rose by .25 with A > 0: shut at .2; the second fell with A > 0, the third by .2 with A < 0: open
    assert np.isclose(value(o.dppo), -(0.5 * logs[1] - 0.5 * logs[2]) / 3)
    assert np.isclose(value(o.dppo, threshold=(0.1, 0.3)), -(2 * logs[0] + 0.5 * logs[1]) / 3)
    assert np.isclose(
        value(o.dppo, threshold=(1.0, 1.0), cap=1.5), -(1.5 * logs[0] + 0.5 * logs[1] - 0.5 * logs[2]) / 3
    )
    kl = binary_divergence(batch(), "kl")
    between = value(o.dppo, divergence="kl", threshold=(float(kl[1, 0]) * 0.9, float(kl[0, 0]) * 1.1))
    assert np.isclose(between, -(2 * logs[0] + 0.5 * logs[1]) / 3)
    assert np.isclose(o.dppo(batch())[1]["masked_fraction"], 1 / 3)


def test_sapo():
    def gate(rho, tau):
        return 4 / tau / (1 + math.exp(-tau * (rho - 1)))

    assert np.isclose(value(o.sapo), -((gate(2, 1) + gate(0.5, 1)) / 2 - gate(0.5, 1.05)) / 2)
    assert np.isclose(value(o.sapo, positive=2.0, negative=2.0), -((gate(2, 2) + gate(0.5, 2)) / 2 - gate(0.5, 2)) / 2)
    slope = torch.ones(2, dtype=torch.float64, requires_grad=True)
    soft_gate(slope, torch.tensor([0.5, 3.0], dtype=torch.float64)).sum().backward()
    assert torch.allclose(slope.grad, torch.ones(2, dtype=torch.float64))


def test_luspo_is_gspo_times_the_length():
    # geometric mean ratios 1 and 1/2
    assert np.isclose(value(o.luspo, clip=(0.1, 0.1)), -(2 * 1 - 1 * 0.9) / 2)
    assert np.isclose(value(o.gspo, clip=(0.1, 0.1)), -(1 - 0.9) / 2)


def test_vespo():
    # sequence ratios 1 (phi = 1) and 1/2
    phi = 0.5**3 * math.exp(2 * 0.5)
    logs = np.log([0.5, 0.4, 0.2])
    assert np.isclose(value(o.vespo), -(logs[0] + logs[1] - phi * logs[2]) / 3)
    sampler = batch(rollout_log_probs=np.log([[0.125, 0.8], [0.4, 0.9]]))  # sequence ratio 2 for the first
    twice = 2**2 * math.exp(-3)
    assert np.isclose(o.vespo(sampler)[0], -(twice * (logs[0] + logs[1]) - phi * logs[2]) / 3)
    grid = np.linspace(0.01, 5, 5000)
    assert np.isclose(grid[np.argmax(gamma_weight(np.log(grid), 2.0 + 0 * grid, 4.0 + 0 * grid))], 0.5, atol=2e-3)
    with pytest.raises(ValueError, match=r"negative\[1\]"):
        o.vespo(batch(), negative=(1.0, 0.0))


def test_gmpo():
    # log ratios log 2 and -log 2, clipped above at .4 for A > 0; -log 2 clipped below at -.4 for A < 0
    first = math.exp((0.4 - math.log(2)) / 2)
    assert np.isclose(value(o.gmpo), -(first - math.exp(-0.4)) / 2)
    assert np.isclose(value(o.gmpo, clip=(9.0, 9.0)), -(1 - 0.5) / 2)
    with pytest.raises(ValueError, match=r"advantages: GMPO needs one a response"):
        o.gmpo(batch(advantages=np.ones((2, 2))))


def test_bnpo_divides_by_the_tokens_of_its_own_batch():
    whole = batch(log_probs=PI, group=[0, 1], advantages=np.array([1.0, -1.0]))
    parts = [
        o.bnpo(TokenBatch(PI[i : i + 1], MASK[i : i + 1], OLD[i : i + 1], advantages=whole.advantages[i : i + 1]))[0]
        for i in (0, 1)
    ]
    assert np.isclose(o.bnpo(whole)[0], -(1.2 + 0.5 - 0.8) / 3)
    assert np.isclose(np.mean(parts), -((1.2 + 0.5) / 2 - 0.8) / 2)  # micro-batches of one: GRPO


def test_beta_scale():
    rewards, group = np.array([1.0, 0, 0, 0]), np.zeros(4, dtype=int)
    flat = o.advantages(rewards, group, scale=o.beta_scale(1.0, 1.0))
    assert np.allclose(flat, rewards - 0.25)
    half = o.advantages(rewards, group, scale=o.beta_scale(1.5, 1.5))
    assert np.allclose(half, o.advantages(rewards, group, scale=o.group_std) * math.pi / 8)
    with pytest.raises(ValueError, match=r"rewards\[0\] = 0.5: must be 0 or 1"):
        o.beta_scale(2.0, 2.0)(np.array([0.5, 0.0]), np.array([0, 0]))
    with pytest.raises(ValueError, match="alpha"):
        o.beta_scale(0.5, 1.0)


def test_sample_standard_deviations():
    rewards, group = np.array([1.0, 0, 0, 3.0, 1.0]), np.array([7, 7, 7, 2, 2])
    assert np.allclose(o.group_sample_std(rewards, group), [np.std([1, 0, 0], ddof=1)] * 3 + [np.sqrt(2)] * 2)
    assert np.allclose(o.batch_sample_std(rewards, group), np.std(rewards, ddof=1))
    with pytest.raises(ValueError, match="alone in its group"):
        o.group_sample_std(rewards[:4], group[:4])
    with pytest.raises(ValueError, match="needs two responses"):
        o.batch_sample_std(rewards[:1], group[:1])
    mixed = TokenBatch(PI, MASK, OLD, rewards=np.array([1.0, 0.0]))
    assert np.isclose(o.grpo(mixed, std="sample")[0], o.grpo(mixed)[0] / math.sqrt(2))


def test_covariance_by_hand():
    logs = np.log([0.5, 0.4, 0.2])
    a = np.array([1, 1, -1])
    expected = (a - a.mean()) * (logs - logs.mean())
    found = covariance(batch(), batch().advantages)
    assert np.allclose(found[MASK], expected)
    assert found[1, 1] == 0


def test_clip_cov():
    # covariances .25, .10, .69; ratios 2, .5, .5: the first is held by PPO's clip (1.2), the third too (A < 0, below .8)
    assert np.isclose(value(o.clip_cov, band=(0.0, 1.0)), -(1.2 + 0 - 0.8) / 3)
    open_clip = (math.inf, math.inf)
    assert np.isclose(value(o.clip_cov, band=(0.0, 1.0), clip=open_clip), -(2 + 0.5 - 0) / 3)
    assert np.isclose(value(o.clip_cov, band=(0.0, 1.0), clip=open_clip, fraction=0.7), -(0.5) / 3)
    both = o.clip_cov(batch(), band=(0.0, 1.0))[1]["clip_fraction"]  # two held, one leaves
    assert np.isclose(both, 1.0)
    assert np.isclose(value(o.clip_cov), value(o.bnpo))  # nothing lies in the band [1, 5]
    drawn = {round(value(o.clip_cov, band=(0.0, 1.0), clip=open_clip, rng=seed), 9) for seed in range(20)}
    assert drawn == {round(-x / 3, 9) for x in (0.0, 1.5, 2.5)}
    with pytest.raises(ValueError, match="fraction"):
        o.clip_cov(batch(), fraction=0.0)
    with pytest.raises(ValueError, match=r"band\[1\]"):
        o.clip_cov(batch(), band=(2.0, 1.0))


def test_kl_cov_penalises_the_largest_covariance_only():
    plain = -(2 + 0.5 - 0.5) / 3
    assert np.isclose(value(o.kl_cov), plain + math.log(2) / 3)
    assert np.isclose(value(o.kl_cov, fraction=1.0, coefficient=2.0), plain + 2 * math.log(2))
    parameter = torch.tensor(PI, requires_grad=True)
    on_policy = TokenBatch(parameter, torch.tensor(MASK), advantages=torch.tensor([1.0, -1.0]).double())
    o.kl_cov(on_policy, fraction=1.0, coefficient=100.0)[0].backward()
    assert np.allclose(parameter.grad.numpy(), [[-1 / 3, -1 / 3], [1 / 3, 0]])


GATED = (o.dual_clip, o.dppo, lambda b: o.dppo(b, divergence="kl"), o.sapo, o.luspo, o.vespo, o.gmpo, o.bnpo)


@pytest.mark.parametrize("gap", [-80.0, -30.0, 30.0, 80.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_apart_policies_give_finite_losses_and_gradients(gap, dtype):
    now, old = (-1.0 + gap, -1.0) if gap < 0 else (-1.0, -1.0 - gap)
    for loss in (*GATED, o.clip_cov, o.kl_cov):
        parameter = torch.full((2, 2), now, dtype=dtype, requires_grad=True)
        made = TokenBatch(
            parameter,
            old_log_probs=torch.full((2, 2), old, dtype=dtype),
            advantages=torch.tensor([1.0, -1.0], dtype=dtype),
        )
        loss(made)[0].backward()
        assert torch.isfinite(parameter.grad).all(), loss
