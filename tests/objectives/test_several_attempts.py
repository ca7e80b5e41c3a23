"""max@k, pass@k and MaxRL: the advantages against enumeration, the gradients against the objective itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from klsim import objectives as o
from klsim.learning import TreeProblem, expected_gradient, random_prompts
from klsim.objectives import TokenBatch
from klsim.objectives.several_attempts import best_of_others


def by_subsets(rewards, k, baseline):
    """The definition: sums over all sets."""
    n = len(rewards)
    out = np.zeros(n)
    for i in range(n):
        others = [rewards[j] for j in range(n) if j != i]
        out[i] = np.mean([max((rewards[i], *chosen)) for chosen in itertools.combinations(others, k - 1)])
        if baseline == "leave_one_out":
            out[i] -= np.mean([max(chosen) for chosen in itertools.combinations(others, k)])
        elif baseline == "without_it":
            out[i] -= np.mean([max(chosen) for chosen in itertools.combinations(others, k - 1)])
        elif baseline == "group":
            out[i] -= np.mean([max(chosen) for chosen in itertools.combinations(rewards, k)])
    return k * out


@pytest.mark.parametrize("baseline", ["none", "leave_one_out", "without_it", "group"])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_advantages_are_means_over_all_sets(k, baseline):
    if (baseline, k) == ("without_it", 1):
        with pytest.raises(ValueError, match="needs k > 1"):
            o.max_at_k_advantages(np.ones(4), np.zeros(4, dtype=int), k=1)
        return
    rng = np.random.default_rng(k)
    first, second = rng.standard_normal(5), np.round(rng.standard_normal(6))  # the second has ties
    rewards = np.empty(11)
    group = np.array([4, 9, 4, 9, 9, 4, 9, 9, 4, 4, 9])
    rewards[group == 4], rewards[group == 9] = first, second
    found = o.max_at_k_advantages(rewards, group, k=k, baseline=baseline)
    assert np.allclose(found[group == 4], by_subsets(first, k, baseline), atol=1e-13)
    assert np.allclose(found[group == 9], by_subsets(second, k, baseline), atol=1e-13)
    in_torch = o.max_at_k_advantages(torch.tensor(rewards), torch.tensor(group), k=k, baseline=baseline)
    assert np.allclose(in_torch.numpy(), found, atol=1e-14)


def test_by_hand():
    rewards, group = np.array([3.0, 1.0, 2.0]), np.zeros(3, dtype=int)
    # k = 2, others' single best: (1+2)/2, (3+2)/2, (3+1)/2; with it: 3, (3+2)/2, (3+2)/2
    assert np.allclose(o.max_at_k_advantages(rewards, group), [2 * (3 - 1.5), 0, 2 * (2.5 - 2)])
    assert np.allclose(o.max_at_k_advantages(rewards, group, k=3), [3 * (3 - 2), 0, 0])  # best less second
    assert np.allclose(best_of_others(rewards, group, 2), [2, 3, 3])
    rloo = o.max_at_k_advantages(rewards, group, k=1, baseline="leave_one_out")
    assert np.allclose(rloo, o.advantages(rewards, group, baseline=o.leave_one_out_mean))
    assert np.allclose(o.max_at_k_advantages(rewards, group, k=3, baseline="group"), 0)


def test_pass_at_k_training_by_hand():
    rewards, group = np.array([1.0, 0, 0, 0]), np.zeros(4, dtype=int)
    rate = 1 - math.comb(3, 2) / math.comb(4, 2)
    spread = math.sqrt(rate * (1 - rate))
    wrong = (1 - rate - math.comb(2, 1) / math.comb(3, 1)) / spread
    assert np.allclose(o.pass_at_k_advantages(rewards, group, k=2), [(1 - rate) / spread, wrong, wrong, wrong])
    assert np.all(o.pass_at_k_advantages(rewards, group, k=4) == 0)
    assert np.allclose(
        o.pass_at_k_advantages(rewards, group, k=1), o.advantages(rewards, group, scale=o.group_std), atol=1e-14
    )
    with pytest.raises(ValueError, match=r"rewards\[0\] = 2.0: must be 0 or 1"):
        o.pass_at_k_advantages(2 * rewards, group, k=2)


def test_maxrl_by_hand():
    rewards, group = np.array([1.0, 0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2, 2])
    assert np.allclose(o.maxrl_advantages(rewards, group), [1, -1, 0, 0, 0, 0])
    assert np.allclose(o.maxrl_advantages(rewards, group, centred=False), [2, 0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"rewards\[1\] = -1.0"):
        o.maxrl_advantages(np.array([1.0, -1.0]), np.zeros(2, dtype=int))


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("baseline", ["none", "without_it"])
def test_gradient_of_max_at_k_with_graded_rewards(k, baseline):
    """Against autograd through E[max of k], a sum over all k-tuples of responses."""
    problem = TreeProblem(random_prompts(1, 7, binary=False))
    found = expected_gradient(lambda b: o.max_at_k(b, k=k, baseline=baseline), problem, group_size=3).gradient
    logits = torch.tensor(problem.tables["policy"], requires_grad=True)
    table = torch.log_softmax(logits, dim=-1)
    steps = torch.where(
        torch.tensor(problem.mask), table[torch.tensor(problem.nodes), torch.tensor(problem.tokens)], 0.0
    )
    p = steps.sum(dim=1).exp()
    total = sum(
        math.prod([p[i] for i in rows]) * max(problem.reward[i] for i in rows)
        for rows in itertools.product(range(len(p)), repeat=k)
    )
    (expected,) = torch.autograd.grad(-total, logits)
    assert np.allclose(found, expected.numpy(), atol=1e-12)


def test_what_a_group_is_too_small_for():
    made = TokenBatch(np.zeros((3, 1)) - 1, rewards=[1.0, 0.0, 1.0], group=[5, 5, 5])
    with pytest.raises(ValueError, match=r"group\[0\] = 5: k = 4 with baseline 'without_it' needs 4 responses"):
        o.max_at_k(made, k=4)
    with pytest.raises(ValueError, match="needs 4 responses, this group has 3"):
        o.max_at_k(made, k=3, baseline="leave_one_out")
    with pytest.raises(ValueError, match="k"):
        o.max_at_k(made, k=0)
    with pytest.raises(ValueError, match="baseline"):
        o.max_at_k(made, baseline="mean")


def test_large_groups_keep_their_precision():
    rng = np.random.default_rng(0)
    rewards = rng.permutation(np.arange(200.0))
    found = o.max_at_k_advantages(rewards, np.zeros(200, dtype=int), k=100)
    assert np.all(found >= -1e-9)
    assert np.argmax(found) == np.argmax(rewards)
    assert np.isclose(found[np.argmin(rewards)], 0)
