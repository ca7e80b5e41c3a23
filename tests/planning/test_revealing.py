"""Revealing constants against closed forms and direct minimisation; operators against beliefs."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from klsim.planning import belief_tree
from klsim.planning.revealing import (
    emission_action_blocks,
    left_inverse,
    operator_law,
    revealing_constant,
    separation,
)
from klsim.problems import POMDP
from klsim.uniformity import uneven_law


def stochastic(rng, symbols, states):
    return rng.dirichlet(np.ones(symbols), states).T


def random_pomdp(rng, horizon=3, states=2, actions=2, symbols=3):
    return POMDP(
        rng.dirichlet(np.ones(states), (horizon, states, actions)),
        rng.dirichlet(np.ones(symbols), (horizon, states)),
        np.zeros((horizon, states, actions)),
        rng.dirichlet(np.ones(states)),
        horizon,
    )


def test_left_inverse_is_one_and_has_its_norm():
    matrix = stochastic(np.random.default_rng(0), 6, 3)
    found = left_inverse(matrix)
    assert np.allclose(found.matrix @ matrix, np.eye(3), atol=1e-13)
    assert found.norm == np.abs(found.matrix).sum(axis=0).max()


def test_no_other_left_inverse_has_a_smaller_norm():
    """Two symbols more than states: ``G = M^+ + X N``, N a basis of the left kernel; a convex function of six numbers."""
    rng = np.random.default_rng(1)
    for _ in range(3):
        matrix = stochastic(rng, 5, 3)
        plain, kernel = np.linalg.pinv(matrix), np.linalg.svd(matrix.T)[2][3:]

        def norm(x, plain=plain, kernel=kernel):
            return np.abs(plain + x.reshape(3, 2) @ kernel).sum(axis=0).max()

        best = min(minimize(norm, rng.standard_normal(6), method="Powell", options={"xtol": 1e-9, "ftol": 1e-12}).fun
                   for _ in range(3))  # fmt: skip
        found = left_inverse(matrix).norm
        assert found <= best + 1e-9


def test_square_matrices_have_one_inverse():
    matrix = stochastic(np.random.default_rng(2), 4, 4)
    norm = np.abs(np.linalg.inv(matrix)).sum(axis=0).max()
    assert revealing_constant(matrix) == pytest.approx(1 / norm, rel=1e-10)
    assert separation(matrix) == pytest.approx(1 / norm, rel=1e-10)


def test_two_states_by_hand():
    assert revealing_constant([[1.0, 0.5], [0.0, 0.5]]) == pytest.approx(1 / 3, abs=1e-14)
    uniform = np.full(4, 0.25)
    law, mirror = uneven_law([1, -1], 0.3), uneven_law([-1, 1], 0.3)
    assert revealing_constant(np.stack([uniform, law], axis=1)) == pytest.approx(0.3 / 2.3, abs=1e-13)
    assert revealing_constant(np.stack([law, mirror], axis=1)) == pytest.approx(0.3, abs=1e-13)


def test_equal_columns_reveal_nothing():
    matrix = np.full((3, 2), 1 / 3)
    assert revealing_constant(matrix) == 0.0
    assert separation(matrix) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="matrix: needs independent columns"):
        left_inverse(matrix)


def test_separation_is_below_every_direction_and_above_the_constant():
    rng = np.random.default_rng(3)
    matrix = stochastic(rng, 5, 3)
    directions = rng.standard_normal((3, 20_000))
    ratios = np.abs(matrix @ directions).sum(axis=0) / np.abs(directions).sum(axis=0)
    found = separation(matrix)
    assert revealing_constant(matrix) <= found + 1e-12
    assert found <= ratios.min() <= 1.05 * found


def test_blocks_are_laws_of_the_observations():
    problem = random_pomdp(np.random.default_rng(4), 3, 2, 2, 2)
    blocks = emission_action_blocks(problem, 0, 3)
    assert blocks.shape == (4, 8, 2)
    for a0, a1, o0, o1, o2, s in itertools.product(*[range(2)] * 6):
        wanted = sum(
            problem.emission[0, s, o0] * problem.transition[0, s, a0, r] * problem.emission[1, r, o1]
            * problem.transition[1, r, a1, q] * problem.emission[2, q, o2]
            for r in range(2) for q in range(2)
        )  # fmt: skip
        assert blocks[2 * a0 + a1, 4 * o0 + 2 * o1 + o2, s] == pytest.approx(wanted, abs=1e-15)
    assert np.array_equal(emission_action_blocks(problem, 1, 1)[0], problem.emission[1].T)


def test_operators_predict_like_beliefs():
    problem = random_pomdp(np.random.default_rng(5))
    tree = belief_tree(problem)
    for choose in (np.linalg.pinv, lambda m: left_inverse(m).matrix):
        inverses = np.stack([choose(problem.emission[t].T) for t in range(2)])
        law = operator_law(problem, [1, 0], inverses)
        for o in itertools.product(range(3), repeat=3):
            first = (o[0] * 2 + 1) * 3 + o[1]
            wanted = tree.first[o[0]] * tree.following[0][o[0], 1, o[1]] * tree.following[1][first, 0, o[2]]
            assert law[o] == pytest.approx(wanted, abs=1e-13)


def test_a_single_step_needs_no_inverse():
    problem = random_pomdp(np.random.default_rng(6), 1)
    law = operator_law(problem, np.zeros(0, dtype=int), np.zeros((0, 2, 3)))
    assert np.allclose(law, problem.initial @ problem.emission[0])


PROBLEM = random_pomdp(np.random.default_rng(7))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: revealing_constant([1.0, 2.0]), r"matrix: must have shape \(O, S\)"),
        (lambda: revealing_constant([[np.nan, 1.0]]), "matrix"),
        (lambda: separation(np.eye(13)), "matrix: .*linear programs are too many"),
        (lambda: emission_action_blocks(PROBLEM, 2, 2), "step"),
        (lambda: emission_action_blocks(PROBLEM, 0, 4), "length"),
        (lambda: operator_law(PROBLEM, [0], np.zeros((2, 2, 3))), "actions: needs H - 1 = 2"),
        (lambda: operator_law(PROBLEM, [0, 2], np.zeros((2, 2, 3))), "actions"),
        (lambda: operator_law(PROBLEM, [0, 1], np.zeros((2, 3, 2))), "inverses: must have shape"),
    ],
)
def test_doors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
