"""What each kind accepts and refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy

from klsim.claims.kinds import Effect, Exists, Identity, Inequality, Limit, Optimality, Symbolic
from klsim.claims.outcome import MalformedCheck, NotANumber
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

    def test_the_scale_may_belong_to_the_kind(self):
        assert Identity(1e-12, scale=1).judge((1e-13, 0.0)).verdict == "holds"
        assert Identity(1e-12, scale=1).judge((5e-12, 0.0)).verdict == "refuted"

    def test_nan_is_an_error_and_equal_infinities_agree(self):
        with pytest.raises(NotANumber):
            Identity().judge((math.nan, math.nan))
        assert Identity().judge((math.inf, math.inf)).verdict == "holds"
        assert Identity().judge((math.inf, -math.inf)).verdict == "refuted"
        assert Identity().judge((math.inf, 1.0)).verdict == "refuted"

    def test_finds_the_worst_instance_of_a_batch(self):
        judged = Identity().judge((np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.5, 3.0])), size=3)
        assert judged.verdict == "refuted"
        assert (judged.measured["lhs"], judged.measured["rhs"]) == (2.0, 2.5)
        assert judged.measured["worst_error"] == pytest.approx(0.2)
        assert "fails by 0.5, 0.2 of 2.5" in judged.summary

    def test_trailing_axes_belong_to_the_instance(self):
        lhs = np.zeros((2, 3))
        rhs = np.array([[0.0, 0, 0], [0, 0, 1]])
        np.testing.assert_array_equal(Identity().measure((lhs, rhs), size=2).excess, [0, 1])

    def test_the_worst_part_decides(self):
        judged = Identity().judge({"good": (1.0, 1.0), "bad": (1.0, 2.0)})
        assert (judged.verdict, judged.part) == ("refuted", "bad")

    @pytest.mark.parametrize("returned", [1.0, (1.0,), {}, {"a": 3.0}, (1.0, "x"), (np.zeros(2), np.zeros(3))])
    def test_a_malformed_return_is_an_error_not_a_verdict(self, returned):
        with pytest.raises(MalformedCheck):
            Identity().judge(returned)

    def test_a_batched_check_must_return_one_value_an_instance(self):
        for returned in ((1.0, 1.0), (np.ones(3), 1.0)):
            with pytest.raises(MalformedCheck, match=r"one value an instance.*batched=False"):
                Identity().judge(returned, size=4)

    def test_a_scalar_side_stands_for_all_instances(self):
        assert Identity().judge((np.ones(4), 1.0), size=4).verdict == "holds"

    def test_dropped_instances_may_be_anything(self):
        kept = np.array([True, False])
        assert Identity().measure((np.array([1.0, np.nan]), 1.0), size=2, kept=kept).excess.max() == 0


class TestOneSided:
    def test_inequality_direction_and_rounding(self):
        assert Inequality(1e-12).judge((1.0, 2.0)).verdict == "holds"
        assert Inequality(1e-12).judge((1.0 + 1e-14, 1.0)).verdict == "holds"
        assert Inequality(1e-12).judge((1.0 + 1e-10, 1.0)).verdict == "refuted"

    def test_infinite_sides(self):
        assert Inequality().judge((1.0, math.inf)).verdict == "holds"
        assert Inequality().judge((math.inf, 1.0)).verdict == "refuted"
        assert Inequality().judge((-math.inf, 1.0)).verdict == "holds"
        with pytest.raises(NotANumber):
            Inequality().judge((math.nan, 1.0))

    def test_reports_the_tightest_instance(self):
        judged = Inequality().judge((np.array([0.0, 0.9, 0.5]), np.ones(3)), size=3)
        assert judged.measured["lhs"] == 0.9
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

    def test_the_exponent_is_that_at_the_end(self):
        n = 2.0 ** np.arange(1, 8)
        judged = Limit(rate=-1.0).judge((n, 1 / n + 3 / n**2))
        assert judged.verdict == "holds"
        assert judged.measured["exponent"] == pytest.approx(-1, abs=0.01)
        assert Limit(rate=-1.0, rate_tol=0.05).judge((n, 1 / n**1.2 + 3 / n**2.2)).verdict == "refuted"

    def test_a_range_that_is_too_short_shows_nothing(self):
        n = np.array([2.0, 4.0, 8.0])
        assert Limit(rate=-1.0).judge((n, 1 / n + 3 / n**2)).verdict == "not_shown"
        assert Limit(rate=-1.0).judge((n[:2], 1 / n[:2])).verdict == "not_shown"

    def test_noise_widens_the_interval(self):
        noisy = self.long**-0.5 * np.exp(0.3 * rng().standard_normal(self.long.size))
        judged = Limit(rate=-0.5, rate_tol=0.05).judge((self.long, noisy))
        assert judged.verdict == "not_shown"
        assert judged.measured["exponent_half_width"] > 0.05
        assert Limit(rate=-0.5, rate_tol=0.3).judge((self.long, noisy)).verdict == "holds"

    long = np.geomspace(10, 1e4, 10)

    def test_zero_has_converged(self):
        assert Limit(rate=-1.0).judge((self.n, 0 * self.n)).verdict == "holds"
        assert Limit(rate=-1.0).judge((self.n, np.array([0.1, 0.01, 0.0]))).verdict == "holds"
        assert Limit(tol=1e-9).judge((self.n, 0 * self.n)).verdict == "holds"

    def test_small_parameters_count_too(self):
        delta = np.array([1e-2, 1e-3, 1e-4])
        assert Limit(rate=1.5).judge((delta, delta**1.5)).verdict == "holds"

    def test_needs_something_that_can_fail(self):
        with pytest.raises(ValueError, match="rate"):
            Limit()

    def test_not_finite(self):
        assert Limit(tol=1.0).judge((self.n, np.array([1.0, math.inf, 0.1]))).verdict == "refuted"
        with pytest.raises(NotANumber):
            Limit(tol=1.0).judge((self.n, np.array([1.0, math.nan, 0.1])))


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

    def test_the_chance_that_other_seeds_do_not_show_it_is_the_simulated_one(self):
        draws = rng()
        shift, seeds = 0.9, 20
        effect = Effect(seeds=seeds)
        missed = [effect._place(*t_interval(shift + draws.standard_normal(seeds)))[0] != "holds" for _ in range(4000)]
        expected = effect._risk(shift, 1.0, seeds)
        assert abs(np.mean(missed) - expected) < 4 * np.sqrt(expected / 4000)

    def test_power_says_how_many_seeds_are_needed(self):
        measured = Effect(seeds=20).judge(0.5 + rng().standard_normal(20), rng()).measured
        assert measured["not_shown_risk"] > 1e-3
        needed = measured["seeds_for_1e-4"]
        assert Effect()._risk(measured["mean"], measured["sd"], needed) <= 1e-4
        assert Effect()._risk(measured["mean"], measured["sd"], needed - 1) > 1e-4
        assert Effect().judge(np.full(20, 1.0), rng()).measured["not_shown_risk"] == 0

    def test_an_equivalence_has_two_sides_to_miss(self):
        effect = Effect(alternative="within", margin=1.0)
        one_sided = Effect(alternative="greater", null=-1.0)
        assert effect._risk(0.0, 1.0, 10) == pytest.approx(2 * one_sided._risk(0.0, 1.0, 10))

    def test_nan_is_an_error(self):
        with pytest.raises(NotANumber):
            Effect().judge(np.array([1.0, np.nan]), rng())

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


def t_interval(values):
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


class TestExists:
    def test_a_witness_makes_it_hold_and_nothing_refutes_it(self):
        assert Exists().conclude(Exists().judge((2.0, 1.0))).verdict == "holds"
        assert Exists().conclude(Exists().judge((1.0, 1.0))).verdict == "not_shown"
        assert Exists().conclude(Exists().judge((1 + 1e-12, 1.0))).verdict == "not_shown"


class TestSymbolic:
    x, y = sympy.symbols("x y", positive=True)

    def test_zero_and_not_zero(self):
        assert Symbolic().judge(sympy.log(self.x * self.y) - sympy.log(self.x) - sympy.log(self.y)).verdict == "holds"
        assert Symbolic().judge(self.x - self.y).verdict == "refuted"

    def test_the_witness_point_is_kept(self):
        assert set(Symbolic().judge(self.x - 2 * self.y).measured["point"]) == {"x", "y"}
