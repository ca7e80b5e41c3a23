"""Mistakes and rewritings that the audit was not built with: no wrong loss may pass, no right one may fail."""

import pytest
import torch

from klsim.audit import Target, audit


def gained(b):
    return b.rewards if b.rewards.ndim == 1 else (b.rewards * b.weights).sum(1)


def leave_one_out(b, r):
    same = (b.group[:, None] == b.group[None]).to(r.dtype)
    n = same.sum(1)
    return (r - same @ r / n) * n / (n - 1)


def reinforce(b, r=None, log_probs=None, weights=None):
    """The correct loss, with pieces exchanged."""
    log_probs = b.log_probs if log_probs is None else log_probs
    weights = b.weights if weights is None else weights
    return -(leave_one_out(b, gained(b) if r is None else r) * (log_probs * weights).sum(1)).mean()


def k2(b, other=None):
    return ((b.log_probs - (b.ref_log_probs if other is None else other)) ** 2 / 2 * b.weights).sum(1).mean()


def lengths(b):
    return b.weights.sum(1)


WRONG = {
    "the end of the sequence is not trained": (lambda b: reinforce(b, weights=b.weights * (b.tokens != 0)), "reward"),
    "product of means": (
        lambda b: -(leave_one_out(b, gained(b)) ** 2).mean().sqrt() * (b.log_probs * b.weights).sum(1).mean(),
        "reward",
    ),
    "labels shifted by one": (
        lambda b: reinforce(b, log_probs=b.vocab_log_probs.gather(-1, b.tokens.roll(-1, 1)[..., None])[..., 0]),
        "reward",
    ),
    "mask shifted by one": (lambda b: reinforce(b, weights=b.weights.roll(1, 1)), "reward"),
    "KL to the teacher, not the reference": (
        lambda b: reinforce(b) + 0.1 * k2(b, b.teacher_log_probs),
        "reward - 0.1*reverse_kl(frozen)",
    ),
    "KL between two constants": (
        lambda b: reinforce(b) + 0.1 * ((b.old_log_probs - b.ref_log_probs) * b.weights).sum(1).mean(),
        "reward - 0.1*reverse_kl(frozen)",
    ),
    "mean over the batch": (
        lambda b: -((gained(b) - gained(b).mean()) * (b.log_probs * b.weights).sum(1)).mean(),
        "(1 - 1/G)*reward",
    ),
    "rewards of other prompts multiply": (
        lambda b: reinforce(b, gained(b) * (1 + 0.1 * (gained(b).sum() - _own_sum(b)))),
        "reward",
    ),
    "prompts weighed by their number": (lambda b: reinforce(b, gained(b) * (1 + 0.1 * b.group)), "reward"),
    "inverted ratio": (
        lambda b: -(leave_one_out(b, gained(b)) * ((b.old_log_probs - b.log_probs) * b.weights).sum(1).exp()).mean(),
        "reward",
    ),
    "log ratio clipped in the KL": (
        lambda b: reinforce(b)
        + 0.1 * ((b.log_probs - b.ref_log_probs).clamp(-0.2, 0.2) ** 2 / 2 * b.weights).sum(1).mean(),
        "reward - 0.1*reverse_kl(frozen)",
    ),
    "normalised twice": (
        lambda b: -(leave_one_out(b, gained(b)) * (b.log_probs * b.weights).sum(1) / lengths(b)).mean()
        / lengths(b).mean(),
        "reward_per_token",
    ),
    "KL in the reward without a detach": (
        lambda b: reinforce(b, gained(b) - 0.1 * ((b.log_probs - b.ref_log_probs) * b.weights).sum(1)),
        "reward - 0.1*reverse_kl",
    ),
    "KL summed over the vocabulary without weights": (
        lambda b: ((b.vocab_log_probs - b.ref_vocab_log_probs).sum(-1) * b.weights).sum(1).mean(),
        "-reverse_kl(frozen)",
    ),
    "KL of the sampled token against the whole vocabulary": (
        lambda b: (
            (b.vocab_log_probs.exp() * (b.log_probs[..., None] - b.ref_vocab_log_probs)).sum(-1) * b.weights
        ).sum(1).mean(),
        "-reverse_kl(frozen)",
    ),
    "value baseline without a detach": (
        lambda b: -((gained(b)[:, None] - b.values) * b.log_probs * b.weights).sum(1).mean(),
        "reward",
    ),
    "value baseline after the token": (
        lambda b: -((gained(b)[:, None] - b.values.detach().roll(-1, 1)) * b.log_probs * b.weights).sum(1).mean(),
        "reward",
    ),
    "entropy over positions": (
        lambda b: (
            (lambda p: (p.exp() * p).sum(-1))(b.vocab_log_probs.log_softmax(1)) * b.weights
        ).sum(1).mean(),
        "entropy(frozen)",
    ),
    "only the last token's reward": (
        lambda b: reinforce(b, b.rewards if b.rewards.ndim == 1 else b.rewards[:, -1]),
        "reward",
    ),
    "sampled at temperature 0.7": (
        lambda b: reinforce(
            b, log_probs=(b.vocab_log_probs / 0.7).log_softmax(-1).gather(-1, b.tokens[..., None])[..., 0]
        ),
        "reward",
    ),
    "no reward for what is cut": (lambda b: reinforce(b, gained(b) * b.ended), "reward"),
    "advantages squashed": (lambda b: reinforce(b, gained(b).tanh()), "reward"),
    "mean of token ratios": (
        lambda b: -(
            leave_one_out(b, gained(b))
            * ((b.log_probs - b.old_log_probs).exp() * b.weights).sum(1) / lengths(b)
        ).mean(),
        "reward",
    ),
    "a longest response counts": (
        lambda b: reinforce(b) * lengths(b).max() / lengths(b).max().clamp(min=3),
        "reward",
    ),
}  # fmt: skip


def _own_sum(b):
    return (b.group[:, None] == b.group[None]).to(b.log_probs.dtype) @ gained(b)


def looped(b):
    r, total = gained(b), 0.0
    for g in b.group.unique():
        rows = (b.group == g).nonzero()[:, 0]
        for i in rows:
            others = r[rows[rows != i]]
            total = total - (r[i] - others.mean()) * (b.log_probs[i] * b.weights[i]).sum()
    return total / len(r)


def full_reverse_kl(b):
    p, q = b.vocab_log_probs, b.ref_vocab_log_probs
    return ((p.exp() * (p - q)).sum(-1) * b.weights).sum(1).mean()


SAME = {
    "mean and sum exchanged": (
        lambda b: -(leave_one_out(b, gained(b))[:, None] * b.log_probs * b.weights).mean(0).sum(),
        "reward",
    ),
    "ratio to itself": (
        lambda b: reinforce(b, log_probs=(b.log_probs - b.log_probs.detach()).exp()),
        "reward",
    ),
    "rewards shifted": (lambda b: reinforce(b, gained(b) + 3), "reward"),
    "rewards of other prompts added": (
        lambda b: reinforce(b, gained(b) + 0.1 * (gained(b).sum() - _own_sum(b))),
        "reward",
    ),
    "score function of the KL": (
        lambda b: reinforce(b)
        + 0.1 * ((b.log_probs - b.ref_log_probs).detach() * b.log_probs * b.weights).sum(1).mean(),
        "reward - 0.1*reverse_kl(frozen)",
    ),
    "KL over the vocabulary": (lambda b: reinforce(b) + 0.1 * full_reverse_kl(b), "reward - 0.1*reverse_kl(frozen)"),
    "loops over groups": (looped, "reward"),
    "logits normalised again": (
        lambda b: reinforce(b, log_probs=(b.vocab_log_probs + 1).log_softmax(-1).gather(-1, b.tokens[..., None])[..., 0]),
        "reward",
    ),
    "a value before every token as baseline": (
        lambda b: -((gained(b)[:, None] - b.values.detach()) * b.log_probs * b.weights).sum(1).mean(),
        "reward",
    ),
    "wide clip": (
        lambda b: reinforce(b, log_probs=(b.log_probs - b.old_log_probs).exp().clamp(0, 10)),
        "reward",
    ),
    "einsum": (
        lambda b: -torch.einsum("b,bt,bt->", leave_one_out(b, gained(b)), b.log_probs, b.weights) / len(b.log_probs),
        "reward",
    ),
    "masked select": (
        lambda b: -(leave_one_out(b, gained(b))[:, None].expand_as(b.mask)[b.mask] * b.log_probs[b.mask]).sum()
        / len(b.log_probs),
        "reward",
    ),
}  # fmt: skip


def run(name, loss, expect, **options):
    return audit(Target(name, lambda: loss), expect=expect, quick=True, **options)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_loss_is_not_met(name):
    loss, expect = WRONG[name]
    assert not run(name, loss, expect).met


@pytest.mark.parametrize("name", SAME)
def test_a_rewriting_is_met(name):
    loss, expect = SAME[name]
    found = run(name, loss, expect)
    assert found.met, found.verdict


def stale(b):
    """The trainer's own log-probabilities in place of those that drew."""
    return -(leave_one_out(b, gained(b)) * ((b.log_probs - b.log_probs.detach()) * b.weights).sum(1).exp()).mean()


def inverted(b):
    ratio = ((b.old_log_probs - b.log_probs) * b.weights).sum(1).exp().detach()
    return -(leave_one_out(b, gained(b)) * ratio * (b.log_probs * b.weights).sum(1)).mean()


def by_token(b):
    return -(leave_one_out(b, gained(b))[:, None] * (b.log_probs - b.old_log_probs).exp() * b.weights).sum(1).mean()


def clipped_logs(b):
    gap = ((b.log_probs - b.old_log_probs) * b.weights).sum(1)
    return -(gained(b) * gap.clamp(-0.2, 0.2).exp()).mean()


def corrected(b):
    return -(gained(b) * ((b.log_probs - b.old_log_probs) * b.weights).sum(1).exp()).mean()


@pytest.mark.parametrize(
    ("loss", "met"), [(stale, False), (inverted, False), (by_token, False), (clipped_logs, False), (corrected, True)]
)
def test_corrections_for_another_policy_are_held_to_it(loss, met):
    assert run(loss.__name__, loss, "reward", off_policy="exact").met is met
    on_policy = run(loss.__name__, loss, "reward")
    assert on_policy.met or loss is clipped_logs, on_policy.verdict
