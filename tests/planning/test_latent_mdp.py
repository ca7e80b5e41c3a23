"""Latent MDPs: alpha vectors over all trajectories, optima of all policies, the variance of the return."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from klsim.planning import alpha_vectors, evaluate, return_variance, solve
from klsim.problems import POMDP, LatentMDP, TabularMDP, histories
from klsim.testing import check_problem


def drawn(seed, horizon=3, contexts=2, rewards=(0.0, 1 / 3), concentration=0.5):
    rng = np.random.default_rng(seed)
    laws = [
        (rng.dirichlet(np.full(2, concentration), (2, 2)), rng.choice(rewards, (2, 2)), rng.dirichlet(np.ones(2)))
        for _ in range(contexts)
    ]
    return LatentMDP(rng.dirichlet(np.ones(contexts)), tuple(TabularMDP(p, r, nu, horizon) for p, r, nu in laws))


def levels(problem, seed=0, deterministic=False):
    rng, tree = np.random.default_rng(seed), histories(problem)
    if deterministic:
        return tuple(np.where(np.arange(2) == rng.integers(2, size=(n, 1)), 0.0, -np.inf) for n in tree.sizes)
    return tuple(np.log(rng.dirichlet(np.ones(2), n)) for n in tree.sizes)


def returns(problem, policy):
    """``(chance, m, s_1, return, log-ratio to uniform)`` of every episode."""
    tree = histories(problem)
    rows = [
        {(tuple(s), tuple(a), tuple(r)): n for n, (s, a, r) in enumerate(zip(*(x[t].tolist() for x in
         (tree.states, tree.actions, tree.rewards))))} for t in range(problem.horizon)
    ]  # fmt: skip
    out = []

    def go(m, chance, states, actions, rewards):
        t = len(actions)
        for a in range(2):
            p = np.exp(policy[t][rows[t][states, actions, rewards], a])
            r = float(problem.reward[m, t, states[-1], a])
            if not p:
                continue
            done = (*actions, a), (*rewards, r)
            if t + 1 == problem.horizon:
                out.append((chance * p, m, states[0], sum(done[1])))
                continue
            for s, q in enumerate(problem.transition[m, t, states[-1], a]):
                if q:
                    go(m, chance * p * q, (*states, s), *done)

    for m, s in itertools.product(range(len(problem.contexts)), range(2)):
        go(m, problem.weights[m] * problem.initial[m, s], (s,), (), ())
    return [np.array(x) for x in zip(*out)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("deterministic", [False, True])
def test_alpha_vectors_and_variance_over_all_episodes(seed, deterministic):
    problem = drawn(seed, contexts=3)
    policy = levels(problem, seed, deterministic)
    chance, context, start, total = returns(problem, policy)
    alpha, _ = alpha_vectors(problem, policy)
    tree = histories(problem)
    for n, s in enumerate(tree.states[0][:, 0]):
        for m in range(3):
            mine = (context == m) & (start == s)
            assert alpha[0][n, m] == pytest.approx(chance[mine] @ total[mine] / chance[mine].sum(), abs=1e-14)
    assert evaluate(problem, policy).value == pytest.approx(chance @ total, abs=1e-14)
    parts = return_variance(problem, policy)
    assert parts.total == pytest.approx(chance @ (total - chance @ total) ** 2, abs=1e-14)
    assert np.all(parts.action == 0) == deterministic


def test_a_policy_of_the_state_agrees_with_its_levels():
    problem = drawn(5)
    policy = np.log(np.random.default_rng(1).dirichlet(np.ones(2), (3, 2)))
    ref = np.log(np.random.default_rng(2).dirichlet(np.ones(2), (3, 2)))
    tree = histories(problem)
    as_levels = tuple(policy[t, s[:, -1]] for t, s in enumerate(tree.states))
    short, long = evaluate(problem, policy, ref, 0.3), evaluate(problem, as_levels, ref, 0.3)
    assert (short.value, short.reward, short.kl) == pytest.approx((long.value, long.reward, long.kl), abs=1e-14)
    first = short.state_value[:, 0][:, tree.states[0][:, 0]].T
    np.testing.assert_allclose(first, long.state_value[1], atol=1e-14)
    a, b = return_variance(problem, policy), return_variance(problem, as_levels)
    np.testing.assert_allclose([a.start, *a.transition, *a.action], [b.start, *b.transition, *b.action], atol=1e-15)


def test_one_context_is_a_tabular_problem():
    problem = LatentMDP(np.ones(1), drawn(0).contexts[:1])
    for beta in (0.0, 0.1, 2.0):
        found, tabular = solve(problem, None, beta), solve(problem.contexts[0], None, beta)
        states = histories(problem).states
        for t in range(3):
            np.testing.assert_allclose(found.value[t + 1], tabular.value[t, states[t][:, -1]], atol=1e-14)
            np.testing.assert_allclose(found.q_value[t], tabular.q_value[t, states[t][:, -1]], atol=1e-14)


def exact_optimum(problem):
    """The unnormalised recursion in rational numbers."""
    w, nu, p, r = ([Fraction(float(x)) for x in np.ravel(a)] for a in
                   (problem.weights, problem.initial, problem.transition[:, 0], problem.reward[:, 0]))  # fmt: skip
    count = len(problem.weights)

    def best(t, s, belief):
        if t == problem.horizon:
            return Fraction(0)
        options = []
        for a in range(2):
            pays = [r[(m * 2 + s) * 2 + a] for m in range(count)]
            total = sum((b * x for b, x in zip(belief, pays)), Fraction(0))
            for x, z in itertools.product(sorted(set(pays)), range(2)):
                after = [b * (y == x) * p[((m * 2 + s) * 2 + a) * 2 + z] for m, (b, y) in enumerate(zip(belief, pays))]
                if any(after):
                    total += best(t + 1, z, after)
            options.append(total)
        return max(options)

    return sum((best(0, s, [w[m] * nu[m * 2 + s] for m in range(count)]) for s in range(2)), Fraction(0))


@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_in_rational_numbers(seed):
    problem = drawn(seed, rewards=(0.0, 0.25, 0.5))
    found = solve(problem, None, 0.0)
    value = float(found.value[0][0])
    assert abs(Fraction(value) - exact_optimum(problem)) <= found.error_bound
    assert evaluate(problem, found.log_policy).value == pytest.approx(value, abs=1e-14)


@pytest.mark.parametrize("beta", [0.05, 0.5, 5.0])
def test_no_policy_beats_the_regularised_optimum(beta):
    problem = drawn(7)
    ref = levels(problem, 3)
    found = solve(problem, ref, beta)
    value = float(found.value[0][0])
    assert evaluate(problem, found.log_policy, ref, beta).value == pytest.approx(value, abs=1e-13)
    rng = np.random.default_rng(0)
    for size in (1e-3, 0.1, 1.0):
        moved = [level + size * rng.standard_normal(level.shape) for level in found.log_policy]
        moved = tuple(x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in moved)
        assert evaluate(problem, moved, ref, beta).value < value


def test_extremes():
    problem = drawn(8)
    ref = levels(problem, 4, deterministic=True)
    other = tuple(np.roll(level, 1, axis=1) for level in ref)
    assert evaluate(problem, other, ref, 1.0).value == -np.inf
    assert evaluate(problem, other, ref, 0.0).kl == np.inf
    assert evaluate(problem, ref, ref, np.inf).value == evaluate(problem, ref).value
    rare = LatentMDP(np.array([1 - 1e-300, 1e-300]), problem.contexts)
    assert np.isfinite(solve(rare, None, 0.0).value[0]).all()
    never = LatentMDP(np.array([1.0, 0.0]), problem.contexts)
    assert evaluate(never, levels(never)).value == pytest.approx(
        evaluate(LatentMDP(np.ones(1), problem.contexts[:1]), levels(never)).value
    )


@pytest.mark.parametrize("hidden", [False, True])
def test_as_a_pomdp(hidden):
    """One who never sees the context has a POMDP; the two solvers share nothing but the soft backup."""
    if solve.dispatch(POMDP) is solve.dispatch(object):
        pytest.skip("no solver of POMDPs")
    for seed in range(3):
        mixed = LatentMDP(*(getattr(drawn(seed), name) for name in ("weights", "contexts")), hidden_rewards=hidden)
        for beta in (0.0, 0.2, 3.0):
            found, other = solve(mixed, None, beta), solve(mixed.as_pomdp(), None, beta)
            assert found.value[0] == pytest.approx(other.value[0], abs=1e-13)


def test_the_conformance_of_problems():
    check_problem(drawn(9))
    check_problem(LatentMDP(np.array([0.4, 0.6]), drawn(9).contexts, hidden_rewards=True))


def test_bad_input():
    problem = drawn(0)
    with pytest.raises(ValueError, match="beta"):
        solve(problem, None, -1.0)
    with pytest.raises(ValueError, match="regularizer"):
        solve(problem, None, 1.0, regularizer="entropy")
    with pytest.raises(TypeError, match="problem: must be a LatentMDP"):
        alpha_vectors(problem.contexts[0], levels(problem))
    with pytest.raises(ValueError, match="overflow"):
        solve(drawn(0, rewards=(0.0, 1e308)), None, 0.0)
    with pytest.raises(ValueError, match="must be \\(H, S, A\\)"):
        alpha_vectors(problem, np.zeros((2, 2)))
