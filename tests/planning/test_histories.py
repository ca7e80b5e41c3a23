"""POMDPs: the recursion over histories against enumeration of trajectories, of policies, and alpha vectors."""

import itertools

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.planning import belief_tree, evaluate, history_levels, occupancy, rollouts, solve
from klsim.problems import POMDP, TabularMDP
from klsim.testing import check_problem


def random_pomdp(rng, horizon=3, states=2, actions=2, symbols=2, zeros=False):
    def rows(*shape):
        p = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
        if zeros:
            p = np.where(rng.random(p.shape) < 0.3, 0.0, p) + 1e-300
            p = np.where(p < 1e-200, 0.0, p / p.sum(axis=-1, keepdims=True))
            p[p.sum(axis=-1) == 0, 0] = 1.0
        return p

    return POMDP(
        rows(horizon, states, actions, states),
        rows(horizon, states, symbols),
        rng.standard_normal((horizon, states, actions)),
        rows(states),
        horizon,
    )


def random_levels(problem, rng):
    actions = problem.sizes[2]
    return tuple(log_normalize(rng.standard_normal((problem.histories(t), actions))) for t in range(problem.horizon))


def trajectories(problem):
    """``(states, observations, actions)`` of every trajectory."""
    horizon, states, actions, symbols = problem.sizes
    return itertools.product(*(itertools.product(range(n), repeat=horizon) for n in (states, symbols, actions)))


def by_enumeration(problem, levels, ref=None):
    """Expected reward and KL of a history policy, summed over all trajectories."""
    _, _, actions, symbols = problem.sizes
    reward = cost = 0.0
    for s, o, a in trajectories(problem):
        chance, gain, paid, history = problem.initial[s[0]], 0.0, 0.0, 0
        for t in range(problem.horizon):
            history = (history * actions + a[t - 1]) * symbols + o[t] if t else o[0]
            chance *= problem.emission[t, s[t], o[t]] * np.exp(levels[t][history, a[t]])
            if t < problem.horizon - 1:
                chance *= problem.transition[t, s[t], a[t], s[t + 1]]
            gain += problem.reward[t, s[t], a[t]]
            if ref is not None:
                paid += levels[t][history, a[t]] - ref[t][history, a[t]]
        reward, cost = reward + chance * gain, cost + chance * paid
    return reward, cost


@pytest.mark.parametrize("zeros", [False, True])
def test_evaluation_is_the_sum_over_trajectories(zeros):
    rng = np.random.default_rng(1)
    for _ in range(3):
        problem = random_pomdp(rng, zeros=zeros)
        levels, ref = random_levels(problem, rng), random_levels(problem, rng)
        found = evaluate(problem, levels, ref, 0.7)
        reward, cost = by_enumeration(problem, levels, ref)
        assert found.reward == pytest.approx(reward, abs=1e-13)
        assert found.kl == pytest.approx(cost, abs=1e-13)
        assert found.value == pytest.approx(reward - 0.7 * cost, abs=1e-13)
        assert np.sum(occupancy(problem, levels) * problem.reward) == pytest.approx(reward, abs=1e-13)


def test_optimum_is_the_best_deterministic_history_policy():
    rng = np.random.default_rng(2)
    for _ in range(3):
        problem = random_pomdp(rng, horizon=2)  # 2 + 8 histories
        best = -np.inf
        for chosen in itertools.product(range(2), repeat=10):
            with np.errstate(divide="ignore"):
                rows = np.log(np.eye(2)[list(chosen)])
            best = max(best, evaluate(problem, (rows[:2], rows[2:])).value)
        found = solve(problem, beta=0.0)
        assert found.value[0][0] == pytest.approx(best, abs=1e-13)
        assert evaluate(problem, found.log_policy).value == pytest.approx(best, abs=1e-13)


def alpha_vectors(problem):
    """The optimum by the backup of Smallwood and Sondik, without pruning: one vector a conditional plan."""
    horizon, states, actions, symbols = problem.sizes
    vectors = np.zeros((1, states))
    for t in range(horizon - 1, -1, -1):
        plans = []
        for a in range(actions):
            if t == horizon - 1:
                plans.append(problem.reward[t, :, a][None])
                continue
            later = np.einsum("sr,ro,kr->oks", problem.transition[t, :, a], problem.emission[t + 1], vectors)
            for choice in itertools.product(range(len(vectors)), repeat=symbols):
                plans.append((problem.reward[t, :, a] + sum(later[o, k] for o, k in enumerate(choice)))[None])
        vectors = np.concatenate(plans)
    return float(sum((vectors @ (problem.initial * column)).max() for column in problem.emission[0].T))


def test_optimum_is_that_of_alpha_vectors():
    rng = np.random.default_rng(3)
    for states, symbols in ((3, 2), (2, 3)):
        problem = random_pomdp(rng, 3, states, 2, symbols, zeros=True)
        assert solve(problem, beta=0.0).value[0][0] == pytest.approx(alpha_vectors(problem), abs=1e-12)


def test_seen_states_give_the_mdp():
    rng = np.random.default_rng(4)
    given = random_pomdp(rng, 3, 3, 2, 3)
    problem = POMDP(given.transition, np.eye(3), given.reward, given.initial, 3)
    for beta in (0.0, 0.5):
        whole = solve(problem.latent, beta=beta)
        assert solve(problem, beta=beta).value[0][0] == pytest.approx(problem.initial @ whole.value[0], abs=1e-13)
    policy = log_normalize(rng.standard_normal((3, 3, 2)))
    seen = evaluate(problem.latent, policy, None, 0.0)
    assert evaluate(problem, policy).value == pytest.approx(seen.value, abs=1e-13)
    assert np.allclose(occupancy(problem, policy), occupancy(problem.latent, policy), atol=1e-14)


def test_no_observation_is_the_tree_of_action_sequences():
    """Blind: 2**3 open-loop plans, and the soft value is their log-partition where rewards come at the end."""
    rng = np.random.default_rng(5)
    given = random_pomdp(rng, 3, 3, 2, 1)
    reward = np.array(given.reward)
    reward[:2] = 0.0
    problem = POMDP(given.transition, given.emission, reward, given.initial, 3)
    returns = []
    for plan in itertools.product(range(2), repeat=3):
        law = problem.initial
        for t in range(2):
            law = law @ problem.transition[t, :, plan[t]]
        returns.append(law @ reward[2, :, plan[2]])
    assert solve(problem, beta=0.0).value[0][0] == pytest.approx(max(returns), abs=1e-13)
    soft = 0.3 * np.log(np.mean(np.exp(np.array(returns) / 0.3)))
    assert solve(problem, beta=0.3).value[0][0] == pytest.approx(soft, abs=1e-13)


@pytest.mark.parametrize("zeros", [False, True])
def test_is_a_consistent_problem(zeros):
    rng = np.random.default_rng(6)
    problem = random_pomdp(rng, zeros=zeros)
    check_problem(problem)
    check_problem(problem, random_levels(problem, rng))


def test_entropy_is_kl_to_uniform_up_to_a_constant():
    problem = random_pomdp(np.random.default_rng(7))
    for beta in (0.1, 2.0):
        kl, entropy = solve(problem, beta=beta), solve(problem, beta=beta, regularizer="entropy")
        assert entropy.value[0][0] == pytest.approx(kl.value[0][0] + 3 * beta * np.log(2), abs=1e-13)
        assert np.allclose(entropy.log_policy[1], kl.log_policy[1])


def test_rounding_is_within_the_bound():
    """Against 40 digits."""
    import mpmath as mp

    problem = random_pomdp(np.random.default_rng(8), 3, 2, 2, 2)
    ref = random_levels(problem, np.random.default_rng(9))
    with mp.workdps(40):
        for beta in (0.01, 1.0):

            def worth(joint, t, history, beta=beta):
                """``P(h) V(h)`` and ``P(h)`` of an unnormalised belief."""
                mass, qs = sum(joint), []
                for a in range(2):
                    q = sum(joint[s] * mp.mpf(float(problem.reward[t, s, a])) for s in range(2))
                    for o in range(2 if t < 2 else 0):
                        after = [
                            sum(joint[s] * mp.mpf(float(problem.transition[t, s, a, r])) for s in range(2))
                            * mp.mpf(float(problem.emission[t + 1, r, o]))
                            for r in range(2)
                        ]
                        q += worth(after, t + 1, (history * 2 + a) * 2 + o)
                    qs.append(q / mass)
                total = sum(mp.exp(mp.mpf(float(ref[t][history, a])) + qs[a] / beta) for a in range(2))
                return mass * beta * mp.log(total)

            exact = sum(
                worth(
                    [mp.mpf(float(problem.initial[s])) * mp.mpf(float(problem.emission[0, s, o])) for s in (0, 1)], 0, o
                )
                for o in range(2)
            )
            found = solve(problem, ref, beta)
            assert abs(float(exact - mp.mpf(float(found.value[0][0])))) <= found.error_bound < 1e-11


def test_beliefs_are_posteriors():
    problem = random_pomdp(np.random.default_rng(10), 2, 3, 2, 2)
    tree = belief_tree(problem)
    for o0, a, o1 in itertools.product(range(2), repeat=3):
        joint = np.einsum(
            "s,s,sr,r->r", problem.initial, problem.emission[0, :, o0], problem.transition[0, :, a],
            problem.emission[1, :, o1],
        )  # fmt: skip
        history = (o0 * 2 + a) * 2 + o1
        assert np.allclose(tree.beliefs[1][history], joint / joint.sum(), atol=1e-15)
        assert tree.following[0][o0, a, o1] * tree.first[o0] == pytest.approx(joint.sum(), abs=1e-15)


def test_impossible_histories_have_no_belief_no_value_and_the_reference():
    problem = POMDP(np.full((2, 2, 2), 0.5), np.array([[1.0, 0.0], [1.0, 0.0]]), np.ones((2, 2)), [0.5, 0.5], 2)
    found = solve(problem, beta=0.0)
    assert found.value[0][0] == pytest.approx(2.0)
    assert found.value[1].tolist() == [2.0, 0.0]
    assert np.allclose(found.log_policy[0], -np.log(2))
    assert not belief_tree(problem).beliefs[0][1].any()


def test_a_forbidden_action_costs_infinitely_only_where_it_is_reached():
    problem = POMDP(np.full((2, 2, 2), 0.5), np.array([[1.0, 0.0], [1.0, 0.0]]), np.ones((2, 2)), [0.5, 0.5], 2)
    with np.errstate(divide="ignore"):
        sure = np.log(np.eye(2))  # observation o plays action o
        both = np.log(np.array([[1.0, 0.0], [0.5, 0.5]]))
    assert evaluate(problem, sure, both, 1.0).kl == 0.0  # observation 1 never comes
    assert evaluate(problem, sure[::-1], both, 1.0).kl == np.inf
    assert evaluate(problem, sure[::-1], both, 1.0).value == -np.inf


def test_rollouts_follow_the_policy():
    """Frequencies within five standard errors of the exact law of whole trajectories."""
    rng = np.random.default_rng(11)
    problem = random_pomdp(rng, 2)
    levels, count = random_levels(problem, rng), 40_000
    drawn = rollouts(problem, levels, count, 0)
    assert drawn.observations.shape == drawn.actions.shape == (count, 2)
    for s, o, a in trajectories(problem):
        first = problem.initial[s[0]] * problem.emission[0, s[0], o[0]] * np.exp(levels[0][o[0], a[0]])
        later = np.exp(levels[1][(o[0] * 2 + a[0]) * 2 + o[1], a[1]])
        chance = first * problem.transition[0, s[0], a[0], s[1]] * problem.emission[1, s[1], o[1]] * later
        same = (drawn.states[:, :2] == s) & (drawn.observations == o) & (drawn.actions == a)
        assert abs(same.all(axis=1).mean() - chance) < 5 * np.sqrt(chance * (1 - chance) / count)
    steps = np.arange(2)
    assert np.array_equal(drawn.rewards, problem.reward[steps, drawn.states[:, :-1], drawn.actions])


def test_memoryless_rollouts_take_any_horizon():
    problem = random_pomdp(np.random.default_rng(12), horizon=200)
    policy = np.log(np.array([[0.9, 0.1], [0.2, 0.8]]))
    drawn = rollouts(problem, policy, 500, 0)
    for o in range(2):
        taken = drawn.actions[drawn.observations == o]
        assert abs(taken.mean() - np.exp(policy[o, 1])) < 5 * 0.5 / np.sqrt(taken.size)
    assert np.array_equal(rollouts(problem, policy, 7, 3).states, rollouts(problem, policy, 7, 3).states)


def test_memoryless_policies_are_written_out():
    problem = random_pomdp(np.random.default_rng(13), 2, 2, 2, 3)
    policy = log_normalize(np.random.default_rng(14).standard_normal((2, 3, 2)))
    levels = history_levels(problem, policy)
    assert [level.shape for level in levels] == [(3, 2), (18, 2)]
    assert np.allclose(levels[1][5 * 3 + 2], policy[1, 2])
    assert evaluate(problem, policy).value == pytest.approx(evaluate(problem, levels).value)


def test_float32_policies_are_normalised():
    problem = random_pomdp(np.random.default_rng(15))
    levels = random_levels(problem, np.random.default_rng(16))
    narrow = tuple(level.astype(np.float32) for level in levels)
    assert np.allclose(np.exp(history_levels(problem, narrow)[2]).sum(axis=1), 1.0, atol=1e-15)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: evaluate(p, None), TypeError, "log_policy: is required"),
        (lambda p: evaluate(p, (np.zeros((2, 1)),)), ValueError, "log_policy: must have 3 levels"),
        (lambda p: evaluate(p, [np.full((3, 2), -0.7)] * 3), ValueError, r"log_policy\[0\]: must have shape \(2, 2\)"),
        (lambda p: evaluate(p, np.zeros((2, 2))), ValueError, "log_policy.*sum to 2"),
        (lambda p: evaluate(p, np.zeros((4, 2))), ValueError, r"log_policy: must be levels, or have shape"),
        (lambda p: solve(p, np.zeros((2, 2))), ValueError, "log_ref"),
        (lambda p: solve(p, beta=-1.0), ValueError, "beta"),
        (lambda p: solve(p, regularizer="tv"), ValueError, "regularizer"),
        (lambda p: solve(p, np.log(np.full((2, 2), 0.5)), regularizer="entropy"), ValueError, "log_ref: does not go"),
        (lambda p: rollouts(p, np.log(np.full((2, 2), 0.5)), 5, 0, horizon=2), ValueError, "has horizon 3"),
        (lambda p: belief_tree(p.latent), TypeError, "problem"),
        (lambda p: history_levels(TabularMDP(p.transition, p.reward, p.initial, 3), None), TypeError, "problem"),
    ],
)
def test_doors(call, error, message):
    with pytest.raises(error, match=message):
        call(random_pomdp(np.random.default_rng(17)))


def test_rewards_that_overflow_are_refused():
    problem = POMDP(np.full((2, 2, 2), 0.5), np.eye(2), np.full((2, 2), 1e308), [0.5, 0.5], 3)
    with pytest.raises(ValueError, match="reward: values of size"):
        solve(problem)
