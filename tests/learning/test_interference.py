"""Interference between prompts: autodiff-free differences, hand-worked pairs, flows, bad input."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.learning import population_gradient
from klsim.learning.interference import (
    greedy_failures,
    interference_bracket,
    log_prob_change,
    score_kernel,
    success_interference,
    success_speed,
    time_to_success,
)
from klsim.problems import PromptBandit


def world(seed, prompts=4, answers=5, features=3):
    rng = np.random.default_rng(seed)
    logits, phi = rng.standard_normal((prompts, answers)), rng.standard_normal((prompts, features))
    correct = rng.integers(0, answers, prompts)
    return PromptBandit(logits, np.eye(answers)[correct], phi), correct


def differences(of, problem, step, h=1e-5):
    return (of(h * step) - of(-h * step)) / (2 * h)


class TestKernel:
    def test_worked_by_hand(self):
        kernel = score_kernel(np.log([[0.25, 0.75], [0.5, 0.5]]), [[1.0], [2.0]])
        assert kernel[0, 0, 1, 0] == pytest.approx(2 * (0.75 * 0.5 + 0.75 * 0.5))
        assert kernel[0, 0, 1, 1] == pytest.approx(-kernel[0, 0, 1, 0])
        assert kernel[1, 0, 1, 0] == pytest.approx(4 * 0.5)

    def test_it_is_the_inner_product_of_score_functions(self):
        problem, _ = world(0)
        pi = problem.log_policy()
        scores = np.empty((4, 5, 15))
        for x in range(4):
            for y in range(5):
                direction = np.zeros((4, 5))
                direction[x] = np.eye(5)[y] - np.exp(pi[x])
                scores[x, y] = problem.weight_gradient(direction).ravel()
        np.testing.assert_allclose(
            score_kernel(pi, problem.features), np.einsum("xyw,uvw->xyuv", scores, scores), atol=1e-13
        )

    def test_a_change_along_any_direction(self):
        problem, _ = world(1)
        direction = np.random.default_rng(2).standard_normal((4, 5))
        found = differences(problem.log_policy, problem, problem.weight_gradient(direction))
        np.testing.assert_allclose(log_prob_change(problem.log_policy(), problem.features, direction), found, atol=1e-8)

    def test_batches_are_worlds(self):
        worlds = [world(s)[0] for s in (3, 4)]
        pi, phi = np.stack([w.log_policy() for w in worlds]), np.stack([w.features for w in worlds])
        direction = np.random.default_rng(5).standard_normal((2, 4, 5))
        together = log_prob_change(pi, phi, direction)
        for i, w in enumerate(worlds):
            np.testing.assert_allclose(together[i], log_prob_change(w.log_policy(), w.features, direction[i]))
            np.testing.assert_allclose(score_kernel(pi, phi)[i], score_kernel(w.log_policy(), w.features))


class TestInterference:
    def test_worked_by_hand(self):
        pi, correct = np.log([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]]), [0, 1]
        bracket = interference_bracket(pi, correct)
        assert bracket[0, 1] == pytest.approx(-0.1 - 0.3 + (0.05 + 0.21 + 0.04))
        assert bracket[0, 0] == pytest.approx(1 - 1.0 + 0.38)
        assert success_interference(pi, correct, [[2.0], [3.0]])[0, 1] == pytest.approx(6 * 0.5 * 0.7 * bracket[0, 1])

    def test_against_differences(self):
        problem, correct = world(6)
        pi = problem.log_policy()
        gradient = population_gradient(pi, problem.reward)
        for x in range(4):
            step = problem.weight_gradient(gradient * (np.arange(4) == x)[:, None])
            found = differences(problem.success, problem, step)
            np.testing.assert_allclose(success_interference(pi, correct, problem.features)[x], found, atol=1e-9)

    def test_orthogonal_features_leave_others_alone(self):
        problem, correct = world(7)
        matrix = success_interference(problem.log_policy(), correct, np.eye(4))
        np.testing.assert_array_equal(matrix - np.diag(np.diag(matrix)), 0.0)


class TestSpeed:
    def test_worked_by_hand(self):
        pi = np.log([[0.5, 0.3, 0.2]])
        assert success_speed(pi, [0], "log_success") == pytest.approx([0.25 + 0.13])
        assert success_speed(pi, [0]) == pytest.approx([0.19])
        assert success_speed(pi, [0], "natural") == pytest.approx([0.5])

    def test_near_certain_success_keeps_its_digits(self):
        pi = log_normalize(np.array([[0.0, -40.0]]))
        assert success_speed(pi, [0], "natural") == pytest.approx([np.exp(-40.0)], rel=1e-12)


class TestTime:
    def test_the_numbers_of_the_paper(self):
        start = np.array([0.02, 0.01, 0.005, 0.0025])
        np.testing.assert_allclose(time_to_success(start, 0.5, 50), [55.6, 106.0, 205.4, 402.8], atol=0.05)
        np.testing.assert_allclose(time_to_success(start, 0.5, 50, "log_success"), [4.77, 5.47, 6.16, 6.85], atol=0.005)
        np.testing.assert_allclose(time_to_success(start, 0.5, 50, "natural"), [3.89, 4.60, 5.29, 5.99], atol=0.005)

    @pytest.mark.parametrize("objective", ["success", "log_success", "natural"])
    @pytest.mark.parametrize(("start", "target", "answers"), [(1e-4, 0.3, 2), (0.2, 0.99, 7), (0.5, 0.5, 3)])
    def test_it_integrates_the_speed(self, objective, start, target, answers):
        def pace(q):  # dt/dq
            wrong = (1 - q) ** 2 * answers / (answers - 1)
            return 1 / (q * {"success": q * wrong, "log_success": wrong, "natural": 1 - q}[objective])

        exact = mpmath.quad(pace, mpmath.linspace(start, target, 30) if start < target else [start, target])
        assert time_to_success(start, target, answers, objective) == pytest.approx(float(exact), rel=1e-9, abs=1e-12)


def test_greedy_failures():
    pi, reward = np.log([[0.6, 0.4], [0.4, 0.6], [0.5, 0.5]]), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert greedy_failures(pi, reward).tolist() == [False, True, True]


HALVES = np.log([[0.5, 0.5]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: score_kernel(np.log([0.5, 0.5]), [[1.0]]), "log_policy"),
        (lambda: score_kernel(HALVES, [[1.0], [2.0]]), "features"),
        (lambda: score_kernel(HALVES, [[1e200]]), "features"),
        (lambda: score_kernel(np.log([[0.5, 0.4]]), [[1.0]]), "log_policy"),
        (lambda: log_prob_change(HALVES, [[1.0]], [[1.0, 2.0, 3.0]]), "direction"),
        (lambda: log_prob_change(HALVES, [[1.0]], [[1.0, np.nan]]), "direction"),
        (lambda: interference_bracket(HALVES, [2]), "correct"),
        (lambda: interference_bracket(HALVES, [0, 1]), "correct"),
        (lambda: success_speed(HALVES, [0], "reward"), "objective"),
        (lambda: time_to_success(0.0, 0.5, 3), "start"),
        (lambda: time_to_success(0.1, 1.0, 3), "target"),
        (lambda: time_to_success(0.1, 0.5, 1), "answers"),
        (lambda: greedy_failures(HALVES, [[0.5, 1.0]]), "reward"),
        (lambda: greedy_failures(HALVES, [[1.0]]), "reward"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
