"""Every loss against numbers worked by hand, and NumPy against torch."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from klsim import objectives as o
from klsim.distributions import log_normalize
from klsim.objectives import TokenBatch
from klsim.objectives.policy_gradient import geometric_mean_ratio, sequence_ratio, token_ratio
from klsim.objectives.registry import LOSSES, OBJECTIVES
from klsim.objectives.stabilizers import lp_reg_gate

# Two responses to one prompt, of 2 and 1 tokens; pi/old = (2, 1/2) and (1/2); rewards 1 and 0.
PI = np.log([[0.5, 0.4], [0.2, 0.9]])
OLD = np.log([[0.25, 0.8], [0.4, 0.9]])
REF = np.log([[0.25, 0.1], [0.4, 0.9]])
TEACHER = np.log([[0.5, 0.8], [0.1, 0.9]])
MASK = np.array([[True, True], [True, False]])


def batch(**changes):
    fields = {
        "log_probs": PI, "old_log_probs": OLD, "ref_log_probs": REF, "teacher_log_probs": TEACHER, "mask": MASK,
        "rewards": np.array([1.0, 0.0]),
    }  # fmt: skip
    return TokenBatch(**(fields | changes))


def value(loss, *args, **kwargs):
    return float(loss(batch(), *args, **kwargs)[0])


def test_ratios():
    assert np.allclose(np.exp(token_ratio(batch()))[MASK], [2, 0.5, 0.5])
    assert np.allclose(np.exp(sequence_ratio(batch())), [[1], [0.5]])
    assert np.allclose(np.exp(geometric_mean_ratio(batch())), [[1], [0.5]])


def test_policy_gradient():
    assert np.isclose(value(o.reinforce), -0.5)  # rho = 1, r = 1
    assert np.isclose(value(o.rloo), -(1 * 1 - 1 * 0.5) / 2)  # advantages 1 and -1
    # GRPO: advantages 1, -1; tokens min(2, 1.2) and 0.5; max(0.5, 0.8) times -1
    assert np.isclose(value(o.grpo), -((1.2 + 0.5) / 2 - 0.8) / 2)
    assert np.isclose(value(o.grpo, clip=(math.inf, math.inf)), -((2 + 0.5) / 2 - 0.5) / 2)
    assert np.isclose(value(o.dr_grpo), -(0.5 * (1.2 + 0.5) - 0.5 * 0.8) / 2 / 2)
    assert np.isclose(value(o.dr_grpo, max_length=4), -(0.5 * (1.2 + 0.5) - 0.5 * 0.8) / 2 / 4)
    assert np.isclose(value(o.dapo), -(1.28 + 0.5 - 0.8) / 3)
    assert np.isclose(value(o.gspo, clip=(0.1, 0.1)), -(1 - 0.9) / 2)
    assert np.isclose(value(o.reinforce_pp), -(1.2 + 0.5 - 0.8) / 3)
    assert np.isclose(value(o.reinforce_pp, group_baseline=True), -(1.2 + 0.5 - 0.8) / 3)
    assert np.isclose(value(o.lite_ppo), -(1.2 + 0.5 - 0.8) / 3)
    expected = -(1.28 * math.log(0.5) + 0.5 * math.log(0.4) - 0.5 * math.log(0.2)) / 3
    assert np.isclose(value(o.cispo), expected)


def test_metrics():
    _, metrics = o.grpo(batch())
    assert np.isclose(metrics["clip_fraction"], 2 / 3)
    assert np.isclose(metrics["mean_ratio"], 1)
    assert np.isclose(metrics["old_kl"], (2 - 1 - math.log(2) + 2 * (0.5 - 1 - math.log(0.5))) / 3)


def test_dynamic_sampling_drops_groups_without_contrast():
    twice = TokenBatch(
        np.concatenate([PI, PI]), mask=np.concatenate([MASK, MASK]), old_log_probs=np.concatenate([OLD, OLD]),
        rewards=np.array([1.0, 0.0, 1.0, 1.0]), group=[0, 0, 1, 1],
    )  # fmt: skip
    loss, metrics = o.dapo(twice)
    assert np.isclose(loss, value(o.dapo))
    assert metrics["kept_fraction"] == 0.5
    assert np.isclose(o.dapo(twice, dynamic_sampling=False)[0], value(o.dapo) / 2)


def test_overlong():
    assert np.allclose(o.overlong_penalty([5, 8, 9, 10, 12], 10, 2), [0, 0, -0.5, -1, -1])
    with pytest.raises(ValueError, match="buffer"):
        o.overlong_penalty([1.0], 2, 3)
    # the second response reaches neither cap; the first loses 1, so that both have reward 0
    assert value(o.dapo, lengths_cap=(2, 1)) == 0.0
    # a buffer of the whole length is the largest: penalties 1 and 1/2 leave rewards 0 and -1/2, the same contrast
    assert np.isclose(value(o.dapo, lengths_cap=(2, 2)), value(o.dapo))
    for bad in ((2, 3), (2,), (2, 1, 1)):
        with pytest.raises(ValueError, match=r"lengths_cap: must be \(max_length, buffer\) with buffer <= max_length"):
            o.dapo(batch(advantages=np.ones(2)), lengths_cap=bad)


def test_kl_terms():
    gaps = np.log([2, 4, 0.5])
    k2, k3 = gaps**2 / 2, 1 / np.exp(gaps) - 1 + gaps
    for estimator, k in (("k1", gaps), ("k2", k2), ("k3", k3)):
        assert np.isclose(value(o.kl_in_loss, estimator=estimator, aggregate=o.sequence_sum), (k[0] + k[1] + k[2]) / 2)
    rho = np.array([2, 0.5, 0.5])
    weighted = (rho * k3).sum() / 2
    assert np.isclose(value(o.kl_in_loss, importance=True, aggregate=o.sequence_sum), weighted)
    shaped = o.kl_in_reward(batch(), beta=0.1)
    assert np.allclose(shaped.rewards, [1 - 0.1 * math.log(8), 0.1 * math.log(2)])
    per_token = o.kl_in_reward(batch(rewards=np.array([[0.0, 1.0], [0.0, 0.0]])), beta=0.1)
    assert np.allclose(per_token.rewards[0], [-0.1 * math.log(2), 1 - 0.1 * math.log(4)])
    # dph-rl: u = pi/ref = 2, 4, 1/2
    assert np.isclose(value(o.dph_rl, generator="forward_kl"), ((2 - 1 - math.log(2)) + (4 - 1 - math.log(4))
                      + (0.5 - 1 + math.log(2))) / 2)  # fmt: skip
    weights = np.minimum([0.5, 0.25, 2], 1.5) - 1
    logs = np.log([0.5, 0.4, 0.2])
    assert np.isclose(value(o.rapo, cap=1.5), -(weights * logs).sum() / 2)
    u = np.array([0.5, 0.25, 2])
    assert np.isclose(value(o.rapo, form="backprop"), (u * np.log(u) - u + 1).sum() / 2)
    assert np.isclose(o.rapo(batch())[1]["kl"], -np.log(u).sum() / 2)


def test_references():
    q = np.log([0.9, 0.1])
    assert np.allclose(np.exp(o.temper(q, 0.5)), [0.75, 0.25])
    assert np.allclose(np.exp(o.temper(q, 0.0)), 0.5)
    assert np.exp(o.temper(np.array([0.0, -np.inf]), 0.0)).tolist() == [1.0, 0.0]
    soup = o.soup([np.log([0.7, 0.2, 0.1]), np.log([0.1, 0.2, 0.7])], [0.5, 0.5])
    assert np.allclose(np.exp(soup), [0.363, 0.274, 0.363], atol=5e-4)
    with pytest.raises(ValueError, match="weights"):
        o.soup([q], [0.5, 0.5])
    assert np.allclose(o.sampled(np.log([[0.9, 0.1], [0.3, 0.7]]), np.array([1, 0])), np.log([0.1, 0.3]))
    with pytest.raises(ValueError, match="tokens"):
        o.sampled(q, np.array([1, 0]))
    for outside in (-1, 2):
        with pytest.raises(ValueError, match=rf"tokens\[1\] = {outside}: must be 0 … 1"):
            o.sampled(np.log(np.full((2, 2), 0.5)), np.array([1, outside]))


VOCAB = np.log([[[0.5, 0.5], [0.8, 0.2]], [[0.4, 0.6], [0.9, 0.1]]])
OTHER = np.log([[[0.25, 0.75], [0.5, 0.5]], [[0.4, 0.6], [0.5, 0.5]]])


def vocab(**changes):
    return batch(vocab_log_probs=VOCAB, ref_vocab_log_probs=OTHER, teacher_vocab_log_probs=OTHER, **changes)


def kl(p, q):
    return float(np.sum(p * np.log(p / q)))


def test_vocabulary_losses():
    p, q = np.exp(VOCAB), np.exp(OTHER)
    first, second = kl(p[0, 0], q[0, 0]), kl(p[0, 1], q[0, 1])
    for loss in (o.divergence(vocab())[0], o.gkd(vocab(), mix=1.0, aggregate=o.sequence_mean)[0]):
        assert np.isclose(loss, (first + second) / 2 / 2)
    forward = (kl(q[0, 0], p[0, 0]) + kl(q[0, 1], p[0, 1])) / 3
    assert np.isclose(o.gkd(vocab(), mix=0.0)[0], forward)
    middle = 0.25 * q + 0.75 * p
    jsd = sum(0.25 * kl(q[0, t], middle[0, t]) + 0.75 * kl(p[0, t], middle[0, t]) for t in range(2)) / 3
    assert np.isclose(o.gkd(vocab(), mix=0.25)[0], jsd)
    assert np.isclose(o.g_opd_full(vocab(), lam=1.0)[0], (first + second) / 3)
    assert np.isclose(o.hard_cross_entropy(vocab())[0], -(np.log(0.5) + np.log(0.8) + np.log(0.6)) / 2)
    hinge = 0.1 * 2 * max((first + second) / 3 - 0.05, 0) ** 2
    assert np.isclose(o.hinge_kl(vocab(), threshold=0.05, gate=2.0)[0], hinge)
    assert np.isclose(o.hinge_kl(vocab(), threshold=0.05, gate=2.0, penalty="detached")[0], hinge)


def test_teacher_without_support_is_an_error():
    with np.errstate(divide="ignore"):
        narrow = np.log(np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]))
    with pytest.raises(
        ValueError, match=r"teacher_vocab_log_probs\[0, 0, 1\].*mass where the teacher or reference has none"
    ):
        o.g_opd_full(vocab().replace(teacher_vocab_log_probs=narrow))


def test_distillation():
    rewards = np.log([0.5 / 0.5, 0.8 / 0.4, 0.1 / 0.2])  # log T/pi
    rho = np.array([1.2, 0.5, 0.5])  # clipped at 1.2; 0.5 is below 0.8, kept where the reward is positive
    opd = -(rho[0] * rewards[0] + rho[1] * rewards[1] + 0.8 * rewards[2]) / 3
    assert np.isclose(value(o.opd), opd)
    on_policy = batch(old_log_probs=None)
    assert np.isclose(o.opd(on_policy)[0], -rewards.sum() / 3)
    assert np.isclose(o.vla_opd(on_policy)[0], -rewards.sum() / 2)
    lam = 1.5
    dense = lam * np.log([2, 8, 0.25]) - np.log([2, 4, 0.5])
    assert np.isclose(o.g_opd(on_policy, lam=lam)[0], -dense.sum() / 3)
    assert np.isclose(o.g_opd(on_policy, lam=lam, discount=1.0)[0], -(dense[0] + 2 * dense[1] + dense[2]) / 3)
    assert np.isclose(o.sft(on_policy)[0], -np.log([0.5, 0.4, 0.2]).sum() / 3)
    gaps = -rewards
    grpo_part = -(1 + 1 - 1) / 3
    assert np.isclose(o.kdrl(on_policy, beta=0.3)[0], grpo_part + 0.3 * (gaps**2 / 2).sum() / 3)
    masked = o.kdrl(on_policy, beta=0.3, keep="wrong_response")[0]
    assert np.isclose(masked, grpo_part + 0.3 * gaps[2] ** 2 / 2 / 3)
    assert np.isclose(o.kdrl(on_policy, beta=0.3, keep="wrong_group")[0], grpo_part)
    fields = {"log_probs": PI, "teacher_log_probs": TEACHER, "mask": MASK}
    twice = TokenBatch(
        **{name: np.tile(x, (2, 1)) for name, x in fields.items()}, group=[0, 0, 1, 1], rewards=[1.0, 0, 0, 0]
    )  # the second group is wrong altogether, and has no advantage
    assert np.isclose(o.kdrl(twice, beta=0.3, keep="wrong_group")[0], (-1 + 0.3 * (gaps**2 / 2).sum()) / 6)
    # TRRD at alpha = 1/2: log ratio (log pi/old + clamp(log pi/T))/2
    ratio = np.exp(0.5 * np.log([2, 0.5, 0.5]) + 0.5 * np.clip(gaps, -1, 1))
    clipped = [min(ratio[0], 1.28), min(ratio[1], 1.28), max(ratio[2], 0.8)]
    assert np.isclose(value(o.trrd), -((clipped[0] + clipped[1]) / 2 - clipped[2]) / 2)
    assert np.isclose(value(o.trrd, alpha=1.0, clip=(0.2, 0.2)), value(o.grpo))


def test_teachers():
    a, b = np.log([[0.5, 0.5], [0.2, 0.2]]), np.log([[0.1, 0.1], [0.9, 0.9]])
    assert np.allclose(o.teacher_of_domain([a, b], np.array([1, 0])), [b[0], a[1]])
    with pytest.raises(ValueError, match=r"domain\[1\] = 2"):
        o.teacher_of_domain([a, b], np.array([1, 2]))
    q = np.log([[0.4, 0.4], [0.4, 0.4]])
    assert np.allclose(o.product_of_teachers(q, [a, b], [1.0, 0.5]), a + 0.5 * (b - q))
    with pytest.raises(ValueError, match="weights: needs one"):
        o.product_of_teachers(q, [a], [1.0, 2.0])


def test_off_policy():
    mixed = batch(external=[False, True], rewards=np.array([0.0, 1.0]))
    p, old = 0.2, 0.4
    weight = 4 * p / (3 * old + 1 / 10) * (1 - p) ** 0.5
    assert np.isclose(o.rl_plus(mixed, vocab_size=10)[0], -((2 + 0.5) / 2 * -0.5 + weight * 0.5) / 2)
    released = 4 * p / (3 * old + 1)
    loss = o.rl_plus(mixed, vocab_size=10, uniform="1", gamma=0.0, std=True)[0]
    assert np.isclose(loss, -((2 + 0.5) / 2 * -1 + released) / 2)
    prefixed = o.after_prefix(batch(), np.array([1, 0]))
    assert prefixed.mask.tolist() == [[False, True], [True, False]]
    with pytest.raises(ValueError, match=r"prefix\[1\] = 1.0: leaves no token of this response"):
        o.after_prefix(batch(), np.array([1, 1]))
    with pytest.raises(ValueError, match=r"prefix\[0\] = -1"):
        o.after_prefix(batch(), np.array([-1, 0]))
    assert np.isclose(value(o.prefix_rl, np.array([1, 0])), -(0.5 * 0.5 - 0.5 * 0.5) / 2)
    rewards, group = np.array([1.0, 0, 1, 1]), np.array([0, 0, 1, 1])
    assert o.keep_by_success(rewards, group).tolist() == [True, True, False, False]
    assert np.isclose(value(o.difficulty_filtering), value(o.grpo))
    assert value(o.difficulty_filtering, low=0.6) == 0.0
    kept = o.self_objective(vocab(), np.array([True, True]), beta=0.5)[0]
    p, q = np.exp(VOCAB), np.exp(OTHER)
    forward = (kl(q[0, 0], p[0, 0]) + kl(q[0, 1], p[0, 1])) / 2 / 2
    assert np.isclose(kept, value(o.grpo) + 0.5 * forward)
    assert o.self_objective(vocab(), np.array([False, False]))[0] == 0.0
    with pytest.raises(ValueError, match="same for all responses of a group"):
        o.self_objective(vocab(), np.array([True, False]))


def test_rover():
    value_of = np.log([2, 0.5, 0.5])
    plain = ((value_of[0] - 0.5) ** 2 + (value_of[1] - 0.5) ** 2) / 2 / 2 + (value_of[2] + 0.5) ** 2 / 2
    assert np.isclose(value(o.rover, next_value=False), plain)
    old_vocab = np.log([[[0.5, 0.5], [0.4, 0.6]], [[0.4, 0.6], [0.9, 0.1]]])
    ahead = np.mean(VOCAB[0, 1] - old_vocab[0, 1])
    loss = o.rover(vocab(old_vocab_log_probs=old_vocab))[0]
    shifted = ((value_of[0] - 0.5 - ahead) ** 2 + (value_of[1] - 0.5) ** 2) / 2 / 2 + (value_of[2] + 0.5) ** 2 / 2
    assert np.isclose(loss, shifted)


def test_recap():
    history = np.array([[1.0, 1, 2, 2], [4.0, 4, 4, 4]])
    c, i = np.array([2.0, 1.0]), np.array([0.0, 0.0])
    weights = np.exp((c + i) / 5)
    assert np.allclose(o.recap_weights(history, window=2), 2 * weights / weights.sum())
    assert o.recap_weights(history[:, :3], window=2).tolist() == [1, 1]
    assert np.isclose(o.recap_weights(np.random.default_rng(0).random((3, 20)), window=5).sum(), 3)
    with pytest.raises(ValueError, match="history"):
        o.recap_weights([1.0, 2.0], window=1)
    with pytest.raises(ValueError, match=r"history\[0, 1\] = -1"):
        o.recap_weights([[1.0, -1.0]], window=1)


@pytest.mark.parametrize("history", [[[1.0, 1.0], [2.0, 0.0]], [[1.0, 1.0], [0.0, 2.0]]])
def test_recap_needs_a_floor_only_under_zeros(history):
    with pytest.raises(ValueError, match=r"history\[1\]: a window of zeros needs a floor > 0"):
        o.recap_weights(history, window=1, floor=0.0)
    assert o.recap_weights([[1.0, 1.0], [1.0, 1.0]], window=1, floor=0.0).tolist() == [1, 1]


def test_lp_reg():
    probs = np.exp(PI)
    sampled = np.sort(probs[MASK])
    threshold = np.quantile(sampled, 0.5)
    proxy = np.zeros((2, 2))
    advantage = np.array([1.0, -1.0])
    gate = lp_reg_gate(batch(), proxy, advantage, rho=0.5)
    assert gate.tolist() == ((probs < threshold) & MASK & (advantage[:, None] < 0)).tolist()
    assert not lp_reg_gate(batch(), proxy - np.inf, advantage, rho=1.0).any()
    assert lp_reg_gate(batch(), proxy, advantage, rho=0.0, strict=False).tolist() == [[False, False], [True, False]]
    for p in np.linspace(0.01, 0.99, 99):  # all tied: none is below the quantile, all are at it
        tied = batch(log_probs=np.full((2, 2), np.log(p)))
        assert not lp_reg_gate(tied, proxy, -np.ones(2), rho=0.3).any()
        assert np.array_equal(lp_reg_gate(tied, proxy, -np.ones(2), rho=0.3, strict=False), MASK)
    kept = np.exp(o.min_p_proxy(np.log([0.9, 0.05, 0.05]), 0.06))
    assert np.allclose(kept, [1, 0, 0])
    with pytest.raises(ValueError, match="nothing is kept"):
        o.min_p_proxy(np.log([0.5, 0.5]), 1.0)
    shut = o.lp_reg(vocab(tokens=np.zeros((2, 2), dtype=int)), rho=0.0)[0]
    assert np.isclose(shut, -(2 + 0.5 - 0.5) / 3)
    opened, metrics = o.lp_reg(vocab(tokens=np.zeros((2, 2), dtype=int)), rho=0.5, kappa=0.7)
    proxy_at = np.array([0.0, 1.0])  # 0.4 < 0.7 · 0.6 is filtered: the sampled token 0 is not in the proxy
    assert proxy_at[0] == 0
    assert metrics["gated_fraction"] == 0.0
    assert np.isclose(opened, shut)
    opened, metrics = o.lp_reg(vocab(tokens=np.ones((2, 2), dtype=int)), rho=0.5, kappa=0.7, coefficient=2.0)
    assert np.isclose(metrics["gated_fraction"], 1 / 3)
    assert np.isclose(opened, shut + 2.0 * -np.log(0.6) / 3)


def test_apo():
    rewards, group = np.array([1.0, 1.0, 0.0, 0.0]), np.zeros(4, dtype=int)
    advantage = rewards - 0.5
    f = 1 - math.exp(-math.e / 2)
    assert np.isclose(f, 0.7431, atol=5e-5)
    assert np.allclose(o.dads_weight(rewards, group, advantage), [f, f, 1, 1])
    formatted = np.array([1.5, 0.5, 0, 0])
    assert np.allclose(o.dads_weight(formatted, group, formatted - 0.5, by="correct")[1:], 1)
    lengths = np.array([10.0, 20.0, 115.0, 5.0])
    assert np.allclose(o.stcr_multiplier(rewards, lengths, group, base=1.01), [1, 1, 2 - 1.01**-100.0, 1])
    assert np.allclose(o.stcr_multiplier(0 * rewards, lengths, group), 1)
    gated = o.stcr_multiplier(rewards, lengths, group, base=1.01, advantage=np.array([1.0, 1.0, 0.1, -1.0]))
    assert np.allclose(gated, 1)  # the long wrong one is above average
    with pytest.raises(ValueError, match="advantage: must have shape"):
        o.stcr_multiplier(rewards, lengths, group, advantage=np.zeros(3))
    # one group: A = ±1/sqrt 2 (sample std), d = 1/2, no length effect (the wrong one is shorter)
    a = 1 / math.sqrt(2)
    policy = -(a * 1.2 + a * 0.5 - a * 0.8) / 3
    gaps = np.log([2, 4, 0.5])
    k3 = 1 / np.exp(gaps) - 1 + gaps
    penalty = (f * (k3[0] + k3[1]) / 2 + k3[2]) / 2
    assert np.isclose(value(o.apo, beta=0.2, epsilon=0.0), policy + 0.2 * penalty)


def test_safe():
    assert np.allclose([o.soft_min([1.0, 2.0], a) for a in (0.01, 0.3, 3)], [1.006931, 1.197428, 1.458525], atol=5e-7)
    heads = np.array([[[1.0, 2.0], [3.0, 3.0]], [[0.0, -4.0], [5.0, 6.0]], [[2.0, 0.0], [7.0, 9.0]]])
    for alpha in (0.3, math.inf):
        assert np.array_equal(o.soft_min(heads, alpha), [[o.soft_min(v, alpha) for v in row] for row in heads])
    assert np.array_equal(o.soft_min(heads, math.inf), [[1.5, 3], [-2, 5.5], [1, 8]])  # the mean
    assert np.allclose([o.entropy_gate(h) for h in (0, 0.5, 1.9, 3, 5)], [20, 10 / 3, 1, 2 / 3.1, 0.5])
    state, taus, averages = o.AdaptiveThreshold(), [], []
    for kl_now, reward in ((1, 0.5), (2, 0.6), (4, 0.4), (6, 0.7), (8, 0.7)):
        state = state.update(kl_now, reward)
        taus.append(state.threshold)
        averages.append(state.kl)
    assert np.allclose(taus, [0.45, 0.45216, 0.446385, 0.455302, 0.454022], atol=1e-6)
    assert np.allclose(averages, [0.1, 0.29, 0.661, 1.1949, 1.87541])
    state = o.AdaptiveThreshold()
    rng = np.random.default_rng(0)
    phases, bounds = set(), []
    for t in range(1500):
        state = state.update(
            0.3, float(np.clip(0.3 + 0.45 * (1 - math.exp(-t / 200)) + 0.02 * rng.standard_normal(), 0, 1))
        )
        phases.add(state.phase)
        bounds.append(state.threshold)
    assert {"warmup", "climbing"} <= phases
    assert min(bounds) >= 0.2158
    assert max(bounds) <= 0.4955


def test_gui_libra():
    advantage, success, group = np.array([1.0, -1, -1, -1]), np.array([1.0, 0, 0, 0]), np.zeros(4, dtype=int)
    assert np.allclose(o.sngs(advantage, success, group), [1, -0.875, -0.875, -0.875])
    weights = np.array([[1.0, 3.0], [2.0, 9.0]])
    expected = -((math.log(0.5) + 3 * math.log(0.4)) / 4 + math.log(0.2)) / 2
    assert np.isclose(value(o.asft, weights), expected)
    with pytest.raises(ValueError, match=r"token_weights\[1\]: this response has no token of positive weight"):
        o.asft(batch(), np.array([[1.0, 1.0], [0.0, 1.0]]))


def test_masked_diffusion():
    d = np.array([[0.5, -0.3, 0.1]])
    zero = np.zeros((1, 3))
    assert np.isclose(o.elbo_ratio(d, zero, [1.5])[0], -1.657756, atol=5e-7)
    assert np.isclose(o.bgpo(d, zero, [1.5])[0], -1.65)
    assert np.isclose(o.bgpo(d, zero, [-1.5])[0], 1.747355, atol=5e-7)
    for loss, advantage, wanted in (
        (o.elbo_ratio, 1.5, [0.552585] * 3),
        (o.elbo_two_pass, 1.5, [0.552585] * 3),
        (o.bgpo, 1.5, [0.5] * 3),
        (o.bgpo, -1.5, [-0.824361, -0.370409, -0.552585]),
    ):
        elbo = torch.tensor(d, requires_grad=True)
        loss(elbo, torch.tensor(zero), torch.tensor([advantage], dtype=torch.float64))[0].backward()
        assert np.allclose(-elbo.grad.numpy(), wanted, atol=5e-7)
    with pytest.raises(ValueError, match=r"old_elbo.*\[1, 3\]"):
        o.bgpo(d, zero[:, :2], [1.0])
    with pytest.raises(ValueError, match=r"advantage.*\[1\]"):
        o.bgpo(d, zero, [1.0, 2.0])


def random_batch(seed, group_size=3, shape=(12, 4)):
    rng = np.random.default_rng(seed)
    size = 3
    vocabs = {
        name: np.log(rng.dirichlet(np.ones(size), shape))
        for name in ("vocab_log_probs", "old_vocab_log_probs", "ref_vocab_log_probs", "teacher_vocab_log_probs")
    }
    tokens = rng.integers(0, size, shape)
    fields = {n.replace("vocab_", ""): np.take_along_axis(x, tokens[..., None], -1)[..., 0] for n, x in vocabs.items()}
    mask = np.arange(shape[1]) < rng.integers(1, shape[1] + 1, shape[0])[:, None]
    count = shape[0]
    return fields | vocabs | {
        "tokens": tokens, "mask": mask, "rewards": rng.integers(0, 2, count).astype(float),
        "group": np.arange(count) // group_size, "external": np.arange(count) % 3 == 2,
        "rollout_log_probs": fields["old_log_probs"] + 0.1 * rng.standard_normal(shape),
        "values": rng.standard_normal(shape), "greedy_rewards": rng.random(count), "preferred": np.arange(count) % 2 == 0,
    }  # fmt: skip


def group_size(objective):
    """Groups that the loss accepts: pairs for preferences."""
    return 2 if objective.family == "preferences" else max(objective.group_size, 2)


def test_numpy_and_torch_agree_on_every_objective():
    for seed in range(3):
        for objective in OBJECTIVES.values():
            if objective.prefix:
                continue
            fields = random_batch(seed, group_size(objective))
            one = TokenBatch(**fields)
            two = TokenBatch(**{name: torch.tensor(x) for name, x in fields.items()})
            left, right = objective.loss(one), objective.loss(two)
            assert math.isclose(float(left[0]), float(right[0]), rel_tol=1e-12, abs_tol=1e-12), objective.name
            for name, metric in left[1].items():
                assert math.isclose(float(metric), float(right[1][name]), rel_tol=1e-12, abs_tol=1e-12), name
                assert not right[1][name].requires_grad


FLOATS = ("log_probs", "old_log_probs", "rollout_log_probs", "ref_log_probs", "teacher_log_probs", "values")
VOCABS = ("vocab_log_probs", "old_vocab_log_probs", "ref_vocab_log_probs", "teacher_vocab_log_probs")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_junk_in_the_padding_changes_nothing(name):
    """Finite and infinite junk outside the mask, and two more columns of it: the same loss, no gradient there."""
    objective = OBJECTIVES[name]
    if objective.prefix:
        pytest.skip("conditions on the first column")
    rng = np.random.default_rng(5)
    fields = random_batch(4, group_size(objective))
    dirty = dict(fields)
    wide = np.concatenate([fields["mask"], np.zeros((12, 2), dtype=bool)], axis=1)
    fixed_length = name == "dr_grpo"  # divides by the longest response of the batch
    for key in (*FLOATS, *VOCABS, "tokens"):
        junk = rng.standard_normal((12, 6, *fields[key].shape[2:])) * 50
        junk[:, :4][fields["mask"]] = fields[key][fields["mask"]]
        dirty[key] = np.abs(junk).astype(int) % 3 if key == "tokens" else junk
        if key == "tokens":
            dirty[key][:, :4][fields["mask"]] = fields[key][fields["mask"]]
    dirty["log_probs"][0, 5] = -np.inf
    dirty["mask"] = wide
    if fixed_length:
        dirty = {k: v[:, :4] if k in (*FLOATS, *VOCABS, "tokens", "mask") else v for k, v in dirty.items()}
    clean = objective.loss(TokenBatch(**fields))[0]
    leaves = {key: torch.tensor(dirty[key], requires_grad=True) for key in ("log_probs", "vocab_log_probs", "values")}
    made = TokenBatch(**{k: torch.tensor(v) for k, v in dirty.items()} | leaves)
    loss = objective.loss(made)[0]
    assert math.isclose(float(clean), float(loss.detach()), rel_tol=1e-11, abs_tol=1e-12)
    if loss.requires_grad:
        for gradient in torch.autograd.grad(loss, list(leaves.values()), allow_unused=True):
            if gradient is not None:
                assert torch.isfinite(gradient).all()
                assert not gradient[~torch.tensor(dirty["mask"])].any()


DETACHED = {
    "cispo": "the ratio is a weight", "dppo": "the ratio is a weight", "vespo": "phi is a weight",
    "rapo": "u is a weight", "rl_plus": "the focal factor is a weight", "kto": "the reference point is a constant",
    "g_opd": "the token reward is a constant", "opd": "the token reward is a constant",
    "vla_opd": "the token reward is a constant", "gpg": "no ratio: its value is constant",
    "minillm": "returns and weights are constants", "rover": "the next value is a constant",
    "opo": "no ratio: its value is constant", "remax": "no ratio: its value is constant",
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_autograd_is_the_derivative_of_the_value(name):
    """Central differences against autograd for every loss in which nothing of the policy is detached; the detached ones
    must differ from their value's derivative."""
    loss = LOSSES[name]
    fields = random_batch(11, 2 if "preferred" in loss.needs or name == "online_dpo" else 4)
    rng = np.random.default_rng(3)
    # a small step from the old policy, so that no clip is active and no kink is near
    tokens = fields["old_log_probs"] + 0.02 * rng.uniform(0.2, 1, fields["mask"].shape)
    logits = fields.pop("vocab_log_probs")
    bound = partial(loss.function, **{option.name: 3 for option in loss.options if option.required})
    moves = rng.standard_normal(tokens.shape), rng.standard_normal(logits.shape)

    def value(step):
        law = log_normalize(logits + step * moves[1])
        return float(bound(TokenBatch(**fields | {"log_probs": tokens + step * moves[0], "vocab_log_probs": law}))[0])

    leaves = [torch.tensor(x, requires_grad=True) for x in (tokens, logits)]
    made = TokenBatch(
        **{k: torch.tensor(v) for k, v in fields.items()}
        | {"log_probs": leaves[0], "vocab_log_probs": torch.log_softmax(leaves[1], dim=-1)}
    )
    gradients = torch.autograd.grad(bound(made)[0], leaves, allow_unused=True)
    slope = sum(float((g * torch.tensor(d)).sum()) for g, d in zip(gradients, moves) if g is not None)
    step = 1e-6
    numeric = (value(step) - value(-step)) / (2 * step)
    assert math.isclose(numeric, slope, rel_tol=1e-5, abs_tol=1e-7) == (name not in DETACHED)
