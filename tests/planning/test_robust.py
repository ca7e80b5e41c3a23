"""Worst cases, robust values and pessimistic value iteration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from klsim.optima import worst_case
from klsim.planning import evaluate, pessimistic_values, robust_values, worst_case_regression
from klsim.problems import LinearMDP, TabularMDP, Transitions, sample_transitions


def linear(seed, states=4, actions=3, latent=3, horizon=3):
    rng = np.random.default_rng(seed)
    return LinearMDP(
        rng.dirichlet(np.ones(latent), (states, actions)), rng.dirichlet(np.ones(states), (horizon, latent)),
        rng.uniform(0, 1, (horizon, latent)), rng.dirichlet(np.ones(states)),
    )  # fmt: skip


@pytest.mark.parametrize("lam", [1e-12, 1e-3, 0.7, 1e3, 1e12])
@pytest.mark.parametrize("generator", ["tv", "kl", "chi2", "js", "forward_kl", "hellinger"])
def test_worst_case_lies_between_minimum_and_mean(lam, generator):
    rng = np.random.default_rng(0)
    mu = rng.dirichlet(np.ones(6), 5)
    value = rng.standard_normal((5, 6))
    found = worst_case(np.log(mu), value, lam, generator)
    assert np.all(found >= value.min(axis=1) - 1e-9)
    assert np.all(found <= np.sum(mu * value, axis=1) + 1e-9)
    if lam >= 1e12:
        assert np.allclose(found, np.sum(mu * value, axis=1))
    if lam <= 1e-12:
        assert np.allclose(found, value.min(axis=1), atol=1e-9)


def test_tv_may_leave_the_support_and_kl_may_not():
    with np.errstate(divide="ignore"):
        log_mu = np.log([0.5, 0.5, 0.0])
    value = np.array([1.0, 2.0, 0.0])
    assert worst_case(log_mu, value, 0.25, "tv") == pytest.approx(0.25)
    assert worst_case(log_mu, value, 1e-9, "kl") == pytest.approx(1.0, abs=1e-8)
    assert worst_case([0.0], [3.0], 1.0, "chi2") == pytest.approx(3.0)


def test_extreme_rewards():
    mu = np.log([0.25, 0.75])
    for scale in (1e-8, 1e8):
        for generator in ("tv", "kl", "chi2"):
            unit = worst_case(mu, [1.0, 2.0], 0.5, generator)
            assert worst_case(mu, [scale, 2 * scale], 0.5 * scale, generator) == pytest.approx(scale * unit, rel=1e-10)


def test_recursion_by_linear_programming():
    problem = linear(1, horizon=2)
    found = robust_values(problem, 0.2, "tv")
    value = (problem.features @ problem.theta[1]).max(axis=1)
    worst = []
    for mu in problem.factors[0]:
        n = len(mu)
        eye = np.eye(n)
        worst.append(
            linprog(np.concatenate([value, np.full(n, 0.1)]), A_ub=np.block([[eye, -eye], [-eye, -eye]]),
                    b_ub=np.concatenate([mu, -mu]), A_eq=np.concatenate([np.ones(n), np.zeros(n)])[None], b_eq=[1.0]).fun
        )  # fmt: skip
    expected = (problem.features @ (problem.theta[0] + np.array(worst))).max(axis=1)
    assert np.allclose(found.value[0], expected)
    assert np.allclose(found.factor_value[0], worst)


def test_large_price_is_the_nominal_problem():
    problem = linear(2)
    found = robust_values(problem, 1e9, "kl")
    with np.errstate(divide="ignore"):
        policy = np.log(np.eye(3)[found.policy])
    assert float(problem.initial @ found.value[0]) == pytest.approx(float(evaluate(problem.tabular(), policy).reward))
    assert np.allclose(robust_values(problem.tabular(), 1e9, "kl").value, found.value)
    assert np.allclose(robust_values(problem, 1e9, "kl", policy=found.policy).value, found.value)


def test_linear_mdp_is_its_tabular_form():
    problem = linear(3)
    table = problem.tabular()
    assert problem.shape == table.shape == (3, 4, 3)
    assert np.allclose(table.transition.sum(axis=-1), 1)
    s, a = 2, 1
    assert np.allclose(table.transition[1, s, a], problem.features[s, a] @ problem.factors[1])


def test_transitions():
    problem = linear(4).tabular()
    data = sample_transitions(problem, 4000, 0)
    again = sample_transitions(problem, 4000, 0)
    assert np.array_equal(data.next_state, again.next_state)
    assert np.array_equal(data.next_state[0], data.state[1])
    counts = data.counts(4, 3)
    assert counts.sum() == 3 * 4000
    first = counts[0].sum(axis=1) / 4000
    assert np.abs(first - problem.initial).max() < 5 * 0.5 / np.sqrt(4000)
    law = np.zeros(12)
    law[5] = 1.0
    with np.errstate(divide="ignore"):
        single = sample_transitions(problem, 50, 1, log_pairs=np.log(law))
    assert np.all(single.state == 1)
    assert np.all(single.action == 2)
    assert np.allclose(single.reward[1], problem.reward[1, 1, 2])


def test_much_data_recovers_the_robust_values():
    problem = linear(5)
    pairs = np.full(12, -np.log(12))
    data = sample_transitions(problem.tabular(), 200_000, 0, log_pairs=pairs)
    for divergence in ("tv", "kl", "chi2"):
        run = pessimistic_values(problem, data, 0.5, divergence, beta=0.0, reg=1e-6)
        assert np.abs(run.value - robust_values(problem, 0.5, divergence).value).max() < 0.02
    plain = pessimistic_values(problem, data, 1.0, "none", beta=0.0, reg=1e-6)
    assert np.abs(plain.value - robust_values(problem, 1e9, "kl").value).max() < 0.02


def test_penalties_and_clips():
    problem = linear(6)
    data = sample_transitions(problem.tabular(), 20, 0)
    theory = pessimistic_values(problem, data, 1.0, "tv", beta=0.3, reg=1.0)
    released = pessimistic_values(problem, data, 1.0, "tv", beta=0.3, reg=1.0, penalty="l2", minimum="observed")
    assert np.all(released.bonus <= theory.bonus + 1e-12)
    free = pessimistic_values(problem, data, 1.0, "tv", beta=50.0, reg=1.0, lower_clip=False)
    assert free.value.min() < 0 <= pessimistic_values(problem, data, 1.0, "tv", beta=50.0, reg=1.0).value.min()
    assert np.all(theory.q_value <= 3)


def test_centring_matters_under_ridge():
    rows = np.eye(2)[np.array([0] * 5 + [1] * 5)]
    inverse = np.linalg.inv(rows.T @ rows + np.eye(2))
    value = np.full(10, 0.5)
    options = {"lowest": 0.5, "highest": 3.0}
    centred = worst_case_regression(rows, inverse, value, 50.0, "kl", **options)
    plain = worst_case_regression(rows, inverse, value, 50.0, "kl", centred=False, **options)
    assert np.allclose(centred, 0.5 * 5 / 6, atol=1e-3)
    assert np.all(plain > 2.9)


def test_bad_input():
    problem = linear(7)
    data = sample_transitions(problem.tabular(), 5, 0)
    with pytest.raises(ValueError, match="lam"):
        robust_values(problem, 0.0, "kl")
    with pytest.raises(ValueError, match="policy: must have shape"):
        robust_values(problem, 1.0, "kl", policy=np.zeros((2, 4), dtype=int))
    with pytest.raises(ValueError, match=r"policy\[0, 0\] = 3"):
        robust_values(problem, 1.0, "kl", policy=np.full((3, 4), 3))
    with pytest.raises(ValueError, match="divergence"):
        pessimistic_values(problem, data, 1.0, "js", beta=0.1, reg=1.0)
    with pytest.raises(ValueError, match="data: needs 3 steps"):
        pessimistic_values(problem, Transitions(*(x[:1] for x in (data.state, data.action, data.reward, data.next_state))),
                           1.0, "tv", beta=0.1, reg=1.0)  # fmt: skip
    with pytest.raises(ValueError, match="state"):
        Transitions(data.state, data.action[:, :2], data.reward, data.next_state)
    with pytest.raises(ValueError, match="not both"):
        sample_transitions(problem.tabular(), 5, 0, log_behaviour=np.zeros((4, 3)), log_pairs=np.zeros(12))
    with pytest.raises(ValueError, match="features"):
        LinearMDP(np.ones((2, 2, 2)), problem.factors, problem.theta, problem.initial)
    with pytest.raises(ValueError, match="factors: must be"):
        LinearMDP(problem.features, problem.factors[:2], problem.theta, problem.initial)
    with pytest.raises(ValueError, match="penalty"):
        worst_case(np.log([0.5, 0.5]), [1.0, 2.0], -1.0, "kl")
    assert isinstance(problem.tabular(), TabularMDP)


def test_the_two_penalties_by_hand():
    """``sum_i phi_i sqrt((L^-1)_ii)``, and the released code's ``sqrt(phi^2 . diag(L^-1))``."""
    problem = linear(4)
    data = sample_transitions(problem.tabular(), 20, 0)
    phi = problem.features
    for penalty in ("sum", "l2"):
        found = pessimistic_values(problem, data, 1.0, "none", beta=0.3, reg=1.0, penalty=penalty)
        for h in range(problem.horizon):
            rows = phi[data.state[h], data.action[h]]
            spread = np.diag(np.linalg.inv(rows.T @ rows + np.eye(phi.shape[-1])))
            by_hand = phi @ np.sqrt(spread) if penalty == "sum" else np.sqrt(phi**2 @ spread)
            np.testing.assert_allclose(found.bonus[h], 0.3 * by_hand, rtol=1e-10)
