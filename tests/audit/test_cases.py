"""Defects that people reported of trainers, re-created as small losses beside their corrections: what the audit says."""

from __future__ import annotations

import pytest

from klsim.audit import audit
from klsim.audit.targets import from_function

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")


def total(batch):
    """Log-probability of every response."""
    return (batch.log_probs * batch.weights).sum(1)


def groups(batch):
    return (batch.group[:, None] == batch.group[None]).to(batch.log_probs.dtype)


def leave_one_out(batch):
    r, same = batch.total_rewards(), groups(batch)
    n = same.sum(1)
    return (r - same @ r / n) * n / (n - 1)


def on_policy_ratio(batch):
    return (batch.log_probs - batch.log_probs.detach()).exp()


def k3(batch):
    gap = batch.ref_log_probs - batch.log_probs
    return gap.exp() - gap - 1


def run(loss, expect=None, **options):
    return audit(from_function(loss.__name__, loss), expect=expect, quick="must_act" not in options, **options)


def policy_gradient(batch):
    return -(leave_one_out(batch) * total(batch)).mean()


def penalty_unmasked(batch, beta=0.1):
    return policy_gradient(batch) + beta * (on_policy_ratio(batch) * k3(batch)).sum(1).mean()


def penalty_masked(batch, beta=0.1):
    return policy_gradient(batch) + beta * (on_policy_ratio(batch) * k3(batch) * batch.weights).sum(1).mean()


def test_a_forgotten_mask_on_the_penalty():
    found = run(penalty_unmasked, "reward - beta*reverse_kl(frozen)")
    assert not found.met
    assert "depends on masked positions" in found.verdict
    assert run(penalty_masked, "reward - beta*reverse_kl(frozen)").met


def over_the_longest(batch):
    each = leave_one_out(batch)[:, None] * batch.log_probs * batch.weights
    return -each.sum() / (len(each) * batch.weights.sum(1).max())


@pytest.mark.parametrize("scale", ["one", "any"])
def test_a_mean_over_the_longest_response(scale):
    found = run(over_the_longest, "reward", scale=scale)
    assert not found.met
    assert "depends on the longest response of the batch" in found.verdict
    lengths = next(m for m in found.expected if m.world == "lengths")
    assert lengths.residual > 0.05


def whole_batch(batch):
    r = batch.total_rewards()
    return -((r - r.mean()) / (r.std() + 1e-6) * total(batch)).mean()


def by_group(batch):
    r = batch.total_rewards()
    out = torch.zeros_like(r)
    for g in batch.group.unique():
        m = batch.group == g
        out[m] = (r[m] - r[m].mean()) / (r[m].std() + 1e-6)
    return -(out * total(batch)).mean()


def test_statistics_of_the_batch_in_place_of_the_groups():
    """Up to a weight of every prompt, both ascend the reward; only in one is that weight the prompt's own."""
    mixed = run(whole_batch, "reward", scale="prompt", rewards="binary")
    own = run(by_group, "reward", scale="prompt", rewards="binary")
    assert not mixed.met
    assert "mixes prompts: the rewards of one act on another" in mixed.verdict
    assert own.met
    assert "mixes" not in own.verdict
    assert not run(by_group, "reward").met
    assert not run(whole_batch, "reward").met
    assert not run(by_group, "reward", scale="prompt").met  # graded rewards: another objective


def viewed(batch):
    r = batch.total_rewards()
    a = r.view(-1, int((batch.group == batch.group[0]).sum()))
    return -((a - a.mean(1, keepdim=True)).reshape(-1) * total(batch)).mean()


def test_code_that_reshapes_by_group_is_accepted():
    assert run(viewed, "(1 - 1/G)*reward").met
    assert run(viewed, "reward", scale="any").met


def raw_when_alone(batch):
    r, same = batch.total_rewards(), groups(batch)
    n = same.sum(1)
    return -(torch.where(n > 1, (r - same @ r / n) * n / (n - 1).clamp(min=1), r) * total(batch)).mean()


def test_a_group_of_one():
    found = run(raw_when_alone, "reward")
    assert found.met
    assert "in groups of one the reward enters without a baseline" in found.verdict


def ratio_always_one(batch, clip=0.2):
    return _clipped(batch, on_policy_ratio(batch), clip)


def ratio_to_old(batch, clip=0.2):
    return _clipped(batch, (batch.log_probs - batch.old_log_probs).exp(), clip)


def _clipped(batch, ratio, clip):
    a = leave_one_out(batch)[:, None]
    return -(torch.minimum(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a) * batch.weights).sum(1).mean()


def old_ratio(batch):
    return (batch.log_probs.detach() - batch.old_log_probs).exp()


def truncated_weights(batch, cap=2.0):
    w = old_ratio(batch).clamp(max=cap)
    return -(leave_one_out(batch)[:, None] * w * batch.log_probs * batch.weights).sum(1).mean()


def _masked_weights(batch, low=0.5, high=2.0):
    r = old_ratio(batch)
    keep = ((r > low) & (r < high)).to(r.dtype)
    return -(leave_one_out(batch)[:, None] * r * keep * batch.log_probs * batch.weights).sum(), keep


def masked_weights_over_all(batch):
    return _masked_weights(batch)[0] / batch.weights.sum()


def masked_weights_over_kept(batch):
    loss, keep = _masked_weights(batch)
    return loss / (batch.weights * keep).sum().clamp(min=1)


def sequence_weights(batch):
    ratio = ((batch.log_probs - batch.old_log_probs) * batch.weights).sum(1).exp()
    return -(ratio * batch.total_rewards()).mean()


def test_off_policy_every_correction_has_its_size():
    losses = (policy_gradient, ratio_always_one, ratio_to_old, truncated_weights, masked_weights_over_all,
              masked_weights_over_kept)  # fmt: skip
    found = {loss: run(loss, "reward", off_policy="exact") for loss in losses}
    far = {loss: next(f for f in a.fits if f.world == "off-policy") for loss, a in found.items()}
    assert all(0.1 < f.residual < 0.9 and 0.4 < f.cosine < 0.99 for f in far.values())
    assert far[truncated_weights].cosine > far[policy_gradient].cosine  # the correction corrects
    assert far[policy_gradient].cosine == pytest.approx(far[ratio_always_one].cosine)  # its ratio is no ratio
    assert abs(far[masked_weights_over_all].cosine - far[masked_weights_over_kept].cosine) > 0.005
    assert not any(a.met for a in found.values())
    exact = run(sequence_weights, "reward", off_policy="exact")
    assert exact.met
    assert all(f.residual < 1e-12 and f.scale == pytest.approx(1) for f in exact.fits if f.world != "sampler")
    assert run(ratio_to_old, "reward").met  # on-policy it is right, and the report says how far off-policy
    assert "biased off-policy (off-policy cosine" in found[ratio_to_old].verdict


def _token_terms(batch, kl_coef):
    ratio = (batch.log_probs - batch.old_log_probs).exp()
    return -leave_one_out(batch)[:, None] * ratio + kl_coef * k3(batch) * on_policy_ratio(batch)


def mean_in_micro_batches(batch, kl_coef=0.1):
    x, w = _token_terms(batch, kl_coef), batch.weights
    return sum((x[i] * w[i]).sum() / w[i].sum() for i in range(len(x))) / len(x)


def mean_of_the_batch(batch, kl_coef=0.1):
    return (_token_terms(batch, kl_coef) * batch.weights).sum() / batch.weights.sum()


def over_a_constant(batch, kl_coef=0.1):
    x = _token_terms(batch, kl_coef)
    return (x * batch.weights).sum() / (len(x) * x.shape[1])


def test_gradient_accumulation():
    """A mean over the tokens of a batch is a ratio of expectations, which only the whole batch has."""
    target = "token_mean(reward - kl_coef*reverse_kl(frozen))"
    assert not run(mean_in_micro_batches, target).met
    whole = run(mean_of_the_batch, target)
    assert whole.met
    assert "as the batch grows" in whole.verdict
    assert "micro-batches do not add up" in whole.verdict
    constant = run(over_a_constant, "reward/3 - kl_coef/3*reverse_kl(frozen)")
    assert constant.met
    assert "depends on the width to which a batch is padded" in constant.verdict


def mean_of_response_with_penalty(batch, beta=0.1):
    r, same = batch.total_rewards(), groups(batch)
    a = (r - same @ r / same.sum(1))[:, None]
    x = on_policy_ratio(batch) * (beta * k3(batch) - a)
    return ((x * batch.weights).sum(1) / batch.weights.sum(1)).mean()


def test_a_penalty_per_length_can_be_written():
    target = "(1 - 1/G)*reward_per_token - beta*sequence_mean(reverse_kl(sampled))"
    assert run(mean_of_response_with_penalty, target).met
    assert not run(mean_of_response_with_penalty, target.replace("sampled", "frozen")).met


def _geometric(batch):
    return (((batch.log_probs - batch.old_log_probs) * batch.weights).sum(1) / batch.weights.sum(1)).exp()


def sequence_ratio_over_tokens(batch):
    return ((-_geometric(batch) * leave_one_out(batch))[:, None] * batch.weights).sum() / batch.weights.sum()


def sequence_ratio(batch):
    return -(_geometric(batch) * leave_one_out(batch)).mean()


def test_a_sequence_ratio_broadcast_over_tokens():
    found = run(sequence_ratio_over_tokens, "reward_per_token")
    assert not found.met
    assert "as the batch grows, -1 token_mean(reward)" in audit(sequence_ratio_over_tokens).verdict
    assert run(sequence_ratio_over_tokens, "token_mean(reward)").met
    assert run(sequence_ratio, "reward_per_token").met


def _not_cut(batch):
    cut = (batch.weights.sum(1) == batch.weights.shape[1]) & (batch.tokens[:, -1] != 0)
    return (~cut).to(batch.log_probs.dtype)[:, None] * batch.weights


def cut_in_the_numerator(batch):
    return -(leave_one_out(batch)[:, None] * batch.log_probs * _not_cut(batch)).sum() / batch.weights.sum()


def cut_in_both(batch):
    kept = _not_cut(batch)
    return -(leave_one_out(batch)[:, None] * batch.log_probs * kept).sum() / kept.sum().clamp(min=1)


def test_responses_that_were_cut():
    assert run(cut_in_both, "token_mean(reward(ended))").met
    assert not run(cut_in_the_numerator, "token_mean(reward(ended))").met


def test_responses_that_are_masked_altogether():
    assert not run(policy_gradient).properties.cut
    assert "not finite" in run(sequence_ratio).properties.cut
    assert "read although masked" in run(penalty_unmasked).properties.cut


def _jsd(batch, mix, of_teacher, of_student):
    s, t = batch.vocab_log_probs, batch.teacher_vocab_log_probs
    m = (mix * t.exp() + (1 - mix) * s.exp()).log()
    each = of_teacher * (t.exp() * (t - m)).sum(-1) + of_student * (s.exp() * (s - m)).sum(-1)
    return (each * batch.weights).sum(1).mean()


def jsd(batch):
    return _jsd(batch, 0.9, 0.9, 0.1)


def jsd_of_the_wrong_mixture(batch):
    return _jsd(batch, 0.1, 0.9, 0.1)


def jsd_near_its_end(batch):
    return _jsd(batch, 1 - 1e-6, 1 - 1e-6, 1e-6)


def test_a_generalised_jsd():
    target = "-jsd(teacher, frozen, weight=0.9)"
    assert run(jsd, target).met
    assert not run(jsd_of_the_wrong_mixture, target).met
    assert "% left" in run(jsd).verdict
    assert " 0% left" not in run(jsd).verdict  # a small share has digits


def test_the_scale_is_part_of_the_verdict():
    missed = run(jsd_near_its_end, "-reverse_kl(teacher, frozen)")
    assert not missed.met
    assert "it is 1e-06 times what was expected" in missed.verdict
    free = run(jsd_near_its_end, "-reverse_kl(teacher, frozen)", scale="any")
    assert free.met
    assert "at scale 1e-06" in free.verdict


def top_k_clamped(batch, k=2):
    t, i = batch.teacher_vocab_log_probs.topk(k, -1)
    s = batch.vocab_log_probs.gather(-1, i)
    return ((t.exp() * (t - s)).sum(-1).clamp_min(0) * batch.weights).sum(1).mean()


def top_k_truncated(batch, k=2):
    t, i = batch.teacher_vocab_log_probs.topk(k, -1)
    s = batch.vocab_log_probs.gather(-1, i)
    return ((t.exp() * (t - s)).sum(-1) * batch.weights).sum(1).mean()


def top_k_with_tail(batch, k=2):
    t, i = batch.teacher_vocab_log_probs.topk(k, -1)
    s = batch.vocab_log_probs.gather(-1, i)
    pt, ps = 1 - t.exp().sum(-1), 1 - s.exp().sum(-1)
    return (((t.exp() * (t - s)).sum(-1) + pt * (pt.log() - ps.log())) * batch.weights).sum(1).mean()


def top_k_renormalised(batch, k=2):
    s, i = batch.vocab_log_probs.topk(k, -1)
    t = batch.teacher_vocab_log_probs.gather(-1, i)
    s, t = s.log_softmax(-1), t.log_softmax(-1)
    return ((s.exp() * (s - t)).sum(-1) * batch.weights).sum(1).mean()


TOP = {
    top_k_truncated: "-forward_kl(teacher, frozen, top=k)",
    top_k_with_tail: "-forward_kl(teacher, frozen, tail, top=k)",
    top_k_renormalised: "-reverse_kl(teacher, frozen, renormalised, top=k, of=policy)",
}


@pytest.mark.parametrize("loss", TOP, ids=lambda loss: loss.__name__)
def test_top_k(loss):
    found = run(loss, TOP[loss], must_act=["k"])
    assert found.met, found.verdict  # k is varied by one, never doubled
    assert found.setting.vocab == 5
    assert not run(top_k_clamped, TOP[loss]).met


def tempered(batch, temperature=0.5):
    t = (batch.teacher_vocab_log_probs / temperature).log_softmax(-1).gather(-1, batch.tokens[..., None])[..., 0]
    a = (t - batch.log_probs).detach()
    return -((batch.log_probs - batch.old_log_probs).exp() * a * batch.weights).sum(1).mean()


def test_a_tempered_teacher():
    found = audit(tempered)
    assert found.equal.coefficients == pytest.approx({"entropy(frozen)": 1, "reverse_kl(teacher, frozen)": 2}, abs=1e-9)
    assert run(tempered, "-reverse_kl(teacher, frozen, temperature=temperature)").met


def labels(batch):
    return -total(batch).mean()


def test_labels_of_the_student_and_of_the_teacher():
    found = audit(labels)
    assert found.variable.coefficients == {}
    assert "descends 0" in found.verdict
    assert "on the teacher's responses 1 forward_kl(teacher)" in found.verdict
    assert run(labels, "-forward_kl(teacher)", responses="teacher").met
    assert not run(labels, "-forward_kl(teacher)").met


def _at_tokens(batch):
    if batch.rewards.ndim == 2:
        return batch.rewards
    last = torch.nn.functional.one_hot(batch.weights.sum(1).long() - 1, batch.weights.shape[1])
    return batch.rewards[:, None] * last


def own_token(batch):
    return -(_at_tokens(batch) * batch.log_probs * batch.weights).sum(1).mean()


def reward_to_go(batch):
    to_go = _at_tokens(batch).flip(1).cumsum(1).flip(1)
    return -(to_go * batch.log_probs * batch.weights).sum(1).mean()


def test_credit_of_tokens():
    assert not run(own_token, "reward").met
    found = run(reward_to_go, "reward")
    assert found.met
    assert "rewards at tokens" in {m.world for m in found.expected}
    assert "fine with rewards at tokens" in found.verdict


def _pairs(batch, averaged, f):
    x = ((batch.log_probs - batch.ref_log_probs) * batch.weights).sum(1)
    x = x / batch.weights.sum(1) if averaged else x
    r = batch.total_rewards()
    gap, chosen = x[:, None] - x[None], (r[:, None] > r[None]).to(x.dtype)
    return (f(gap) * chosen).sum()


def dpo(batch, beta=0.1):
    return _pairs(batch, False, lambda gap: -torch.nn.functional.logsigmoid(beta * gap))


def ipo(batch, beta=0.1):
    return _pairs(batch, False, lambda gap: (gap - 1 / (2 * beta)) ** 2)


def ipo_averaged(batch, beta=0.1):
    return _pairs(batch, True, lambda gap: (gap - 1 / (2 * beta)) ** 2)


def test_preference_pairs():
    assert run(dpo, "-dpo(beta=beta)").met
    assert "one pair a batch" in run(dpo, "-dpo(beta=beta)").verdict  # it would pair responses of two prompts
    assert run(ipo, "-ipo(beta=beta)").met
    assert not run(ipo_averaged, "-ipo(beta=beta)").met
    assert run(ipo_averaged, "-ipo(averaged, beta=beta)").met
    assert not run(dpo, "-dpo(beta=0.2)").met


def wrong_way(batch):
    return -policy_gradient(batch)


def test_the_opposite_sign_is_said():
    found = run(wrong_way, "reward")
    assert not found.met
    assert "the sign is flipped" in found.verdict


def drops_tokens(batch):
    """Random in one of the worlds only."""
    x = batch.log_probs * batch.weights
    if batch.vocab_log_probs.shape[-1] > 2:
        x = x * (torch.rand(x.shape) > 0.5)
    return -(leave_one_out(batch) * x.sum(1)).mean()


def test_random_numbers_are_noticed_wherever_they_are_drawn():
    found = run(drops_tokens, "reward")
    assert not found.met
    assert "is random" in found.verdict
