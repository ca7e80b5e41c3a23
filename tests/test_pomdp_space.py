"""POMDPs as a field: draws are legal, and shrink to legal ones."""

import numpy as np
import pytest

from klsim.planning import solve
from klsim.problems import POMDP
from klsim.spaces import POMDPs, Sizes, Space

SPACE = Space(problem=POMDPs("S", "A", "O", "H"), S=Sizes(1, 3), A=Sizes(1, 3), O=Sizes(1, 3), H=Sizes(1, 3))


def test_draws_are_problems_of_the_sizes():
    batch = SPACE.sample(5, 0)
    sizes = tuple(batch[name] for name in "HSAO")
    assert all(isinstance(p, POMDP) and p.sizes == sizes for p in batch["problem"])
    assert all(np.isfinite(solve(p, beta=0.5).value[0][0]) for p in batch["problem"])


@pytest.mark.parametrize(
    ("axis", "sizes"), [("S", (3, 2, 3, 3)), ("A", (3, 3, 2, 3)), ("O", (3, 3, 3, 2)), ("H", (2, 3, 3, 3))]
)
def test_problems_lose_a_state_an_action_a_symbol_a_step(axis, sizes):
    field, dims = POMDPs(), dict.fromkeys("SAOH", 3)
    problem = field.draw(np.random.default_rng(0), dims)
    assert field.without(problem, axis, 1, dims).sizes == sizes


def test_problems_move_along_their_coordinates():
    field = POMDPs(2, 2, 2, 2)
    problem = field.draw(np.random.default_rng(1), {})
    x, _ = field.coordinates(problem)
    back = field.at(problem, x)
    assert np.allclose(back.emission, problem.emission)
    assert np.allclose(back.reward, problem.reward)
    assert isinstance(next(iter(field.simpler(problem))), POMDP)
