"""Log-space distributions against mpmath at 50 digits, torch, and enumeration."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from klsim import distributions as d

mpmath.mp.dps = 60
BETAS = (1e-12, 1e-6, 1e-2, 1.0, 1e3, 1e12)
SCALES = (1e-8, 1.0, 1e8)


def reference(seed: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """A reference with an outcome of probability 0 and a tie for the best reward."""
    rng = np.random.default_rng(seed)
    log_ref = np.concatenate([d.log_normalize(rng.standard_normal(5) * 4), [-np.inf]])
    reward = rng.standard_normal(6) * scale
    reward[1] = reward[0]
    return log_ref, reward


def exact_tilt(log_ref, reward, beta):
    """``(log Z, pi)`` in mpmath, the reference normalised exactly."""
    p = [mpmath.e ** mpmath.mpf(float(x)) if np.isfinite(x) else mpmath.mpf(0) for x in log_ref]
    p = [x / sum(p) for x in p]
    u = [mpmath.mpf(float(r)) / mpmath.mpf(beta) for r in reward]
    top = max(x for x, q in zip(u, p) if q > 0)
    weights = [q * mpmath.e ** (x - top) if q > 0 else mpmath.mpf(0) for q, x in zip(p, u)]
    total = sum(weights)
    return mpmath.log(total) + top, [w / total for w in weights]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("scale", SCALES)
def test_log_partition_and_tilt_at_50_digits(beta, scale):
    for seed in range(5):
        log_ref, reward = reference(seed, scale)
        log_z, pi = exact_tilt(log_ref, reward, beta)
        conditioning = max(abs(log_z), mpmath.mpf(1e-300) + max(abs(float(r)) for r in reward) / mpmath.mpf(beta))
        assert abs(log_z - float(d.log_partition(log_ref, reward, beta))) <= 1e-12 * conditioning
        for log_got, want in zip(d.tilt(log_ref, reward, beta), pi):
            if want > mpmath.mpf(10) ** -300:
                assert abs(float(log_got) - mpmath.log(want)) <= 1e-12 * (1 + abs(mpmath.log(want)))


def test_ten_million_outcomes():
    log_p = np.full(10**7, -np.log(1e7))
    assert d.entropy(log_p) == pytest.approx(np.log(1e7), rel=1e-12)


def test_edges():
    assert d.entropy(np.array([0.0])) == 0
    assert d.entropy(np.array([0.0, -np.inf])) == 0
    np.testing.assert_array_equal(d.tilt(np.array([0.0]), [5.0], 1e-12), [0.0])
    np.testing.assert_array_equal(d.log_normalize([-np.inf, 3.0]), [-np.inf, 0.0])
    assert d.expectation(np.array([-np.inf, 0.0]), [1e300, 2.0]) == 2.0


def test_entropy_of_a_batch():
    log_p = d.log_normalize(np.random.default_rng(0).standard_normal((2, 3, 4)))
    want = [[-sum(np.exp(x) * x for x in row) for row in rows] for rows in log_p]
    np.testing.assert_allclose(d.entropy(log_p), want, rtol=1e-14)


def test_scalars_broadcast_over_the_batch():
    log_ref, reward = d.log_normalize(np.zeros((3, 4))), np.arange(4.0)
    beta = np.array([0.5, 1.0, 2.0])
    batched = d.tilt(log_ref, reward, beta)
    for i in range(3):
        np.testing.assert_allclose(batched[i], d.tilt(log_ref[i], reward, beta[i]), rtol=1e-15)


def test_geometric_mixture_supports():
    p, q = np.log([0.5, 0.5]), np.array([0.0, -np.inf])
    np.testing.assert_allclose(np.exp(d.geometric_mixture([p, q], [0.5, 0.5])), [1, 0])
    np.testing.assert_allclose(d.geometric_mixture([p, q], [1.0, 0.0]), p)
    with pytest.raises(ValueError, match="no normaliser"):
        d.geometric_mixture([p, q], [2.0, -1.0])
    both = d.geometric_mixture([q, q], [2.0, -1.0])
    np.testing.assert_array_equal(both, q)


def test_sample_frequencies_and_reproducibility():
    log_p = np.log([0.2, 0.0001, 0.7999])
    draws = d.sample(log_p, 200_000, 1)
    np.testing.assert_array_equal(draws, d.sample(log_p, 200_000, 1))
    z = (np.bincount(draws, minlength=3) - 2e5 * np.exp(log_p)) / np.sqrt(2e5 * np.exp(log_p))
    assert np.abs(z).max() < 5
    assert d.sample(np.array([-np.inf, 0.0]), (2, 3), 0).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_sample_of_a_batch_inverts_the_distribution_of_each_row():
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((2, 3, 4))
    logits[0, 0, 0] = logits[0, 1, 1] = logits[1, 2, 3] = -np.inf
    log_p = d.log_normalize(logits)
    draws = d.sample(log_p, (5, 40), 7)
    assert draws.shape == (2, 3, 5, 40)
    assert draws.dtype == np.int64
    cumulative = np.cumsum(np.exp(log_p), axis=-1)[..., None, None, :]
    uniforms = np.random.default_rng(7).random((2, 3, 5, 40, 1))
    np.testing.assert_array_equal(draws, np.sum(uniforms >= cumulative, axis=-1))


class TestTorch:
    """The same call on tensors: the same numbers, and gradients equal to the closed forms."""

    log_ref, reward = reference(3, 1.0)

    def test_values_agree(self):
        ours = d.tilt(self.log_ref, self.reward, 0.7), d.log_partition(self.log_ref, self.reward, 0.7)
        theirs = (
            d.tilt(torch.tensor(self.log_ref), torch.tensor(self.reward), 0.7),
            d.log_partition(torch.tensor(self.log_ref), torch.tensor(self.reward), 0.7),
        )
        for a, b in zip(ours, theirs):
            assert isinstance(b, torch.Tensor)
            np.testing.assert_allclose(b.numpy(), a, rtol=1e-12)

    @pytest.mark.parametrize("beta", [0.1, 5.0, 1e3])
    def test_gradient_of_log_partition_is_the_tilt(self, beta):
        reward = torch.tensor(self.reward, requires_grad=True)
        d.log_partition(torch.tensor(self.log_ref), reward, beta).backward()
        np.testing.assert_allclose(
            reward.grad.numpy(), np.exp(d.tilt(self.log_ref, self.reward, beta)) / beta, atol=1e-13
        )

    def test_gradient_of_entropy_with_a_zero(self):
        logits = torch.tensor([0.3, -0.2, 1.0, -torch.inf], dtype=torch.float64, requires_grad=True)
        d.entropy(d.log_normalize(logits)).backward()
        p = np.exp(d.log_normalize(np.array([0.3, -0.2, 1.0, -np.inf])))
        h = float(d.entropy(np.log(p[:3])))
        np.testing.assert_allclose(logits.grad.numpy()[:3], -p[:3] * (np.log(p[:3]) + h), atol=1e-14)
        assert not torch.isnan(logits.grad).any()

    def test_mixing_libraries_is_an_error(self):
        with pytest.raises(TypeError, match="mix"):
            d.tilt(torch.zeros(2, dtype=torch.float64) - np.log(2), np.zeros(2), 1.0)

    @pytest.mark.parametrize("event", [torch.tensor([1, 0]), [True, False]])
    def test_an_event_is_a_boolean_tensor(self, event):
        half = torch.zeros(2, dtype=torch.float64) - np.log(2)
        assert d.condition(half, torch.tensor([True, False])).tolist() == [0.0, -np.inf]
        with pytest.raises(TypeError, match="event: must be a boolean mask"):
            d.condition(half, event)


def test_logits_beside_which_the_log_of_their_sum_is_rounded_away():
    """-> a law: 1e17 + log 2 is 1e17, so that subtracting the log of the sum would leave a mass of 2."""
    np.testing.assert_allclose(np.exp(d.log_normalize(np.array([1e17, 1e17, -1e17, -np.inf]))), [0.5, 0.5, 0, 0])
