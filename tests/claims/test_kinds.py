"""What each kind accepts and refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy

from klsim.claims.kinds import (
    Effect,
    Identity,
    Inequality,
    Limit,
    MalformedCheck,
    Optimality,
    Symbolic,
)
from klsim.estimators import mean_interval


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class TestIdentity:
    def test_holds_within_the_relative_tolerance(self):
        assert Identity(1e-10).judge((1e6, 1e6 * (1 + 5e-11))).verdict == "holds"
        assert Identity(1e-10).judge((1e6, 1e6 * (1 + 5e-10))).verdict == "refuted"

    def test_scale_is_the_magnitude_of_what_was_added_up(self):
        assert Identity(1e-12).judge((1e-13, 0.0)).verdict == "refuted"
        assert Identity(1e-12).judge((1e-13, 0.0, 1.0)).verdict == "holds"

    def test_nan_breaks_and_equal_infinities_agree(self):
        assert Identity().judge((math.nan, math.nan)).verdict == "refuted"
        assert Identity().judge((math.inf, math.inf)).verdict == "holds"
        assert Identity().judge((math.inf, -math.inf)).verdict == "refuted"
        assert Identity().judge((math.inf, 1.0)).verdict == "refuted"

    def test_finds_the_worst_instance_of_a_batch(self):
        judged = Identity().judge((np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.5, 3.0])), size=3)
        assert (judged.verdict, judged.index) == ("refuted", 1)
        assert judged.measured["worst_error"] == pytest.approx(0.2)

    def test_trailing_axes_belong_to_the_instance(self):
        lhs = np.zeros((2, 3))
        rhs = np.array([[0.0, 0, 0], [0, 0, 1]])
        assert Identity().judge((lhs, rhs), size=2).index == 1

    def test_the_worst_part_decides(self):
        judged = Identity().judge({"good": (1.0, 1.0), "bad": (1.0, 2.0)})
        assert (judged.verdict, judged.part) == ("refuted", "bad")

    @pytest.mark.parametrize("returned", [1.0, (1.0,), {}, {"a": 3.0}, (1.0, "x"), (np.zeros(2), np.zeros(3))])
    def test_a_malformed_return_is_an_error_not_a_verdict(self, returned):
        with pytest.raises(MalformedCheck):
            Identity().judge(returned)

    def test_a_batched_check_must_return_one_value_an_instance(self):
        with pytest.raises(MalformedCheck, match="one value an instance"):
            Identity().judge((1.0, 1.0), size=4)


class TestOneSided:
    def test_inequality_direction_and_rounding(self):
        assert Inequality(1e-12).judge((1.0, 2.0)).verdict == "holds"
        assert Inequality(1e-12).judge((1.0 + 1e-14, 1.0)).verdict == "holds"
        assert Inequality(1e-12).judge((1.0 + 1e-10, 1.0)).verdict == "refuted"

    def test_infinite_sides(self):
        assert Inequality().judge((1.0, math.inf)).verdict == "holds"
        assert Inequality().judge((math.inf, 1.0)).verdict == "refuted"
        assert Inequality().judge((-math.inf, 1.0)).verdict == "holds"
        assert Inequality().judge((math.nan, 1.0)).verdict == "refuted"

    def test_reports_the_tightest_instance(self):
        judged = Inequality().judge((np.array([0.0, 0.9, 0.5]), np.ones(3)), size=3)
        assert judged.index == 1
        assert judged.measured["smallest_slack"] == pytest.approx(0.1)

    def test_optimality_is_broken_by_a_better_challenger(self):
        assert Optimality(1e-9).judge((1.0, 0.99)).verdict == "holds"
        assert Optimality(1e-9).judge((1.0, 1.01)).verdict == "refuted"


class TestLimit:
    n = np.array([10.0, 100.0, 1000.0])

    def test_rate(self):
        assert Limit(rate=-0.5).judge((self.n, 3 * self.n**-0.5)).verdict == "holds"
        assert Limit(rate=-1.0).judge((self.n, 3 * self.n**-0.5)).verdict == "refuted"

    def test_an_error_that_stays_is_not_a_limit(self):
        assert Limit(tol=0.2).judge((self.n, 0.3 + 1 / self.n)).verdict == "refuted"
        assert Limit(tol=0.2).judge((self.n, 0.1 + 0 * self.n)).verdict == "refuted"
        assert Limit(tol=0.2).judge((self.n, 1 / self.n)).verdict == "holds"

    def test_small_parameters_count_too(self):
        delta = np.array([1e-2, 1e-3, 1e-4])
        assert Limit(rate=1.5).judge((delta, delta**1.5)).verdict == "holds"

    def test_needs_something_that_can_fail(self):
        with pytest.raises(ValueError, match="rate"):
            Limit()

    def test_not_finite(self):
        assert Limit(tol=1.0).judge((self.n, np.array([1.0, math.nan, 0.1]))).verdict == "refuted"


class TestEffect:
    def test_directions(self):
        outcomes = 1.0 + 0.1 * rng().standard_normal(20)
        assert Effect(alternative="greater").judge(outcomes, rng()).verdict == "holds"
        assert Effect(alternative="less").judge(outcomes, rng()).verdict == "refuted"
        assert Effect(alternative="within", null=1.0, margin=0.2).judge(outcomes, rng()).verdict == "holds"
        assert Effect(alternative="within", null=2.0, margin=0.2).judge(outcomes, rng()).verdict == "refuted"

    def test_an_interval_that_covers_the_null_shows_nothing(self):
        outcomes = rng().standard_normal(20) * 10
        assert Effect().judge(outcomes, rng()).verdict == "not_shown"

    def test_pairs_are_differenced(self):
        pairs = np.stack([np.arange(20.0) + 1, np.arange(20.0)], axis=1)
        judged = Effect().judge(pairs, rng())
        assert judged.measured["mean"] == 1.0
        assert judged.verdict == "holds"

    def test_interval_covers_the_mean_at_least_as_often_as_promised(self):
        draws = rng()
        covered = sum(low <= 0 <= high for low, high in (
            mean_interval(draws.exponential(size=12) - 1, 0.95, draws) for _ in range(300)
        ))  # fmt: skip
        assert covered / 300 > 0.87  # skewed and small: the bootstrap alone covers about 0.85

    def test_constant_outcomes_have_a_degenerate_interval(self):
        assert mean_interval(np.full(5, 0.3), 0.95, rng()) == (pytest.approx(0.3), pytest.approx(0.3))

    @pytest.mark.parametrize("bad", [{"seeds": 1}, {"alternative": "within"}, {"margin": 0.1}])
    def test_bad_settings(self, bad):
        with pytest.raises(ValueError):
            Effect(**bad)


class TestSymbolic:
    x, y = sympy.symbols("x y", positive=True)

    def test_zero_and_not_zero(self):
        assert Symbolic().judge(sympy.log(self.x * self.y) - sympy.log(self.x) - sympy.log(self.y)).verdict == "holds"
        assert Symbolic().judge(self.x - self.y).verdict == "refuted"

    def test_the_witness_point_is_kept(self):
        assert set(Symbolic().judge(self.x - 2 * self.y).measured["point"]) == {"x", "y"}
