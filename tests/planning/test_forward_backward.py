"""Forward-backward representations: by hand, exactness at full rank, projections, losses, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from klsim.planning import forward_backward as fb
from klsim.planning import solve
from klsim.planning.successor_measures import successor_backup, successor_density, successor_measure
from klsim.problems import DiscountedMDP

RNG = np.random.default_rng(0)
ROWS, RHO, B, R = (
    RNG.dirichlet(np.ones(4), (4, 2)),
    RNG.dirichlet(np.ones(4)),
    RNG.standard_normal((4, 4)),
    RNG.standard_normal(4),
)
POLICY = np.log(RNG.dirichlet(np.ones(2), 4))
DENSITY = successor_density(successor_measure(ROWS, POLICY, 0.9), RHO)
TARGET = RNG.standard_normal((4, 2, 4))
PAIRS = RNG.dirichlet(np.ones(8)).reshape(4, 2)


def test_task_vector_by_hand():
    assert fb.task_vector([1.0, 2.0], [[1.0, 0.0], [3.0, 1.0]], [0.5, 0.5]).tolist() == [3.5, 1.0]


def test_full_rank_is_exact():
    forward = fb.forward_projection(DENSITY, B, RHO)
    np.testing.assert_allclose(forward @ B.T, DENSITY, rtol=1e-9)
    np.testing.assert_allclose(fb.projected_reward(fb.task_vector(R, B, RHO), B, RHO), R, rtol=1e-9)


def test_projection_is_least_squares():
    forward = fb.forward_projection(DENSITY, B[:, :2], RHO)
    gram = B[:, :2].T @ (RHO[:, None] * B[:, :2])
    np.testing.assert_allclose(forward, (DENSITY * RHO) @ B[:, :2] @ np.linalg.inv(gram), rtol=1e-9)


def test_leading_features():
    found = fb.leading_features(DENSITY, RHO, 2)
    np.testing.assert_allclose(found.T @ (RHO[:, None] * found), np.eye(2), atol=1e-12)
    whole = fb.leading_features(DENSITY, RHO, 4)
    np.testing.assert_allclose(fb.forward_projection(DENSITY, whole, RHO) @ whole.T, DENSITY, rtol=1e-9)


def test_policies_are_optimal():
    found = fb.zero_shot_policies(ROWS, 0.9, RHO, B, fb.task_vector(np.stack([R, -R]), B, RHO))
    assert found.converged.all()
    assert found.log_policy.shape == (2, 4, 2)
    for sign, values in zip((1, -1), found.values):
        best = solve(DiscountedMDP(ROWS, ROWS @ (sign * R), 0.9, RHO), beta=0.0).q_value
        np.testing.assert_allclose(values, best, rtol=1e-8)


def test_rounds_may_run_out():
    found = fb.zero_shot_policies(ROWS, 0.9, RHO, B, fb.task_vector(R, B, RHO)[None], rounds=1)
    assert not found.converged[0]
    assert found.rounds[0] == 1


def test_loss_is_minimal_at_its_backup():
    given = (TARGET, ROWS, POLICY, PAIRS, RHO, 0.9)
    best = successor_backup(ROWS, POLICY, TARGET, RHO, 0.9)
    value, gradient = fb.fb_loss(best, *given)
    np.testing.assert_allclose(gradient, 0, atol=1e-14)
    assert fb.fb_loss(best + 0.1 * DENSITY, *given)[0] > value
    assert fb.fb_loss(np.zeros((4, 2, 4)), 0 * TARGET, *given[1:])[0] == 0.0


def test_batch_losses_by_hand():
    measures, targets = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[9.0, 2.0], [4.0, 9.0]])
    assert fb.batch_fb_loss(measures, targets, 0.5) == pytest.approx(0.5 * (1 + 1) / 2 - 2.5)
    assert fb.batch_orthonormality_loss([[1.0, 0.0], [2.0, 1.0]]) == pytest.approx(4 - 2 * (1 + 5) / 2)


def test_orthonormality_loss():
    gram = B.T @ (RHO[:, None] * B)
    assert fb.orthonormality_loss(B, RHO) == pytest.approx(np.sum((gram - np.eye(4)) ** 2) - 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fb.task_vector(R[:2], B, RHO), "reward: must be"),
        (lambda: fb.task_vector(R * math.nan, B, RHO), "reward"),
        (lambda: fb.task_vector(R, B[0], RHO), "features: must be"),
        (lambda: fb.task_vector(R, B, RHO * 2), "rho.*sum to 1"),
        (lambda: fb.forward_projection(DENSITY[..., :2], B, RHO), "density: must be"),
        (lambda: fb.forward_projection(DENSITY, B[:2], RHO), "features: must be"),
        (lambda: fb.forward_projection(DENSITY, B * math.inf, RHO), "features"),
        (lambda: fb.leading_features(DENSITY, RHO, 5), "rank"),
        (lambda: fb.leading_features(DENSITY[None], RHO, 2), "density: must be"),
        (lambda: fb.leading_features(DENSITY, RHO[None], 2), "rho: must be"),
        (lambda: fb.projected_reward(R, B[None], RHO), "features: must be"),
        (lambda: fb.projected_reward(R[:2], B, RHO), "tasks: must be"),
        (lambda: fb.projected_reward(R, B, RHO[None]), "rho: must be"),
        (lambda: fb.zero_shot_policies(ROWS[None], 0.9, RHO, B, B), "transition: must be"),
        (lambda: fb.zero_shot_policies(ROWS, 1.0, RHO, B, B), "discount"),
        (lambda: fb.zero_shot_policies(ROWS, 0.9, RHO, B, R), "tasks: must be"),
        (lambda: fb.zero_shot_policies(ROWS, 0.9, RHO, B, B, rounds=0), "rounds"),
        (lambda: fb.fb_loss(DENSITY, TARGET[:2], ROWS, POLICY, PAIRS, RHO, 0.9), "target: must be"),
        (lambda: fb.fb_loss(DENSITY, TARGET, ROWS[:2], POLICY, PAIRS, RHO, 0.9), "transition: must be"),
        (lambda: fb.fb_loss(DENSITY, TARGET, ROWS, POLICY[:2], PAIRS, RHO, 0.9), "log_policy: must be"),
        (lambda: fb.fb_loss(DENSITY, TARGET, ROWS, POLICY, 2 * PAIRS, RHO, 0.9), "pairs.*sum to 1"),
        (lambda: fb.fb_loss(DENSITY, TARGET, ROWS, POLICY, PAIRS[0], RHO, 0.9), "pairs: must be"),
        (lambda: fb.batch_fb_loss(B, B[:2, :2], 0.9), "targets: must"),
        (lambda: fb.batch_fb_loss([[1.0]], [[1.0]], 0.9), "measures: must be"),
        (lambda: fb.batch_fb_loss(B * math.nan, B, 0.9), "measures"),
        (lambda: fb.batch_fb_loss(B, B, 1.0), "discount"),
        (lambda: fb.orthonormality_loss(B, RHO[:2]), "rho"),
        (lambda: fb.batch_orthonormality_loss(B[:1]), "features: must be"),
    ],
)  # fmt: skip
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
