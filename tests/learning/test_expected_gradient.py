"""The gradient checker against brute force, finite differences and Monte Carlo."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from klsim import objectives as o
from klsim.distributions import log_normalize
from klsim.learning import (
    PromptTree,
    TreeProblem,
    expected_gradient,
    explain,
    functional_gradient,
    functional_value,
    random_prompts,
)
from klsim.learning.objective_checks import descend, prompts_for
from klsim.objectives.registry import OBJECTIVES
from klsim.problems import TokenTree
from klsim.problems.token_tree import node_kl, sequence_log_probs, visit_log_probs

NAMES = (
    "reward", "reward_per_token", "length", "entropy", "entropy(frozen)", "reverse_kl", "reverse_kl(frozen)",
    "forward_kl", "forward_kl(frozen)", "reverse_kl(teacher)", "forward_kl(teacher, frozen)", "js", "js(frozen)",
    "chi2(ref visits)", "hellinger(teacher, frozen)", "alpha(0.5)(frozen)", "reward@1",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_functional_gradients_by_finite_differences(name):
    problem = TreeProblem(random_prompts(2, 5, off_policy=True, binary=False))
    gradient = functional_gradient(name, problem)
    logits = np.array(problem.tables["policy"])
    h = 1e-5
    baseline = problem.success()
    for index in np.ndindex(*logits.shape):
        values = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[index] += sign * h
            other = problem.with_policy(log_normalize(moved))
            if name == "reward_per_token":  # its baseline is held fixed
                p = np.exp(other.log_prob("policy"))
                values.append(float(np.sum(p * (other.reward - baseline[other.prompt]) / other.length)) / 2)
            else:
                values.append(functional_value(name, other))
        assert math.isclose((values[0] - values[1]) / (2 * h), gradient[index], abs_tol=1e-8)


def test_values_agree_with_the_tree_functions():
    (prompt,) = random_prompts(1, 1, eos=None, horizon=3, vocab=2)
    problem = TreeProblem([prompt])
    p, q = sequence_log_probs(prompt.log_policy), sequence_log_probs(prompt.log_ref)
    assert np.allclose(problem.log_prob("policy"), p)
    assert np.isclose(functional_value("reverse_kl", problem), np.exp(p) @ (p - q))
    assert np.isclose(functional_value("forward_kl", problem), np.exp(q) @ (q - p))
    assert np.isclose(functional_value("entropy", problem), -np.exp(p) @ p)
    assert np.isclose(problem.success()[0], np.exp(p) @ prompt.tree.reward)
    visits = visit_log_probs(prompt.log_policy)
    frozen = sum(np.exp(d) @ kl for d, kl in zip(visits, node_kl(prompt.log_policy, prompt.log_ref)))
    assert np.isclose(functional_value("reverse_kl(frozen)", problem), frozen)
    assert np.isclose(functional_value("reverse_kl(frozen)", problem), functional_value("reverse_kl", problem))
    assert np.allclose(problem.visits("policy"), np.exp(np.concatenate(list(visits[:-1]))))


def test_eos_leaves_seven_responses_and_three_prefixes():
    problem = TreeProblem(random_prompts(1, 0))
    assert len(problem.reward) == 7
    assert problem.tables["policy"].shape == (3, 3)
    assert sorted(problem.length.tolist()) == [1, 2, 2, 2, 2, 2, 2]
    assert np.isclose(np.exp(problem.log_prob("policy")).sum(), 1)


def tuples_by_brute_force(loss, problem, size):
    """All ordered tuples, one gradient each."""
    table = torch.tensor(problem.tables["policy"], requires_grad=True)
    from klsim.learning.tree_batches import TreeBatches

    made = TreeBatches(problem)
    made.table = table
    p = np.exp(problem.log_prob("behaviour"))
    total = np.zeros(table.shape)
    for rows in itertools.product(range(len(p)), repeat=size):
        out = loss(made.batch(torch.tensor(rows)))[0]
        (g,) = torch.autograd.grad(out, table)
        total += math.prod(p[i] for i in rows) * g.numpy()
    pi = np.exp(problem.tables["policy"])
    return total - pi * total.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("loss", [o.grpo, o.dapo, partial(o.kl_in_loss, estimator="k3")])
def test_multisets_equal_ordered_tuples(loss):
    problem = TreeProblem(random_prompts(1, 3, vocab=2, horizon=2, off_policy=True))
    found = expected_gradient(loss, problem, group_size=3)
    assert found.stderr is None
    assert np.allclose(found.gradient, tuples_by_brute_force(loss, problem, 3), atol=1e-13)


def test_monte_carlo_agrees_within_its_errors():
    problem = TreeProblem(random_prompts(1, 2))
    exact = expected_gradient(o.grpo, problem, group_size=3)
    drawn = expected_gradient(o.grpo, problem, group_size=3, max_batches=0, samples=1500, rng=0)
    assert drawn.batches == 1500
    z = (drawn.gradient - exact.gradient) / np.where(drawn.stderr > 0, drawn.stderr, 1)
    assert np.abs(z).max() < 4.5
    assert math.isclose(drawn.value, exact.value, abs_tol=0.1)
    again = expected_gradient(o.grpo, problem, group_size=3, max_batches=0, samples=50, rng=7)
    same = expected_gradient(o.grpo, problem, group_size=3, max_batches=0, samples=50, rng=7)
    assert np.array_equal(again.gradient, same.gradient)


def test_the_standard_error_of_two_draws_by_hand():
    """Half their distance: of the gradients ``e_i - pi`` in the logits of REINFORCE with the rewards 1."""
    level = (np.log([[0.3, 0.7]]),)
    problem = TreeProblem([PromptTree(TokenTree(2, 1, [1.0, 1.0]), level)])
    means = set()
    for seed in range(10):
        found = expected_gradient(
            lambda b: b.log_probs.sum(), problem, group_size=1, max_batches=0, samples=2, rng=seed
        )
        first = np.round(found.gradient[0, 0] + 0.3, 12)  # the share of draws of response 0
        np.testing.assert_allclose(found.stderr, 0.5 if first == 0.5 else 0.0, atol=1e-15)
        means.add(float(first))
    assert means == {0.0, 0.5, 1.0}


def test_zero_probability_responses_are_never_drawn():
    with np.errstate(divide="ignore"):
        level = np.log([[0.5, 0.5, 0.0]])
    tree = TokenTree(3, 1, [1.0, 0.0, 1.0])
    policy = (log_normalize(np.array([[0.0, 1.0, 2.0]])),)
    prompt = PromptTree(tree, policy, log_behaviour=(level,))
    found = expected_gradient(partial(o.reinforce, ratio=o.policy_gradient.token_ratio), [prompt], group_size=1)
    assert found.batches == 2


def test_explain_finds_the_combination_and_says_when_it_cannot():
    problems = [TreeProblem(random_prompts(1, seed)) for seed in range(4)]
    mixed = [0.5 * functional_gradient("reward", p) - 2 * functional_gradient("js(frozen)", p) for p in problems]
    found = explain(mixed, problems, ["reward", "js(frozen)", "entropy"])
    assert found.identifiable
    assert found.residual < 1e-12
    assert np.allclose(list(found.coefficients.values()), [0.5, -2, 0], atol=1e-10)
    assert explain(mixed, problems, ["reward"]).residual > 0.1
    assert not explain(mixed, problems, ["reward", "reward"]).identifiable
    nothing = explain([np.zeros_like(g) for g in mixed], problems, ["reward"])
    assert (nothing.coefficients, nothing.residual) == ({"reward": 0.0}, 0.0)


def test_bad_losses():
    problem = TreeProblem(random_prompts(1, 0))
    with pytest.raises(ValueError, match="depends on the order"):
        expected_gradient(lambda b: (b.log_probs[:, 0] * torch.tensor([1.0, 2.0])).sum(), problem)
    with pytest.raises(TypeError, match="scalar torch tensor"):
        expected_gradient(lambda b: b.log_probs, problem)
    with pytest.raises(TypeError, match="scalar torch tensor"):
        expected_gradient(lambda b: 1.0, problem)
    with pytest.raises(ValueError, match="its gradient is nan"):
        expected_gradient(lambda b: (b.log_probs * 0).sum().sqrt() * 0, problem)
    constant = expected_gradient(lambda b: b.rewards.mean() + 0 * b.log_probs.sum().detach(), problem)
    assert np.all(constant.gradient == 0)


def test_bad_problems():
    (prompt,) = random_prompts(1, 0)
    with pytest.raises(ValueError, match="log_ref: must be one tree"):
        replace(prompt, log_ref=prompt.log_ref[:1])
    with pytest.raises(ValueError, match="prefix: must be shorter"):
        replace(prompt, prefix=(1, 1))
    with pytest.raises(ValueError, match="prefix: must be shorter"):
        replace(prompt, prefix=(0,))
    with pytest.raises(ValueError, match="at least one PromptTree"):
        TreeProblem([])
    with pytest.raises(ValueError, match="must share vocabulary"):
        TreeProblem([prompt, random_prompts(1, 0, vocab=2)[0]])
    with pytest.raises(ValueError, match="no log_external"):
        expected_gradient(o.sft, [prompt], external=1)
    for name in ("nonsense", "reward(nonsense)", "reverse_kl(student)"):
        with pytest.raises(ValueError, match="functional"):
            functional_value(name, [prompt])
    with pytest.raises(ValueError, match="prompt"):
        functional_value("reward@3", [prompt])


def test_near_policies_are_the_reference_plus_noise_of_that_size():
    (same,) = random_prompts(1, 2, off_policy=True, near=0.0)
    for mine, reference in zip(same.log_policy, same.log_ref, strict=True):
        np.testing.assert_allclose(mine, reference, atol=1e-14)
    (close,) = random_prompts(1, 2, near=1e-6)
    apart = max(np.max(np.abs(a - b)) for a, b in zip(close.log_policy, close.log_ref, strict=True))
    assert 1e-8 < apart < 2e-5


def test_masked_positions_hold_zero():
    problem = TreeProblem(random_prompts(2, 0, vocab=3, horizon=3))
    assert not problem.mask.all()
    assert not problem.tokens[~problem.mask].any()
    assert not problem.nodes[~problem.mask].any()


def test_external_responses_are_flagged():
    """``-log pi`` of the external ones alone: two of each of two prompts, so the gradient is ``2 (pi - external)``."""
    prompts = [replace(p, log_external=tuple(np.log(q) for q in levels)) for p, levels in zip(
        random_prompts(2, 5, vocab=2, horizon=1, eos=None), ([[[0.9, 0.1]]], [[[0.4, 0.6]]]), strict=True
    )]  # fmt: skip
    problem = TreeProblem(prompts)

    def loss(batch):
        return -(batch.log_probs.sum(1) * batch.external).sum()

    found = expected_gradient(loss, problem, group_size=1, external=2)
    policy, other = problem.tables["policy"], np.exp(problem.tables["external"])
    np.testing.assert_allclose(found.gradient, 2 * (np.exp(policy) - other), atol=1e-12)
    assert found.value == pytest.approx(-2 * (other * policy).sum(), rel=1e-12)


def test_descending_needs_no_external_responses():
    """By default nobody else writes responses: one step is the natural gradient of the policy's own."""
    problem = TreeProblem(random_prompts(1, 5, vocab=2, horizon=1, eos=None))

    def loss(batch):
        return -(batch.total_rewards() * (batch.log_probs * batch.weights).sum(1)).mean()

    (moved,) = descend(loss, problem, steps=1, lr=1e-3)
    start = problem.tables["policy"]
    step = 1e-3 * expected_gradient(loss, problem, group_size=2).gradient / np.exp(start)
    np.testing.assert_allclose(moved, log_normalize(start - step), atol=1e-12)


@pytest.mark.parametrize(("deep", "horizon"), [(False, 2), (True, 3)])
def test_objectives_are_searched_on_responses_of_two_tokens_and_of_three(deep, horizon):
    assert all(prompt.tree.horizon == horizon for prompt in prompts_for(OBJECTIVES["reinforce"], 0, deep=deep))
