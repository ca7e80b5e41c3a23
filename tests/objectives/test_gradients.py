"""The promise: the expected gradient of every objective on enumerated token trees is what it claims to be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from klsim.learning import TreeProblem, expected_gradient, functional_gradient
from klsim.learning.objective_checks import check_gradient, end_point, problem_for
from klsim.objectives.registry import OBJECTIVES

SEEDS = range(20)
CLAIMED = [name for name, objective in OBJECTIVES.items() if objective.population is not None]
OFF_POLICY = [name for name, objective in OBJECTIVES.items() if objective.off_policy is not None]
BIASED = [name for name, objective in OBJECTIVES.items() if objective.population is None]


@pytest.mark.parametrize("name", CLAIMED)
def test_on_policy_claim(name):
    check = check_gradient(OBJECTIVES[name], seeds=SEEDS)
    assert check.error < 1e-10, check


@pytest.mark.parametrize("name", OFF_POLICY)
def test_off_policy_claim(name):
    check = check_gradient(OBJECTIVES[name], seeds=SEEDS, off_policy=True)
    assert check.error < 1e-10, check


@pytest.mark.parametrize("name", BIASED)
def test_a_stated_bias_is_there(name):
    objective = OBJECTIVES[name]
    assert objective.bias
    check = check_gradient(objective, seeds=SEEDS)
    named_since = {
        "k2(frozen)",
        "k2_ref(frozen)",
        "forward_kl(teacher, frozen, mode)",
    }  # exact, and not what it estimates
    assert check.found.residual > 0.005 or set(check.found.coefficients) <= named_since, check


NOT_OFF_POLICY = (
    "grpo",
    "dr_grpo",
    "k2 in the loss",
    "k3 in the loss",
    "rapo, score",
    "rover",
    "rloo + k2 in the loss",
)


@pytest.mark.parametrize("name", NOT_OFF_POLICY)
def test_on_policy_claims_fail_off_policy_where_none_is_made(name):
    """The control of the tests above: another behaviour policy, and the same claim is wrong."""
    from dataclasses import replace

    false = replace(OBJECTIVES[name], off_policy="same")
    assert check_gradient(false, seeds=range(4), off_policy=True).error > 1e-3


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("k3 in the loss", {"reverse_kl(frozen)": 1.0}),
        ("k2 in the loss", {"reverse_kl": 1.0}),
        ("grpo", {"reward": -1.0}),
        ("g_opd, discount 1", {"reverse_kl(teacher, frozen)": 1.25, "reverse_kl(frozen)": -0.25}),
        ("dph_rl js", {"js": 1.0}),
        ("salsa", {"reward": -1.0}),
        ("rloo + k1 in the reward", {"reward": -1.0, "reverse_kl(frozen)": 0.3}),
    ],
)
def test_near_claims_are_refuted(name, wrong):
    from dataclasses import replace

    assert check_gradient(replace(OBJECTIVES[name], population=lambda s: wrong), seeds=range(3)).error > 1e-3


def test_token_mean_bias_shrinks_with_the_batch():
    """DAPO on variable lengths tends to -w grad E[r]/E|y|; the distance falls as the group grows."""
    objective = OBJECTIVES["dapo, variable lengths"]
    problem, _ = problem_for(objective, 3)
    from functools import partial

    from klsim.objectives import fixed_length, surrogate, token_mean

    def centred(batch, aggregate):
        return surrogate(batch, batch.total_rewards() - float(problem.success()[0]), aggregate=aggregate)

    mean_length = float(np.exp(problem.log_prob("policy")) @ problem.length)
    limit = -functional_gradient("reward", problem) / mean_length
    gaps = [
        np.abs(expected_gradient(partial(centred, aggregate=token_mean), problem, group_size=n).gradient - limit).max()
        for n in (1, 2, 3, 4)
    ]
    assert all(a > b for a, b in itertools.pairwise(gaps)), gaps
    exact = expected_gradient(partial(centred, aggregate=fixed_length(mean_length)), problem, group_size=2).gradient
    assert np.allclose(exact, limit, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["rloo + k1 in the reward", "rloo + k2 in the loss", "opd", "g_opd", "g_opd, discount 1"]
)
def test_exact_updates_end_at_the_closed_form_and_not_at_the_other_one(name):
    end = end_point(OBJECTIVES[name], steps=200)
    assert abs(end.distance) < 1e-8
    assert min(abs(d) for d in end.others.values()) > 1e-3


def test_a_reward_gradient_ends_at_the_best_response():
    assert end_point(OBJECTIVES["rloo"], steps=150).distance < 1e-8


def test_end_point_needs_a_closed_form():
    with pytest.raises(ValueError, match="names no closed form"):
        end_point(OBJECTIVES["trrd"])


def test_problem_kinds():
    assert len(problem_for(OBJECTIVES["lite_ppo"], 0)[0].prompts) == 2
    seen, about = problem_for(OBJECTIVES["salsa"], 0)
    assert isinstance(seen, TreeProblem)
    assert not np.allclose(seen.tables["ref"], about.tables["ref"])
    with pytest.raises(ValueError, match="come from the reference"):
        check_gradient(OBJECTIVES["sft"], seeds=[0], off_policy=True)
