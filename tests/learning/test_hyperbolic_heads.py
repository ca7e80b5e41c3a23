"""Heads and bounded features: worked values, backward passes against finite differences, both charts, bad input."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest

from klsim.learning import hyperbolic as hyp
from klsim.learning import hyperbolic_heads as heads

RNG = np.random.default_rng(3)
U, Z, R = RNG.standard_normal((3, 5, 4)), RNG.standard_normal((3, 2, 4)), 0.4 * RNG.standard_normal((3, 2))
U[1, 2] = 0.0  # the origin, where maps and heads are smooth too


def differences(function, at, step=1e-6):
    """Central differences of a number, entry by entry."""
    out = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        shift = np.zeros_like(at)
        shift[index] = step
        out[index] = (function(at + shift) - function(at - shift)) / (2 * step)
    return out


def test_worked_values():
    u, z, r = np.array([0.3, 0.4]), np.array([[1.0, 2.0], [-0.5, 0.7]]), np.array([0.1, -0.2])
    np.testing.assert_allclose(heads.ball_logits(hyp.ball_exp(u), z, r), [3.512740, 1.537953], atol=5e-7)
    np.testing.assert_allclose(heads.hyperboloid_logits(hyp.hyperboloid_exp(u), z, r), [0.876929, 0.325668], atol=5e-7)
    h = np.array([1.0, 2.0, -2.0, 0.0])
    np.testing.assert_allclose(heads.bounded_features(h), [0.291391, 0.435031, -0.435031, 0], atol=5e-7)
    gated = heads.BoundedFeatures(heads.largest_scale()).forward(h[None], np.array([0.5, 0, 0, 0.1]), np.array(0.2))[0]
    np.testing.assert_allclose(gated[0], [0.312559, 0.466632, -0.466632, 0], atol=5e-7)
    assert heads.largest_scale() == pytest.approx(1.831781, abs=5e-7)


@pytest.mark.parametrize("curvature", [0.3, 1.0, 4.0])
def test_head_is_the_logits_of_points(curvature):
    for model, to_point, logits in (
        ("ball", hyp.ball_exp, heads.ball_logits),
        ("hyperboloid", hyp.hyperboloid_exp, heads.hyperboloid_logits),
    ):
        found, _ = heads.HyperbolicHead(model, curvature).forward(U, Z, R)
        points = to_point(U, curvature=curvature)
        wanted = [logits(x, z, r, curvature=curvature) for x, z, r in zip(points, Z, R)]
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-9)


def test_gradients_in_points():
    x, y = hyp.ball_exp(U[0, 0] / 2, curvature=2.0), hyp.hyperboloid_exp(U[0, 0], curvature=2.0)
    slope = heads.ball_logits_gradient(x, Z[0], R[0], curvature=2.0)
    for k in range(2):
        wanted = differences(lambda p, k=k: heads.ball_logits(p, Z[0], R[0], curvature=2.0)[k], x)
        np.testing.assert_allclose(slope[k], wanted, rtol=1e-6, atol=1e-7)
    slope = heads.hyperboloid_logits_gradient(y, Z[0], R[0], curvature=2.0)
    for k in range(2):
        wanted = differences(lambda p, k=k: heads.hyperboloid_logits(p, Z[0], R[0], curvature=2.0)[k], y)
        np.testing.assert_allclose(slope[k], wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("model", ["ball", "hyperboloid"])
@pytest.mark.parametrize("clamp", [math.inf, 3.0])
def test_head_backward(model, clamp):
    head, upstream = heads.HyperbolicHead(model, 1.7, clamp), np.random.default_rng(0).standard_normal((3, 5, 2))
    _, tape = head.forward(U, Z, R)
    found = head.backward(tape, upstream)
    for i, at in enumerate((U, Z, R)):
        loss = lambda moved, i=i: np.sum(  # noqa: E731
            head.forward(*(moved if i == j else a for j, a in enumerate((U, Z, R))))[0] * upstream
        )
        np.testing.assert_allclose(found[i], differences(loss, at), rtol=1e-6, atol=1e-6)


def test_head_far_out_against_mpmath():
    """Where the ball has no floating-point points left (|u| = 40) and at the origin."""
    head, z, r = heads.HyperbolicHead("ball"), np.array([[0.3, -1.0]]), np.array([0.4])
    far = np.array([[24.0, 32.0], [0.0, 0.0]])
    with mp.workdps(60):
        length = mp.sqrt(mp.mpf(z[0, 0]) ** 2 + 1)
        along = (24 * mp.mpf(z[0, 0]) - 32) / (40 * length)
        a = mp.sinh(80) * along * mp.cosh(2 * mp.mpf(r[0])) - mp.cosh(80) * mp.sinh(2 * mp.mpf(r[0]))
        wanted = [float(2 * length * mp.asinh(a)), float(-2 * length * 2 * mp.mpf(r[0]))]
    logits, tape = head.forward(far, z, r)
    np.testing.assert_allclose(logits[:, 0], wanted, rtol=1e-13)
    assert np.all(np.isfinite(np.concatenate([g.ravel() for g in head.backward(tape, np.ones((2, 1)))])))


def test_no_hyperplane_no_logit():
    z = np.array([[0.0, 0.0], [1.0, 0.0]])
    for model in ("ball", "hyperboloid"):
        head = heads.HyperbolicHead(model)
        logits, tape = head.forward(np.ones((3, 2)), z, np.ones(2))
        assert np.all(logits[:, 0] == 0)
        assert np.all(head.backward(tape, np.ones((3, 2)))[1][0] == 0)


@pytest.mark.parametrize(
    "features",
    [
        heads.BoundedFeatures(1.8),
        heads.BoundedFeatures(1.8, "relu"),
        heads.BoundedFeatures(None, epsilon=0.3),
        heads.BoundedFeatures(1.8, normalise=False),
    ],
)
def test_features_backward(features):
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((2, 5, 4)), rng.standard_normal((2, 4)), rng.standard_normal(2)
    upstream = rng.standard_normal((2, 5, 4))
    _, tape = features.forward(*inputs)
    for i, found in enumerate(features.backward(tape, upstream)):
        loss = lambda moved, i=i: np.sum(  # noqa: E731
            features.forward(*(moved if i == j else a for j, a in enumerate(inputs)))[0] * upstream
        )
        np.testing.assert_allclose(found, differences(loss, inputs[i]), rtol=1e-6, atol=1e-8)


def test_features_at_extremes():
    one_hot = np.array([1e150, 0.0, 0.0])
    assert np.linalg.norm(heads.bounded_features(one_hot, activation="relu", epsilon=0.0)) == pytest.approx(
        1, rel=1e-15
    )
    np.testing.assert_array_equal(heads.bounded_features(np.zeros(3), epsilon=0.0), np.zeros(3))
    assert np.linalg.norm(heads.rms_norm([1e-6, 0.0])) < math.sqrt(2)  # epsilon
    shifted = heads.bounded_features(np.ones(4), activation=lambda t: np.tanh(t) + 0.5, epsilon=0.0)
    assert np.linalg.norm(shifted) == pytest.approx(math.tanh(1) + 0.5)


HEAD, FEATURES = heads.HyperbolicHead("ball"), heads.BoundedFeatures(1.0)
ONE = np.ones((1, 2))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: heads.ball_logits([0.8, 0.8], ONE, [0.0]), "x"),
        (lambda: heads.ball_logits([0.1, 0.1], np.ones((1, 3)), [0.0]), "z"),
        (lambda: heads.ball_logits([0.1, 0.1], ONE, [0.0, 1.0]), "r"),
        (lambda: heads.ball_logits([0.1, 0.1], ONE, [math.nan]), "r"),
        (lambda: heads.ball_logits([0.1, 0.1], ONE, [1e3]), "r"),
        (lambda: heads.ball_logits_gradient([0.1, 0.1], [[math.inf, 0.0]], [0.0]), "z"),
        (lambda: heads.hyperboloid_logits([1.0, 1.0, 0.0], ONE, [0.0]), "y"),
        (lambda: heads.hyperboloid_logits_gradient([1.0, 0.0, 0.0], np.ones(2), [0.0]), "z"),
        (lambda: heads.HyperbolicHead("disc"), "model"),
        (lambda: heads.HyperbolicHead("ball", 0.0), "curvature"),
        (lambda: heads.HyperbolicHead("ball", 1.0, 0.0), "clamp"),
        (lambda: HEAD.forward(np.ones(2), ONE, [0.0]), "z"),
        (lambda: HEAD.forward(ONE, ONE, [[0.0]]), "r"),
        (lambda: HEAD.forward([[math.nan, 0.0]], ONE, [0.0]), "u"),
        (lambda: HEAD.forward([[400.0, 0.0]], ONE, [0.0]), "u"),
        (lambda: HEAD.backward(HEAD.forward(ONE, ONE, [0.0])[1], np.ones((2, 1))), "upstream"),
        (lambda: HEAD.backward(heads.HyperbolicHead("hyperboloid").forward(ONE, ONE, [0.0])[1], ONE), "tape"),
        (lambda: heads.rms_norm([math.nan]), "h"),
        (lambda: heads.rms_norm([1.0], epsilon=-1.0), "epsilon"),
        (lambda: heads.bounded_features(np.zeros(0)), "h"),
        (lambda: heads.bounded_features([1.0], activation="gelu"), "activation"),
        (lambda: heads.bounded_features([1.0], activation=lambda t: t[:0]), "activation"),
        (lambda: heads.largest_scale(1.0), "alpha"),
        (lambda: heads.largest_scale(math.nan), "alpha"),
        (lambda: heads.BoundedFeatures(0.0), "scale"),
        (lambda: heads.BoundedFeatures(1.0, "gelu"), "activation"),
        (lambda: heads.BoundedFeatures(1.0, epsilon=-1.0), "epsilon"),
        (lambda: FEATURES.forward(ONE, np.ones(3), 0.0), "w"),
        (lambda: FEATURES.forward(ONE, np.ones(2), [0.0]), "w"),
        (lambda: FEATURES.forward(np.ones(2), np.ones(2), 0.0), "w"),
        (lambda: FEATURES.forward([[1e200, 0.0]], np.ones(2), 0.0), "h"),
        (lambda: FEATURES.backward(FEATURES.forward(ONE, np.ones(2), 0.0)[1], np.ones(2)), "upstream"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
