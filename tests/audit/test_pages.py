"""The conditions and the exact functionals of docs/objectives.md, measured at horizon 3."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from klsim import objectives as o
from klsim.audit.worlds import Setting, world
from klsim.learning import TreeProblem, expected_gradient, functional_gradient, random_prompts
from klsim.learning.objective_checks import check_gradient, with_default_mean, with_open_clip
from klsim.objectives.advantages import advantages, batch_mean, batch_std, group_mean, group_std, prompt_weights
from klsim.objectives.aggregate import sequence_mean, sequence_sum, token_mean
from klsim.objectives.registry import OBJECTIVES
from klsim.report.objectives import markdown, options_text, weights_table

torch = pytest.importorskip("torch")


def trees(count=1, *, seeds=2, **how):
    how = {"vocab": 2, "horizon": 3, "near": 0.5} | how
    return [TreeProblem(random_prompts(count, 40 + k, **how)) for k in range(seeds)]


def left_over(loss, problem, terms, group=2):
    """Share of the gradient that a combination of functionals leaves."""
    found = expected_gradient(loss, problem, group_size=group).gradient
    wanted = sum((c * functional_gradient(n, problem) for n, c in terms.items()), np.zeros(found.shape))
    return float(np.linalg.norm(found - wanted) / max(np.linalg.norm(found), np.linalg.norm(wanted), 1e-12))


def cosine(loss, problem, name):
    found, other = expected_gradient(loss, problem).gradient, functional_gradient(name, problem)
    return float(np.sum(found * other) / np.linalg.norm(found) / np.linalg.norm(other))


def test_k1_in_the_loss_lengthens_responses_unless_tokens_are_summed():
    k1 = partial(o.kl_in_loss, estimator="k1")
    for problem in trees():
        summed = expected_gradient(partial(k1, aggregate=sequence_sum), problem).gradient
        assert np.abs(summed).max() < 1e-14
        assert left_over(partial(k1, aggregate=sequence_mean), problem, {"inverse_length": 1}) < 1e-12
        assert cosine(partial(k1, aggregate=token_mean), problem, "length") < -0.9  # descending it lengthens
    for problem in trees(eos=None, horizon=2):
        assert np.abs(expected_gradient(partial(k1, aggregate=sequence_mean), problem).gradient).max() < 1e-14


@pytest.mark.parametrize("name", ["k2 in the loss", "k3 in the loss", "gkd, mix 0.5", "opd, summed", "rover, summed"])
def test_claims_about_summed_tokens_fail_with_the_default_means(name):
    objective = OBJECTIVES[name]
    mean = with_default_mean(objective)
    assert mean is not None
    assert check_gradient(objective, seeds=[0, 1], deep=True).holds
    (term,) = [n for n in objective.population(_setting(2)) if n]
    problem = trees(seeds=1)[0]
    found = expected_gradient(mean.loss, problem).gradient
    column = functional_gradient(term, problem)
    best = np.sum(found * column) / np.sum(column**2)
    assert np.linalg.norm(found - best * column) / np.linalg.norm(found) > 0.03


def _setting(group):
    from klsim.objectives.registry import Setting as Conditions

    return Conditions(group, np.array([0.5]), 3, lambda name: 0.1)


EXACT_ON_POLICY = {
    "hard cross-entropy": {"forward_kl(teacher, frozen, mode)": 1},
    "rho k2 in the loss": {"k2(frozen)": 1},
    "rapo, back-propagated": {"k2_ref(frozen)": 1},
}
EXACT_OFF_POLICY = {
    "k1 in the loss": {"forward_kl(old)": -1},
    "k2 in the loss": {"reverse_kl(sampled)": 1},
    "k3 in the loss": {"forward_kl(sampled)": 1},
}


@pytest.mark.parametrize("name", EXACT_ON_POLICY)
def test_exact_functionals(name):
    for problem in trees(vocab=3, horizon=2):
        assert left_over(OBJECTIVES[name].loss, problem, EXACT_ON_POLICY[name]) < 1e-12
    found = check_gradient(replace(OBJECTIVES[name], population=None), seeds=range(8)).found
    assert found.exact
    assert found.coefficients == pytest.approx(EXACT_ON_POLICY[name], rel=1e-9)


@pytest.mark.parametrize("name", EXACT_OFF_POLICY)
def test_exact_functionals_off_policy(name):
    for problem in trees(off_policy=True):
        assert left_over(OBJECTIVES[name].loss, problem, EXACT_OFF_POLICY[name]) < 1e-12


def test_grpo_with_graded_rewards_and_groups_of_two_is_the_win_rate():
    for problem in trees(binary=False):
        assert left_over(o.grpo, problem, {"sequence_mean(win_rate)": -2}) < 1e-12


def test_prefix_rl_off_policy():
    """Exact with one free token, biased with two."""
    objective = OBJECTIVES["prefix_rl"]

    def left(horizon):
        (prompt,) = random_prompts(1, 3, vocab=2, horizon=horizon, off_policy=True)
        return left_over(objective.loss, TreeProblem([replace(prompt, prefix=(1,))]), {"reward": -0.5})

    assert left(2) < 1e-12
    assert left(3) > 0.2


def test_with_the_clip_open():
    g_opd = with_open_clip(OBJECTIVES["g_opd, summed"])
    assert with_open_clip(OBJECTIVES["rloo"]) is None  # it is open
    for problem in trees(off_policy=True, near=None, horizon=2, vocab=3):
        claim = OBJECTIVES["g_opd, summed"].population(_setting(2))
        assert left_over(g_opd.loss, problem, claim) < 1e-12
        assert left_over(OBJECTIVES["g_opd, summed"].loss, problem, claim) > 0.1


@pytest.mark.parametrize("name", ["sngs", "difficulty filtering"])
def test_what_cannot_act_in_groups_of_three_acts_in_groups_of_four(name):
    weight = {
        group: [
            -sum(OBJECTIVES[name].population(replace(_setting(group), success=np.array([p]))).values())
            for p in (0.1, 0.3, 0.5)
        ]
        for group in (3, 4)
    }
    grpo = {g: [prompt_weights(partial(advantages, baseline=group_mean, scale=group_std), p, g)[0]
                for p in (0.1, 0.3, 0.5)] for g in (3, 4)}  # fmt: skip
    assert np.allclose(weight[3], grpo[3])
    assert np.allclose(weight[3], math.sqrt(2))
    assert not np.allclose(weight[4], grpo[4], rtol=0.01)
    assert check_gradient(OBJECTIVES[name], seeds=[0], deep=True).holds


def test_dropping_degenerate_groups_couples_prompts():
    """With two prompts and groups of 3: w/2 (1 + P(the other group is degenerate)) by the mean over T tokens."""
    prompts = random_prompts(2, 8, vocab=2, horizon=1, eos=None)
    problem = TreeProblem(prompts)
    p = problem.success()
    degenerate = p**3 + (1 - p) ** 3
    w = [prompt_weights(partial(advantages, baseline=group_mean, scale=group_std), q, 3)[0] for q in p]
    # functionals are means over prompts, reward@q is that of one
    terms = {f"reward@{q}": -w[q] / 2 * (1 + degenerate[1 - q]) for q in (0, 1)}
    assert left_over(o.dapo, problem, terms, group=3) < 1e-12


def test_dr_grpo_needs_a_constant_maximal_length():
    def loss(batch):
        return o.dr_grpo(batch.validated())[0]

    def constant(batch):
        return o.dr_grpo(batch.validated(), max_length=3)[0]

    cut = world("trimmed", Setting())
    assert np.linalg.norm(constant_gap(cut, constant)) < 1e-12 * cut.unit
    assert np.linalg.norm(constant_gap(cut, loss)) > 0.01 * cut.unit


def constant_gap(here, loss):
    column = here.column("reward")
    found = here.gradient(loss)
    return found - (found @ column) / (column @ column) * column


def test_collinear_functionals_are_not_both_named():
    objective = replace(OBJECTIVES["dapo"], population=None)
    found = check_gradient(objective, seeds=range(6)).found
    assert not {"reward", "reward_per_token"} <= set(found.coefficients)


def test_weights_of_estimators_that_normalise_over_the_batch():
    ratio = {
        name: [np.divide(*prompt_weights(estimator, (0.1, 0.5), size)) for size in (4, 8)]
        for name, estimator in {
            "whitened": partial(advantages, baseline=batch_mean, scale=batch_std),
            "lite_ppo": partial(advantages, baseline=group_mean, scale=batch_std),
        }.items()
    }
    assert np.round(ratio["whitened"], 2).tolist() == [0.97, 0.98]
    assert np.round(ratio["lite_ppo"], 2).tolist() == [0.93, 0.96]
    assert "| reinforce_pp | 0.97 | 0.98 |" in weights_table()
    assert "| reinforce_pp, group baseline | 0.85 | 0.89 |" in weights_table()


def test_k3_is_not_the_forward_kl_of_sequences():
    loss = OBJECTIVES["k3 in the loss"].loss
    for problem in trees(near=None, vocab=3, horizon=2):
        found, column = expected_gradient(loss, problem).gradient, functional_gradient("forward_kl", problem)
        best = np.sum(found * column) / np.sum(column**2)
        assert np.linalg.norm(found - best * column) / np.linalg.norm(found) > 0.3
        assert left_over(loss, problem, {"forward_kl(frozen)": 1}) < 1e-12


def test_rows_print_their_conditions():
    from klsim.report.objectives import measure

    text = markdown(measure(["dapo", "opd, summed"], seeds=2))
    assert "binary rewards, 2 tokens, groups of 3 |" in text  # one prompt is not counted
    assert "opd, summed, sequence mean" in text or "opd, summed, token mean" in text
    assert "aggregate=sequence_sum" in text
    assert "clip: (0.2, 0.28)" in options_text(OBJECTIVES["dapo"])
