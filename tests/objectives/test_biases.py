"""Objectives without a population objective: the formula that their docstring states instead, by enumeration."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch

from klsim import objectives as o
from klsim.learning import TreeProblem, expected_gradient, functional_gradient, random_prompts


def scores(problem):
    """``grad log pi(y_t|.)`` in the logits of every response and step, ``(N, T, prefixes, V)``."""
    pi = np.exp(problem.tables["policy"])
    out = np.zeros((*problem.nodes.shape, *pi.shape))
    for i, t in zip(*np.nonzero(problem.mask)):
        node = problem.nodes[i, t]
        out[i, t, node] = -pi[node]
        out[i, t, node, problem.tokens[i, t]] += 1
    return out


def sampled_table(problem, law):
    return problem.tables[law][problem.nodes, problem.tokens]


def test_trrd_weights_tokens_against_the_teacher():
    """C2: on-policy, unclipped, unclamped, given advantages: -E[(old/T)^(1-alpha) A grad log pi]."""
    problem = TreeProblem(random_prompts(1, 1, binary=False))
    loss = partial(o.trrd, alpha=0.3, clamp=math.inf, clip=(math.inf, math.inf), aggregate=o.sequence_sum)
    found = expected_gradient(lambda b: loss(b.replace(advantages=b.rewards)), problem, group_size=1).gradient
    p = np.exp(problem.log_prob("policy"))
    weight = np.exp(0.7 * (sampled_table(problem, "policy") - sampled_table(problem, "teacher")))
    expected = -np.einsum("i,it,i,itsv->sv", p, weight * problem.mask, problem.reward, scores(problem))
    assert np.allclose(found, expected, atol=1e-13)


def test_rapo_back_propagated():
    problem = TreeProblem(random_prompts(1, 2))
    found = expected_gradient(partial(o.rapo, form="backprop"), problem, group_size=1).gradient
    ref, pi = problem.tables["ref"], problem.tables["policy"]
    weight = problem.visits("policy")[:, None] * np.exp(ref) * (ref - pi)
    expected = -(weight - np.exp(pi) * weight.sum(axis=1, keepdims=True))
    assert np.allclose(found, expected, atol=1e-13)
    assert not np.allclose(found, functional_gradient("forward_kl(frozen)", problem), atol=1e-2)


def test_rl_plus_external_part():
    """On external responses alone the weight is r^m A (1-pi)^gamma; with both, A belongs to the group."""
    problem = TreeProblem(random_prompts(1, 3, external=True))
    loss = partial(o.rl_plus, vocab_size=3, gamma=0.5, aggregate=o.sequence_sum)
    found = expected_gradient(
        lambda b: loss(b.replace(advantages=b.rewards)), problem, group_size=0, external=1
    ).gradient
    pi = np.exp(sampled_table(problem, "policy"))
    weight = 4 * pi / (3 * pi + 1 / 3) * (1 - pi) ** 0.5 * problem.mask
    omega = np.exp(problem.log_prob("external"))
    expected = -np.einsum("i,it,i,itsv->sv", omega, weight, problem.reward, scores(problem))
    assert np.allclose(found, expected, atol=1e-13)


def test_hard_cross_entropy():
    problem = TreeProblem(random_prompts(1, 4))
    found = expected_gradient(o.hard_cross_entropy, problem, group_size=1).gradient
    target = np.eye(3)[problem.tables["teacher"].argmax(axis=1)]
    expected = problem.visits("policy")[:, None] * (np.exp(problem.tables["policy"]) - target)
    assert np.allclose(found, expected, atol=1e-13)


@pytest.mark.parametrize("lagged", [False, True])
def test_lp_reg_at_a_gated_prefix(lagged):
    """The penalty's gradient is pi - proxy, whether the proxy is current or lagged; with the current one it denoises."""
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.standard_normal((1, 1, 6)) * 2, requires_grad=True)
    pi = torch.log_softmax(logits, dim=-1)
    old = torch.log_softmax(torch.tensor(rng.standard_normal((1, 1, 6)) * 2), dim=-1) if lagged else None
    source = (pi if old is None else old).detach().numpy()
    proxy = np.exp(o.min_p_proxy(source, 0.1))
    rare = int(np.argmin(np.where(proxy > 0, source, np.inf)))
    batch = o.TokenBatch(
        pi[..., rare], vocab_log_probs=pi, old_vocab_log_probs=old, tokens=torch.tensor([[rare]]),
        advantages=torch.tensor([-1.0]).double(),
    )  # fmt: skip
    losses = [o.lp_reg(batch, coefficient=c, kappa=0.1, rho=1.0, strict=False)[0] for c in (1.0, 0.0)]
    (gradient,) = torch.autograd.grad(losses[0] - losses[1], logits)
    assert np.allclose(gradient.numpy(), np.exp(pi.detach().numpy()) - proxy, atol=1e-12)


def test_apo_kl_part():
    """Given weights, k3 pushes along -E[w (ref/pi - 1) grad log pi]: forward KL for w = 1 only."""
    problem = TreeProblem(random_prompts(1, 5, eos=None))
    horizon = problem.horizon

    def k3_part(batch, beta):
        return o.apo(batch, beta=beta, epsilon=0.0)[0]

    with_kl = expected_gradient(partial(k3_part, beta=1.0), problem, group_size=2).gradient
    without = expected_gradient(partial(k3_part, beta=0.0), problem, group_size=2).gradient
    p, r = np.exp(problem.log_prob("policy")), problem.reward
    u = np.exp(sampled_table(problem, "ref") - sampled_table(problem, "policy"))
    f = 1 - math.exp(-math.e / 2)  # G = 2, mixed group: d = 1/2
    weight = r * (r @ p + (1 - r) @ p * f) + (1 - r)  # mean DADS weight given one's own reward
    expected = -np.einsum("i,i,it,itsv->sv", p, weight, u - 1, scores(problem)) / horizon
    assert np.allclose(with_kl - without, expected, atol=1e-12)


def test_sngs_keeps_the_direction():
    problem = TreeProblem(random_prompts(1, 6))
    reward = functional_gradient("reward", problem)

    def loss(batch, offset):
        advantage = o.advantages(batch.rewards, batch.group, scale=o.group_std)
        scaled = o.sngs(advantage, batch.rewards, batch.group, offset=offset, slope=0.0)
        return o.surrogate(batch, scaled, aggregate=o.sequence_sum)

    full = expected_gradient(partial(loss, offset=1.0), problem, group_size=3).gradient
    dropped = expected_gradient(partial(loss, offset=0.0), problem, group_size=3).gradient
    p = float(problem.success()[0])
    assert np.allclose(dropped, (1 - p) * full, atol=1e-13)
    assert np.allclose(full / np.linalg.norm(full), -reward / np.linalg.norm(reward), atol=1e-12)


def subsets(length):
    """Masked sets with the probabilities of the count scheme and their weights L/l."""
    for size in range(1, length + 1):
        for chosen in itertools.combinations(range(length), size):
            yield chosen, 1 / (length * math.comb(length, size)), length / size


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_bgpo_on_a_tabular_masked_model(advantage):
    """On-policy bgpo, elbo_ratio and elbo_two_pass have the gradient A grad ELBO for every number of masks; off-policy
    the mean gradient of bgpo does not depend on it, that of elbo_ratio does."""
    rng = np.random.default_rng(0)
    length, vocab, answer = 3, 2, (1, 0, 1)
    start = torch.tensor(rng.standard_normal(((vocab + 1) ** length, length, vocab)))
    moved = start + 0.7 * torch.tensor(rng.standard_normal(start.shape))

    def elbos(theta):
        out = []
        for chosen, _, weight in subsets(length):
            shown = [vocab if i in chosen else answer[i] for i in range(length)]
            state = int(sum(s * (vocab + 1) ** i for i, s in enumerate(shown)))
            logp = torch.log_softmax(theta[state], dim=-1)
            out.append(weight * sum(logp[i, answer[i]] for i in chosen))
        return torch.stack(out)

    chances = np.array([chance for _, chance, _ in subsets(length)])

    def mean_gradient(loss, theta_old, theta, masks):
        parameter = theta.clone().requires_grad_()
        now, old = elbos(parameter), elbos(theta_old).detach()
        total = 0.0
        for picked in itertools.product(range(len(chances)), repeat=masks):
            index = torch.tensor(picked)
            chance = math.prod(chances[i] for i in picked)
            total = total + chance * loss(now[index][None], old[index][None], torch.tensor([advantage]).double())[0]
        return torch.autograd.grad(total, parameter)[0].numpy()

    parameter = start.clone().requires_grad_()
    exact = torch.autograd.grad(-advantage * (torch.tensor(chances) * elbos(parameter)).sum(), parameter)[0].numpy()
    for loss in (o.bgpo, o.elbo_ratio, o.elbo_two_pass):
        for masks in (1, 2):
            assert np.allclose(mean_gradient(loss, start, start, masks), exact, atol=1e-13)
    one, two = (mean_gradient(o.bgpo, start, moved, n) for n in (1, 2))
    assert np.allclose(one, two, atol=1e-13)
    one, two = (mean_gradient(o.elbo_ratio, start, moved, n) for n in (1, 2))
    assert np.abs(one - two).max() > 1e-3
    assert np.allclose(two, mean_gradient(o.elbo_two_pass, start, moved, 2), atol=1e-13)


def autograd(problem, value):
    """Gradient in the logits of ``value(log-probabilities of all responses, their tokens')``."""
    logits = torch.tensor(problem.tables["policy"], requires_grad=True)
    table = torch.log_softmax(logits, dim=-1)
    steps = table[torch.tensor(problem.nodes), torch.tensor(problem.tokens)] * torch.tensor(problem.mask)
    (gradient,) = torch.autograd.grad(value(steps.sum(dim=1), table), logits)
    return gradient.numpy()


def test_k1_by_sequence_mean_is_the_gradient_of_the_mean_inverse_length():
    problem = TreeProblem(random_prompts(1, 8))
    found = expected_gradient(partial(o.kl_in_loss, estimator="k1"), problem).gradient
    expected = autograd(problem, lambda log_p, _: (log_p.exp() / torch.tensor(problem.length)).sum())
    assert np.allclose(found, expected, atol=1e-14)
    assert np.abs(found).max() > 0.01


@pytest.mark.parametrize("labels", ["best", "bradley_terry"])
def test_online_dpo_starts_as_the_gradient_of_the_win_rate_against_oneself(labels):
    """At pi = ref: -2 beta grad E_pi[P(y > y')], y' from the frozen policy."""
    from dataclasses import replace

    prompts = [replace(p, log_ref=p.log_policy) for p in random_prompts(1, 9, binary=labels == "best")]
    problem = TreeProblem(prompts)
    found = expected_gradient(partial(o.online_dpo, beta=0.3, labels=labels), problem).gradient
    gap = problem.reward[:, None] - problem.reward[None, :]
    wins = (np.sign(gap) + 1) / 2 if labels == "best" else 1 / (1 + np.exp(-gap))
    rate = torch.tensor(wins @ np.exp(problem.log_prob("policy")))
    expected = autograd(problem, lambda log_p, _: -2 * 0.3 * (log_p.exp() * rate).sum())
    assert np.allclose(found, expected, atol=1e-13)


def test_topr_off_policy():
    """Imitation of what mu got right, a policy gradient of at most mu's weight of what it got wrong."""
    problem = TreeProblem(random_prompts(1, 10, off_policy=True))
    found = expected_gradient(partial(o.topr, baseline=0.5), problem, group_size=1).gradient
    mu, ratio = (
        np.exp(problem.log_prob("behaviour")),
        np.exp(problem.log_prob("policy") - problem.log_prob("behaviour")),
    )
    gain = problem.reward - 0.5
    weight = mu * gain * np.where(gain >= 0, 1.0, np.minimum(ratio, 1.0))
    assert np.allclose(found, -np.einsum("i,it,itsv->sv", weight, problem.mask, scores(problem)), atol=1e-13)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_skew_kl_with_frozen_visits(direction):
    problem = TreeProblem(random_prompts(1, 11, off_policy=True))
    loss = partial(o.skew_kl, skew=0.2, direction=direction, aggregate=o.sequence_sum)
    found = expected_gradient(loss, problem, group_size=1).gradient
    teacher, visits = torch.tensor(problem.tables["teacher"]), torch.tensor(problem.visits("behaviour"))

    def value(_, table):
        first, second = (teacher, table) if direction == "forward" else (table, teacher)
        mixture = (0.2 * first.exp() + 0.8 * second.exp()).log()
        return (visits * (first.exp() * (first - mixture)).sum(-1)).sum()

    assert np.allclose(found, autograd(problem, value), atol=1e-13)


def test_iw_opd():
    problem = TreeProblem(random_prompts(1, 12, horizon=3))
    found = expected_gradient(partial(o.iw_opd, aggregate=o.sequence_sum), problem, group_size=1).gradient
    gain = (sampled_table(problem, "teacher") - sampled_table(problem, "policy")) * problem.mask
    size = np.abs(gain)
    weight = 1 + 0.5 * (1 - (np.cumsum(size, axis=1) - size) / size.sum(axis=1, keepdims=True))
    p = np.exp(problem.log_prob("policy"))
    assert np.allclose(found, -np.einsum("i,it,itsv->sv", p, weight * gain, scores(problem)), atol=1e-13)


def test_sampler_weights_on_tokens_forget_who_visited_the_prefix():
    """The exact gradient of token-level TIS, summed: a reward gradient under mu's prefixes, not the policy's."""
    problem = TreeProblem(random_prompts(1, 13, off_policy=True))

    def loss(batch):
        mismatch = batch.replace(rollout_log_probs=batch.old_log_probs, old_log_probs=None, advantages=batch.rewards)
        return o.tis(mismatch, high=math.inf, aggregate=o.sequence_sum)

    found = expected_gradient(loss, problem, group_size=1).gradient
    mu = np.exp(problem.log_prob("behaviour"))
    weight = np.exp(sampled_table(problem, "policy") - sampled_table(problem, "behaviour")) * problem.mask
    expected = -np.einsum("i,it,i,itsv->sv", mu, weight, problem.reward, scores(problem))
    assert np.allclose(found, expected, atol=1e-13)
    assert not np.allclose(found, -functional_gradient("reward", problem), atol=1e-2)
