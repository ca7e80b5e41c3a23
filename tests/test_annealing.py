"""Along powers, schedules, annealed importance sampling: against enumeration, extremes, bad input."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from klsim.annealing import along_powers, annealed, schedule, schedule_cost
from klsim.distributions import entropy, log_normalize
from klsim.divergences import kl
from klsim.power import future_sums, power_levels
from klsim.problems.token_tree import sequence_log_probs

RNG = np.random.default_rng(0)
LOG_P = log_normalize(RNG.standard_normal(6))
LEVELS = tuple(log_normalize(RNG.standard_normal((2**t, 2))) for t in range(3))


@pytest.mark.parametrize("alpha", [0.0, 1e-9, 0.5, 1.0, 7.0, 1e6])
def test_curve_at_one_power(alpha):
    right = np.array([True, False, False, True, False, False])
    curve = along_powers(LOG_P, [alpha], right)
    law = log_normalize(alpha * LOG_P)
    assert curve.entropy[0] == pytest.approx(float(entropy(law)), abs=1e-12)
    assert curve.accuracy[0] == pytest.approx(np.exp(law) @ right, rel=1e-12)
    assert curve.log_z[0] == pytest.approx(np.logaddexp.reduce(alpha * LOG_P), rel=1e-12, abs=1e-12)
    assert curve.variance[0] == pytest.approx(np.exp(law) @ (LOG_P - np.exp(law) @ LOG_P) ** 2, rel=1e-9, abs=1e-15)


def test_curve_without_support_and_of_one_outcome():
    curve = along_powers([0.0, -np.inf], [0.0, 3.0])
    assert curve.entropy.tolist() == [0.0, 0.0]
    assert curve.variance.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("kind", ["linear", "geometric", "equal length"])
@pytest.mark.parametrize("alpha", [0.2, 1.0, 9.0])
def test_schedules(kind, alpha):
    powers = schedule(LOG_P, alpha, 8, kind)
    assert powers[0] == 1.0
    assert powers[-1] == pytest.approx(alpha)
    assert np.all(np.diff(powers) * (alpha - 1) >= 0)
    laws = [log_normalize(a * LOG_P) for a in powers]
    assert schedule_cost(LOG_P, powers) == pytest.approx(sum(float(kl(p, q)) for p, q in pairwise(laws)), abs=1e-13)


def test_equal_lengths_are_cheapest():
    costs = {
        kind: schedule_cost(LOG_P, schedule(LOG_P, 20.0, 12, kind)) for kind in ("linear", "geometric", "equal length")
    }
    assert min(costs, key=costs.get) == "equal length"
    # where the likelihood does not vary, any schedule costs nothing
    flat = np.full(4, -np.log(4))
    assert schedule_cost(flat, schedule(flat, 5.0, 3)) == 0.0


def test_tiny_steps_keep_their_cost():
    law = LOG_P[np.isfinite(LOG_P)]
    variance = along_powers(LOG_P, [1.0]).variance[0]
    assert schedule_cost(law, [1.0, 1.0 + 1e-7]) == pytest.approx(0.5e-14 * variance, rel=1e-5, abs=0)


@pytest.mark.parametrize("sweeps", [0, 1, 3])
def test_annealed_is_properly_weighted(sweeps):
    found = annealed(LEVELS, [1.0, 1.5, 2.5, 4.0], sweeps)
    assert found.log_mean == pytest.approx(float(future_sums(LEVELS, 4.0)[0][0]), rel=1e-12)
    np.testing.assert_allclose(found.log_weighted, sequence_log_probs(power_levels(LEVELS, 4.0)), atol=1e-10)
    if not sweeps:
        np.testing.assert_allclose(found.log_law, sequence_log_probs(LEVELS), atol=1e-12)


def test_annealed_by_simulation():
    """Two powers and one step between: weights p at 1, then a step at 2, then p."""
    from klsim.power import suffix_chain

    rng, p = np.random.default_rng(2), np.exp(sequence_log_probs(LEVELS))
    first = rng.choice(8, 100_000, p=p)
    upto = np.cumsum(suffix_chain(LEVELS, 2 * np.log(p)), axis=1)
    second = (upto[first] < rng.random(100_000)[:, None]).sum(axis=1)
    weight = p[first] * p[second]
    found = annealed(LEVELS, [1.0, 2.0, 3.0], 1)
    error = weight.std() / np.sqrt(len(weight))
    assert weight.mean() == pytest.approx(np.exp(found.log_mean), abs=5 * error)
    assert weight.var() / weight.mean() ** 2 == pytest.approx(found.relative_variance, rel=0.05)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: along_powers(LOG_P, [-1.0]), r"alpha\[0\] = -1.0"),
        (lambda: along_powers(LOG_P, 2.0), "alpha: must be a vector"),
        (lambda: along_powers(LOG_P[None], [1.0]), "log_p: must be one law"),
        (lambda: along_powers(LOG_P, [1.0], np.array([True])), "right"),
        (lambda: schedule(LOG_P, 0.0, 3), "alpha = 0.0"),
        (lambda: schedule(LOG_P, 2.0, 0), "steps = 0"),
        (lambda: schedule(LOG_P, 2.0, 3, "cosine"), "kind"),
        (lambda: schedule_cost(LOG_P, [1.0]), "powers: must be a vector of at least two"),
        (lambda: annealed(LEVELS, [2.0, 3.0]), "powers = 2.0: must begin with 1"),
        (lambda: annealed(LEVELS, [1.0, 3.0], -1), "sweeps = -1"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
