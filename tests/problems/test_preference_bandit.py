"""Preference bandits and their field: what they hold, how they are drawn and shrink."""

from __future__ import annotations

import numpy as np
import pytest

from klsim.problems import PreferenceBandit
from klsim.spaces.preferences import PreferenceBandits

CYCLE = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
LOG_REF = np.log([0.6, 0.3, 0.1])


def test_every_pair_as_often_by_default():
    assert np.array_equal(PreferenceBandit(LOG_REF, CYCLE).weights, 1 - np.eye(3))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((LOG_REF[:2], CYCLE), "log_ref"),
        ((LOG_REF + 1, CYCLE), "log_ref"),
        ((LOG_REF, CYCLE + 0.1), "preference"),
        ((LOG_REF, CYCLE, np.ones(3)), "weights"),
        ((np.array([-np.log(2), -np.log(2), -np.inf]), CYCLE), "log_ref"),
    ],
)
def test_bad_input(arguments, words):
    with pytest.raises(ValueError, match=words):
        PreferenceBandit(*arguments)


def test_the_field_draws_what_breaks_claims():
    field, rng = PreferenceBandits(certain=True, uncovered=True), np.random.default_rng(0)
    drawn = list(field.sample(200, rng, {"A": 4}))
    off = ~np.eye(4, dtype=bool)
    assert any(np.any(d.preference[off] == 0) for d in drawn)
    assert any(np.any(d.preference[off] == 0.5) for d in drawn)
    assert any(np.any(d.weights[off] == 0) for d in drawn)
    plain = list(PreferenceBandits().sample(100, rng, {"A": 4}))
    assert all(np.all((d.preference > 0) & (d.weights + np.eye(4) > 0)) for d in plain)


def test_problems_shrink_and_move_inside_the_field():
    field, rng = PreferenceBandits(), np.random.default_rng(1)
    for _ in range(20):
        problem = field.draw(rng, {"A": 4})
        assert all(isinstance(new, PreferenceBandit) for new in field.simpler(problem))
        assert field.without(problem, "A", 1, {"A": 4}).preference.shape == (3, 3)
        assert field.without(problem, "B", 1, {"A": 4}) is problem
        x, _ = field.coordinates(problem)
        back = field.at(problem, x)
        np.testing.assert_allclose(back.preference, problem.preference, atol=1e-12)
        np.testing.assert_allclose(back.log_ref, problem.log_ref, atol=1e-9)
