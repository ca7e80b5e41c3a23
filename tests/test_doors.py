"""What a door lets in, how it names what it does not, and what comes back: kinds, sizes, names, limits."""

from __future__ import annotations

import functools
import math

import mpmath
import numpy as np
import pandas as pd
import pytest
import torch

from klsim import (
    best_of_n,
    distributions,
    divergences,
    estimators,
    learning,
    mass_balance,
    objectives,
    optima,
    planning,
)
from klsim.best_of_n import RewardLaw
from klsim.learning import (
    expected_gradient,
    functional_gradient,
    functionals,
    objective_checks,
    random_prompts,
    value_regression,
)
from klsim.memoryless import MarkovSource, MemorylessSource, law_kl, tilt_law
from klsim.objectives import distillation, preferences, several_attempts
from klsim.objectives.registry import OBJECTIVES
from klsim.problems import DiscountedMDP, MaskedDiffusionLM, TabularMDP, TokenTree, masked_diffusion, token_tree

HALF = np.log([0.5, 0.5])


class TestRareBestOutcomes:
    def test_chi2_keeps_both(self):
        found = optima.f_regularized(np.array([np.log(1e-16), 0.0]), [1.0, 0.0], 1e-16, "chi2")
        np.testing.assert_allclose(np.exp(found.log_policy), [0.5, 0.5], rtol=1e-12)
        assert float(found.value) == pytest.approx(0.25, rel=1e-12)
        assert found.converged
        assert float(found.gap) < 1e-14

    @pytest.mark.parametrize("generator", ["js", "forward_kl", "hellinger", "alpha(0.5)", "kl", "alpha(-1)"])
    def test_the_gap_is_finite(self, generator):
        found = optima.f_regularized(np.log([1e-15, 1.0]), [1.0, 0.0], 0.01, generator)
        assert found.converged
        assert float(found.gap) < 1e-13

    def test_converged_looks_at_the_gap(self, monkeypatch):
        def wrong(log_p, r, b, drop, generator):
            return (np.zeros_like(log_p), np.ones(b.size, dtype=bool))

        monkeypatch.setattr(optima, "_ratio", wrong)
        found = optima.f_regularized(HALF, [1.0, 0.0], 0.1, "chi2")
        assert not found.converged
        assert "gap is above rounding" in found.reason


class TestLimits:
    def test_rewards_that_overflow_a_quotient(self):
        found = optima.kl_regularized(HALF, [0.0, 1e300], 1e-9)
        assert found.log_policy.tolist() == [-math.inf, 0.0]
        assert float(found.value) == 1e300
        assert float(found.kl) == pytest.approx(math.log(2), rel=1e-15)

    def test_a_span_above_the_largest_float(self):
        small, large = (optima.kl_constrained(HALF, [-s, s], 0.2) for s in (1.0, 1e308))
        assert float(large.reward) == pytest.approx(1e308 * float(small.reward), rel=1e-12)
        with pytest.raises(ValueError, match="budget: is too small for rewards of this size"):
            optima.kl_constrained(HALF, [-1e308, 1e308], 0.1)  # the multiplier is 2.2e308
        assert optima.kl_regularized(HALF, [-1e308, 1e308], 1e308).log_policy == pytest.approx(
            optima.kl_regularized(HALF, [-1.0, 1.0], 1.0).log_policy, rel=1e-12
        )

    def test_optimisers_refuse_what_is_no_step(self):
        for bad in (
            lambda: learning.SGD(math.nan),
            lambda: learning.Adam("x"),
            lambda: learning.NaturalGradient(math.inf),
        ):
            with pytest.raises((ValueError, TypeError), match="lr"):
                bad()

    def test_zero_width_is_relative(self):
        low, high = estimators.mean_interval(1e-15 * np.arange(20))
        assert low == pytest.approx(6.7e-15, rel=0.05)
        assert high == pytest.approx(1.23e-14, rel=0.05)
        assert estimators.mean_interval(np.full(5, 1e-15)) == (1e-15, 1e-15)

    def test_markov_sources_at_any_alpha(self):
        source = MarkovSource([[0.5, 0.5], [0.3, 0.7]], [[0, 1], [2, 0]], [0.5, 0.5])
        assert source.mean(800.0) == pytest.approx(1.5, rel=1e-15)
        assert source.mean(math.inf) == 1.5
        assert source.scaled_cumulant(800.0) == pytest.approx(1200 + math.log(0.15) / 2, rel=1e-14)
        with pytest.raises(ValueError, match="at or above the limit"):
            source.alpha_for_budget(1.0)
        with pytest.raises(TypeError, match="alpha = 1j"):
            source.mean(1j)
        with pytest.raises(ValueError, match="irreducible"):
            MarkovSource(np.eye(2), np.zeros((2, 2)), [0.5, 0.5])


class TestGradients:
    @pytest.mark.parametrize("order", [0.0, 1e-6, 0.5, 1.0, 1.5, 2.0, 3.0, 100.0, 2000.0, math.inf])
    def test_renyi_with_outcomes_of_probability_0(self, order):
        z = torch.tensor([0.3, 1.0, -math.inf], dtype=torch.float64, requires_grad=True)
        uniform = torch.full((3,), -math.log(3), dtype=torch.float64)
        divergences.renyi(distributions.log_normalize(z), uniform, order).backward()
        assert torch.isfinite(z.grad).all()
        if order == 2.0:  # log sum p^2 q^-1, softmax by hand
            p = torch.softmax(torch.tensor([0.3, 1.0], dtype=torch.float64), 0)
            weight = p**2 / (p**2).sum()
            np.testing.assert_allclose(z.grad[:2], 2 * (weight - p), rtol=1e-12)


class TestKindsOfArrays:
    def test_half_precision_is_computed_in_float32(self):
        found = distributions.log_normalize(torch.zeros(70_000, dtype=torch.float16))
        assert found.dtype == torch.float16
        assert float(found[0]) == pytest.approx(-math.log(70_000), rel=1e-3)
        half = torch.log_softmax(torch.randn(40, generator=torch.Generator().manual_seed(0)), 0).half()
        optimum = optima.kl_regularized(half, half, 1.0)
        assert optimum.log_policy.dtype == optimum.value.dtype == torch.float16
        assert divergences.kl(half.bfloat16(), half.bfloat16()).dtype == torch.bfloat16
        assert distributions.log_normalize(np.zeros(70_000, dtype=np.float16)).dtype == np.float16

    def test_float32_logs_stay_normalised_when_widened(self):
        p = distributions.log_normalize(np.random.default_rng(0).standard_normal(1000).astype(np.float32))
        assert divergences.kl(p, p.astype(np.float64)).dtype == np.float64
        assert np.isfinite(divergences.kl(p.tolist(), p.astype(np.float64)))
        with pytest.raises(ValueError, match=r"sum to 0\.9999"):
            divergences.kl(np.log([0.49999, 0.5]), HALF)

    def test_float32_transitions(self):
        sevenths = np.full((7, 7), np.float32(1 / 7))
        assert MarkovSource(sevenths, np.eye(7), np.full(7, 1 / 7)).mean(0.0) == pytest.approx(1 / 7, rel=1e-6)

    @pytest.mark.parametrize("function", [best_of_n.kl, best_of_n.win_rate, best_of_n.log_policy])
    def test_series_are_arrays(self, function):
        reward = pd.Series([0.0, 1.0])
        np.testing.assert_array_equal(function(pd.Series(HALF), reward, 3), function(HALF, [0.0, 1.0], 3))
        np.testing.assert_array_equal(optima.kl_regularized(pd.Series(HALF), reward, 1.0).log_policy,
                                      optima.kl_regularized(HALF, [0.0, 1.0], 1.0).log_policy)  # fmt: skip

    def test_what_is_refused(self):
        masked = np.ma.masked_array(HALF, mask=[True, False])
        for bad, error, text in (
            (lambda: distributions.entropy(masked), TypeError, "log_p: must not be a masked array"),
            (lambda: divergences.renyi(HALF, HALF, "2"), TypeError, "alpha = '2'"),
            (lambda: divergences.renyi(HALF, HALF, b"0.9"), TypeError, "alpha = b'0.9'"),
            (lambda: divergences.renyi(HALF, HALF, 10**400), ValueError, "alpha: is too large"),
            (lambda: best_of_n.kl(HALF, [0, 1], 10**400), ValueError, "n: an integer is too large"),
            (lambda: estimators.pass_at_k(2**70, 1, 1), ValueError, "n: its integers must fit in 64 bits"),
        ):
            with pytest.raises(error, match=text):
                bad()
        assert float(best_of_n.kl(HALF, [0, 1], 2**70)) == pytest.approx(math.log(2), rel=1e-12)

    def test_numpy_only_says_so(self):
        t, mask = torch.log(torch.tensor([0.5, 0.5])), torch.tensor([True, False])
        for call in (
            lambda: estimators.leave_one_out_mean(t), lambda: mass_balance.one_step(t, mask, mask, 2),
            lambda: mass_balance.attribution(HALF, mask), lambda: learning.population_gradient(t, t),
            lambda: estimators.mean_interval(t), lambda: value_regression.expectile_value(t, HALF, 0.5),
            lambda: learning.SGD(0.1).step(t, t), lambda: estimators.pass_at_k_exact(t, 2),
        ):  # fmt: skip
            with pytest.raises(TypeError, match="NumPy only"):
                call()


class TestNames:
    @pytest.mark.parametrize("generator", ["kl", "tv", "chi2", "js"])
    def test_worst_case(self, generator):
        with pytest.raises(ValueError, match="value"):
            optima.worst_case(HALF, [math.nan, 0.0], 1.0, generator)
        with pytest.raises(ValueError, match="penalty"):
            optima.worst_case(HALF, [1.0, 0.0], -1.0, generator)

    def test_gumbel_value(self):
        with pytest.raises(ValueError, match="temperature"):
            value_regression.gumbel_value([0.0, 1.0], HALF, -1.0)
        assert value_regression.gumbel_value([0.0, 1.0], HALF, 1e-320) == 1.0

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (lambda: value_regression.quantile_value([0.0, 1.0], HALF, 1), r"lam = 1.0: must lie in \(0.5, 1\)"),
            (lambda: estimators.mean_interval([0.0, 1.0], level=1), r"level = 1.0: must lie in \(0, 1\)"),
            (lambda: estimators.kept_fraction(2, 3, 0.5), r"n = 0.5: must be a whole number"),
        ],
    )
    def test_open_ends(self, call, text):
        with pytest.raises(ValueError, match=text):
            call()

    def test_huge_orders_are_legal(self):
        assert float(divergences.renyi(np.log([0.9, 0.1]), HALF, 2000.0)) == pytest.approx(math.log(1.8), rel=1e-3)


class TestSizes:
    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (lambda: distributions.sample(HALF, 10**9, 0), "size = 1000000000: would need 14.9 GiB"),
            (lambda: distributions.sample(HALF, (10**5, 10**5), 0), "size = 10000000000: would need 149 GiB"),
            (lambda: TokenTree(2, 10**6, [0.0]), "horizon = 1000000: must be <= 10000"),
            (lambda: TokenTree(2, 2**70, [0.0]), "horizon: an integer of 71 bits"),
            (lambda: TokenTree(2**62, 2, [0.0]), "horizon = 2: would need"),
            (lambda: token_tree.tokens(2, 40), "horizon = 40: would need"),
            (lambda: best_of_n.sample(HALF, [0.0, 1.0], 10**5, 10**5, 0), "size = 100000: would need"),
            (lambda: MemorylessSource(HALF, [0.0, 1.0]).lattice_law(10**12), "m = 1000000000000: would need"),
            (lambda: MemorylessSource(HALF, [0.0, 1.0]).type_law(10**12), "m = 1000000000000: would need"),
            (lambda: random_prompts(1, 0, vocab=2, horizon=60), "horizon = 60: would need"),
            (lambda: masked_diffusion.from_joint(HALF, 2, 100), "length = 100: would need"),
        ],
    )
    def test_refused_with_the_size_they_need(self, call, text):
        with pytest.raises(ValueError, match=text):
            call()


class TestWrongTypes:
    MODEL = masked_diffusion.from_joint(np.log(np.full(4, 0.25)), 2, 2)

    @pytest.mark.parametrize(
        "call",
        [
            lambda: masked_diffusion.elbo(None, (0, 1)),
            lambda: masked_diffusion.elbo(TestWrongTypes.MODEL, 3.0),
            lambda: masked_diffusion.elbo_by_orders("x", (0, 1)),
            lambda: masked_diffusion.output_law(1.0),
            lambda: MaskedDiffusionLM(None),
            lambda: tilt_law(3.0, 1.0),
            lambda: law_kl(None, HALF),
            lambda: RewardLaw("a", "b"),
            lambda: learning.TreeProblem(2),
            lambda: learning.TreeProblem([1]),
            lambda: learning.PromptTree(None, None),
            lambda: functional_gradient(3, random_prompts(1, 0)),
            lambda: functional_gradient("reward", 3),
            lambda: expected_gradient(3, random_prompts(1, 0)),
            lambda: objectives.grpo(3),
            lambda: objectives.grpo(None, aggregate=3),
            lambda: objectives.group_mean([1.0, 2.0], "x"),
            lambda: objectives.token_mean(3, 4),
            lambda: learning.train_prompts(3, learning.SGD(1.0), steps=1),
            lambda: learning.simulate_tokens("x", 3),
        ],
    )
    def test_a_clear_error(self, call):
        with pytest.raises((TypeError, ValueError), match=r"^[a-z_]+(\[\d+\])*[ :]"):
            call()


def refuses(*_):
    """A caller's function."""
    raise TypeError("its own reason")


def token_batch(**fields):
    """Two responses of two tokens of three, with everything that a loss may ask for."""
    table = np.log(np.full((2, 2, 3), 1 / 3))
    chosen = dict.fromkeys(("log_probs", "ref_log_probs", "teacher_log_probs", "old_log_probs"), table[..., 0])
    vocab = dict.fromkeys(("vocab_log_probs", "old_vocab_log_probs"), table)
    return objectives.TokenBatch(**chosen, **vocab, tokens=np.zeros((2, 2), int), rewards=[1.0, 0.0], **fields)


FAR = objectives.TokenBatch(log_probs=np.zeros((2, 1)), old_log_probs=[[-2.0], [-2.0]], rewards=[1.0, 0.0])
BATCH, OBJECTIVE = token_batch(), OBJECTIVES["reinforce"]
GROUPS = np.zeros(3, int)
PROMPTS = random_prompts(1, 0)
WRONG = np.array([True, False, True])
TWO, THREE, FLAT = np.stack([np.log(np.full(3, 1 / 3))] * 2), np.ones(3), np.log(np.full(3, 1 / 3))
MDP = DiscountedMDP(np.full((2, 2, 2), 0.5), np.eye(2), 0.9, [0.5, 0.5])
CHAIN = TabularMDP(np.full((2, 2, 2), 0.5), np.eye(2), np.array([0.5, 0.5]), horizon=2)


class TestFuzzed:
    """One row a kind of fault that the fuzz of every public callable has found."""

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (lambda: mass_balance.attribution(TWO, WRONG, THREE), "broadcast, got log_policy: .* r_pos: "),
            (lambda: mass_balance.one_step(FLAT, WRONG, WRONG, THREE, r_neg=[]), "broadcast, got .* r_neg: "),
            (lambda: mass_balance.expected_one_step(TWO, WRONG, 2, lr=THREE), "broadcast, got .* lr: "),
            (lambda: mass_balance.unsampled_second_moment(TWO, THREE), "broadcast, got log_policy: .* n: "),
            (lambda: mass_balance.expected_draw_step(TWO, WRONG, THREE), "broadcast, got .* n: "),
            (
                lambda: mass_balance.score_function_step(FLAT, WRONG, [2, 2, 2], THREE, baseline=HALF),
                "broadcast, got .* baseline: ",
            ),
            (lambda: best_of_n.kl_estimate(HALF, log_n=THREE), "broadcast, got log_prob: .* log_n: "),
            (lambda: best_of_n.kl_estimate(HALF, THREE), "broadcast, got log_prob: .* n: "),
            (lambda: distributions.geometric_mixture(TWO, (HALF, THREE)), r"broadcast, got .* weights\[1\]: "),
            (lambda: objectives.soup(TWO, (HALF, THREE)), r"broadcast, got .* weights\[1\]: "),
            (
                lambda: optima.forward_kl_regularized(FLAT, TWO, np.ones((2, 0))),
                "broadcast, got log_ref: .* reward: .* beta: ",
            ),
            (lambda: optima.kl_constrained(FLAT, TWO, THREE), "broadcast, got log_ref: .* reward: .* budget: "),
        ],
    )
    def test_shapes_that_fit_one_by_one_but_not_together(self, call, text):
        with pytest.raises(ValueError, match=text):
            call()

    @pytest.mark.parametrize("loss", ["grpo", "gpg", "opo", "topr", "g_opd", "optimal_token_baseline"])
    @pytest.mark.parametrize("function", [int, refuses, functools.partial(refuses, 1)])
    def test_a_caller_s_function_that_raises_is_named(self, loss, function):
        with pytest.raises((TypeError, ValueError), match=r"^aggregate: \w+ refuses what it is called with \(.+\)"):
            getattr(objectives, loss)(BATCH, aggregate=function)

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (lambda: objectives.rloo(BATCH, ratio=refuses), "^ratio: refuses refuses .*its own reason"),
            (lambda: objectives.entropy_bonus(BATCH, aggregate=int), "^aggregate: int refuses"),
            (lambda: objectives.opd(BATCH, aggregate=refuses), "^aggregate: refuses refuses"),
            (lambda: objectives.advantages(THREE, GROUPS, scale=refuses), "^scale: refuses refuses"),
            (lambda: objectives.advantages(THREE, GROUPS, baseline=int), "^baseline: int refuses"),
            (lambda: objectives.prompt_weights(refuses, 0.5, 2), r"^estimator: refuses groups of group_size = 2"),
            (lambda: objectives.prompt_weights(lambda r, g: r[:1], 0.5, 2), "^estimator: must return shape"),
            (lambda: learning.functional_value(refuses, PROMPTS), "^name: refuses refuses"),
            (lambda: expected_gradient(refuses, PROMPTS), "^loss: refuses refuses"),
        ],
    )
    def test_so_are_other_functions(self, call, text):
        with pytest.raises((TypeError, ValueError), match=text):
            call()

    def test_the_library_s_own_functions_say_what_they_are_about(self):
        with pytest.raises(ValueError, match=r"^group\[0\] = 0: this response is alone"):
            objectives.advantages([1.0, 0.0], [0, 1])

    @pytest.mark.parametrize("wrong", [THREE, torch.tensor([True, False]), pd.Series([0, 1]), 1, None])
    def test_flags_are_booleans(self, wrong):
        for name, call in (
            ("strict", lambda: objectives.lp_reg(BATCH, strict=wrong)),
            ("deep", lambda: objective_checks.check_gradient(OBJECTIVE, seeds=[0], deep=wrong)),
            ("deep", lambda: objective_checks.prompts_for(OBJECTIVE, 0, deep=wrong)),
        ):
            with pytest.raises(TypeError, match=f"{name} = .*: must be True or False"):
                call()

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (lambda: preferences.log_sigmoid([math.nan, 0.0]), r"x\[0\] = nan: must not be NaN"),
            (lambda: objectives.detach(math.nan), "x = nan: must not be NaN"),
            (lambda: distillation.returns([0.0, math.inf], BATCH, 0.9), r"values\[1\] = inf: must be finite"),
            (lambda: distillation.g_opd_token_reward(BATCH, -math.inf), "lam = -inf"),
            (lambda: objectives.g_opd_full(BATCH, lam=math.inf), "lam = inf"),
            (lambda: objectives.sapo(BATCH, negative=math.inf), "negative = inf"),
            (lambda: objectives.vespo(BATCH, positive=(0.0, math.inf)), r"positive\[1\] = inf"),
            (lambda: objectives.vespo(FAR, negative=(1e30, 1.0)), r"positive \(or negative\): power"),
            (lambda: objectives.iw_opd_weights(BATCH, gamma=math.inf), "gamma = inf"),
            (lambda: objectives.AdaptiveEntropy(entropy=math.nan), "entropy = nan"),
            (lambda: objectives.AdaptiveThreshold().update(math.inf, 0.0), "kl = inf"),
            (lambda: objectives.AdaptiveThreshold().update(0.0, 1e308), r"reward = 1e\+308"),
            (lambda: objectives.beta_scale(1.0, 1e308), r"beta = 1e\+308"),
            (
                lambda: learning.exact_tree_ascent([HALF[None]], [HALF[None]], reward=[0, 1e101]),
                r"reward\[1\] = 1e\+101",
            ),
        ],
    )
    def test_numbers_that_would_make_nan(self, call, text):
        with pytest.raises(ValueError, match=text):
            call()

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (lambda: functionals.parse_term("2"), "^name: functional '2': unknown"),
            (lambda: functionals.parse_term("max_at_k(k=inf)"), "^name: functional .*: k must be a whole number"),
            (
                lambda: learning.functional_value("reward@2", PROMPTS),
                "^name: functional 'reward@2': there is no prompt 2",
            ),
            (
                lambda: functionals.explain(
                    [learning.functional_gradient("reward", PROMPTS)], [PROMPTS], ["reward", "a"]
                ),
                r"^terms\[1\]: functional 'a': unknown",
            ),
            (lambda: masked_diffusion.masked_sets(10**9), "length = 1000000000: would need"),
            (lambda: learning.sqirl(CHAIN, 1, 10**9), "m = 1000000000: would need"),
            (lambda: learning.gorp(CHAIN, 1, 10**9), "m = 1000000000: would need"),
            (lambda: MemorylessSource(HALF, [0.0, 1.0]).rate_function(0.5, THREE), "alpha = ndarray: must be a real"),
            (lambda: objectives.vespo(BATCH, negative=torch.ones(3)), "negative: must be a pair"),
            (lambda: several_attempts.best_of_others(THREE, [0.5, 1, 1], 2), "group: must be"),
            (lambda: learning.TreeProblem(PROMPTS, [0.5]), "together: must be"),
            (lambda: learning.TreeProblem(PROMPTS, [0, 1]), "together: needs one number for each of 1 prompts"),
            (lambda: learning.TreeProblem(PROMPTS).with_rewards("a"), "reward: must hold real numbers"),
            (lambda: learning.TreeProblem(PROMPTS).with_rewards([1.0, 2.0]), "reward: must have shape"),
            (lambda: objective_checks.deepened(3), "objective: must be a Objective"),
            (lambda: objective_checks.with_open_clip("grpo"), "objective: must be a Objective"),
            (lambda: objective_checks.with_default_mean(None), "objective: must be a Objective"),
            (lambda: objective_checks.prompts_for(3, 0), "objective: must be a Objective"),
        ],
    )
    def test_names_sizes_and_kinds(self, call, text):
        with pytest.raises((TypeError, ValueError), match=text):
            call()

    def test_what_was_refused_for_its_kind_is_right_now(self):
        value = torch.tensor([0.5, 0.5], dtype=torch.float64, requires_grad=True)
        np.testing.assert_array_equal(planning.backup(MDP, value)[0], planning.backup(MDP, [0.5, 0.5])[0])
        assert distributions.sample(HALF, (), 0).shape == ()
        assert distributions.sample(torch.as_tensor(HALF).bfloat16(), 5, 0).shape == (5,)
        np.testing.assert_array_equal(
            several_attempts.best_of_others(pd.Series([1.0, 2.0, 3.0]), [0, 0, 0], 2), [3.0, 3.0, 2.0],
        )  # fmt: skip
        table, words = torch.as_tensor(TWO), pd.DataFrame({"a": [0, 1]})
        with pytest.raises(ValueError, match="tokens: must have shape"):
            objectives.sampled(table, words)
        pair = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
        assert float(objectives.vespo(BATCH, positive=pair)[0]) == float(objectives.vespo(BATCH)[0])

    def test_numbers_of_batches_need_not_be_dense(self):
        prompts = random_prompts(3, 0)
        far, near = (learning.TreeProblem(prompts, numbers) for numbers in ([10**9, -5, 10**9], [1, 0, 1]))
        np.testing.assert_array_equal(far.share, [0.5, 1.0, 0.5])
        np.testing.assert_array_equal(far.together, near.together)

    def test_prompt_weights_of_rare_success(self):
        """``E[(r - rbar)/std ...]``: a group of G with one success gives ``sqrt(G - 1)`` as p tends to 0."""
        grpo = functools.partial(objectives.advantages, baseline=objectives.group_mean, scale=objectives.group_std)
        for p in (1e-300, 5e-324):
            assert float(objectives.prompt_weights(grpo, p, 5)[0]) == pytest.approx(2.0, rel=1e-12)
        for p in (0.1, 0.9):
            np.testing.assert_allclose(objectives.prompt_weights(grpo, p, 4), objectives.std_weight([p], 4), rtol=1e-12)

    @pytest.mark.parametrize(
        ("alpha", "beta"), [(1.0, 1.0), (1.5, 1.5), (1.0, 3.0), (40.0, 2.5), (1e6, 1e6), (1.0, 1e6)]
    )
    def test_beta_scale_is_the_density(self, alpha, beta):
        rewards, group = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 1, 2, 2])
        found = objectives.beta_scale(alpha, beta)(rewards, group)
        with mpmath.workdps(40):
            density = [
                float(mpmath.mpf(p) ** (alpha - 1) * (1 - mpmath.mpf(p)) ** (beta - 1) / mpmath.beta(alpha, beta))
                for p in (0.5, 0.5, 1.0, 1.0, 0.0, 0.0)
            ]
        np.testing.assert_allclose(found, density, rtol=1e-8 if max(alpha, beta) > 100 else 1e-13)


def test_cispo_ascends_by_its_stop_gradient_alone():
    """Its gradient is not that of its own expected value; with the weight held fixed by hand it is the same number."""
    prompts = random_prompts(1, 0, vocab=2, horizon=1, eos=None)
    objective = OBJECTIVES["cispo"]
    found = expected_gradient(objective.loss, prompts, group_size=2)
    problem = learning.TreeProblem(prompts)
    step, numerical = 1e-6, np.zeros_like(found.gradient)
    for index in np.ndindex(*numerical.shape):
        ends = []
        for sign in (1, -1):
            logits = problem.tables["policy"].copy()
            logits[index] += sign * step
            moved = problem.with_policy(distributions.log_normalize(logits))
            ends.append(expected_gradient(objective.loss, moved, group_size=2).value)
        numerical[index] = (ends[0] - ends[1]) / (2 * step)
    assert np.abs(numerical - found.gradient).max() > 0.01

    def held(batch):
        advantage = objectives.advantages(batch.rewards, batch.groups(), scale=objectives.group_std)
        return -objectives.token_mean(advantage[:, None] * batch.log_probs, batch.mask)

    again = expected_gradient(held, prompts, group_size=2)
    np.testing.assert_allclose(found.gradient, again.gradient, atol=1e-14)
    assert "stop-gradient" in objectives.cispo.__doc__
