"""The frontier's estimator against enumeration, brute force and exact frontiers."""

import json
import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import comb, logsumexp

from klsim import best_of_n, frontier
from klsim.frontier.coverage import FAMILIES, Population, exact_frontier, population, simulate
from klsim.frontier.estimate import MAX_BLOCKS, as_json
from klsim.kernels.log_partition import best_of_n_sums, log_partitions, tilted_moments
from klsim.optima import kl_constrained, kl_regularized

GRID = np.array([0.3, 1.7])


def plain(r, lam):
    return logsumexp(lam * r) - math.log(len(r))


def jackknifed(r, lam):
    if len(r) == 1:
        return plain(r, lam)
    without = [plain(np.delete(r, j), lam) for j in range(len(r))]
    return len(r) * plain(r, lam) - (len(r) - 1) * np.mean(without)


@pytest.mark.parametrize(
    "rewards",
    [
        [0.0, 1.0, 0.25, 0.7, 0.9],
        [0.0, 0.0, 1.0, 0.0],  # one success
        [1.0, 1.0, 1.0],  # ties everywhere
        [0.0, 1.0],
        [0.0, 500.0, 2.0, 1.0, 3.0],  # one sample dominates: the others underflow
        [0.0, 1e-9, 2e-9],
    ],
)
def test_log_partitions_and_their_jackknife(rewards):
    r = np.array(rewards)
    starts = np.array([0, len(r)])
    out = log_partitions(r, starts, np.array([0]), np.array([0, 1]), GRID, 4)[0]
    half = len(r) // 2
    for o in range(4):
        for g, base in enumerate(GRID):
            lam = base * 2**o
            wanted = (
                plain(r, lam),
                jackknifed(r, lam),
                0.5 * (jackknifed(r[:half], lam) + jackknifed(r[half:], lam)),
            )
            assert out[o * 2 + g] == pytest.approx(wanted, rel=1e-11, abs=1e-12)


def test_the_jackknife_removes_the_bias_of_first_order():
    """Exactly, over all samples of size n from a coin: what is left falls by four when n doubles, not by two."""
    p, lam = 0.4, 1.5
    truth = math.log(1 - p + p * math.exp(lam))
    left = []
    for n in (16, 32, 64):
        total = [0.0, 0.0]
        for c in range(n + 1):
            r = np.array([0.0] * (n - c) + [1.0] * c)
            chance = comb(n, c) * p**c * (1 - p) ** (n - c)
            out = log_partitions(r, np.array([0, n]), np.array([0]), np.array([0, 1]), np.array([lam, lam]), 1)[0, 0]
            total = [t + chance * (x - truth) for t, x in zip(total, out[:2])]
        left.append(total)
    for k, factor in ((0, 2.0), (1, 4.0)):
        ratios = [left[i][k] / left[i + 1][k] for i in range(2)]
        assert ratios == pytest.approx([factor, factor], rel=0.15)
    assert abs(left[1][1]) < abs(left[1][0]) / 50


def test_tilted_moments_are_those_of_the_exact_optimum():
    r = np.random.default_rng(0).normal(size=12)
    for lam in (1e-6, 0.3, 4.0, 200.0):
        found = kl_regularized(np.full(12, -math.log(12)), r, 1 / lam)
        p = np.exp(found.log_policy)
        got = tilted_moments(r, np.array([0, 12]), np.array([lam]))[0, 0]
        assert got == pytest.approx([found.reward, found.kl, 1 / np.sum(p**2)], rel=1e-9, abs=1e-12)


def test_best_of_n_against_all_subsets():
    from itertools import combinations

    r = np.sort(np.array([0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 3.0]))
    counts = np.arange(1, 8)
    log_factorial = np.array([math.lgamma(i + 1) for i in range(8)])
    split = np.concatenate([np.sort(r[::2][:3]), np.sort(r[[1, 3, 5, 6]])])  # two halves, each sorted
    where = (np.array([0, 7]), np.array([0]), np.array([0, 1]))
    all_atoms = np.ones(7, dtype=bool)
    sums = best_of_n_sums(r, split, all_atoms, all_atoms, *where, counts, log_factorial, True)[0]

    def kl(x, n):
        return best_of_n.kl(np.full(len(x), -math.log(len(x))), x, n)

    def jackknife(x, n):
        return len(x) * kl(x, n) - (len(x) - 1) * np.mean([kl(np.delete(x, j), n) for j in range(len(x))])

    for n in counts.tolist():
        best = np.mean([max(r[list(s)]) for s in combinations(range(7), n)])
        assert sums[n - 1, 0] == pytest.approx(best, rel=1e-12)
        assert sums[n - 1, 1] == pytest.approx(jackknife(r, n), abs=1e-12)
        assert sums[n - 1, 2] == pytest.approx((jackknife(split[:3], n) + jackknife(split[3:], n)) / 2, abs=1e-12)
        wins = []
        for s in combinations(range(7), n + 1):  # each in turn against the best of the others
            for one in s:
                other = max(r[j] for j in s if j != one)
                wins.append(1.0 if other > r[one] else 0.5 if other == r[one] else 0.0)
        assert sums[n - 1, 3] == pytest.approx(np.mean(wins) if n < 7 else 0.0, rel=1e-12)


def many_samples(laws: Population, each: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    draws = np.stack([rng.choice(len(p), each, p=p) for p in np.exp(laws.log_ref)])
    reward = np.take_along_axis(laws.reward, draws, axis=1)
    return np.repeat(np.arange(len(draws)), each), reward.ravel()


def test_the_frontier_of_known_laws():
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(6), 30)
    laws = Population(np.log(p), rng.normal(size=(30, 6)))
    found = frontier.estimate(*many_samples(laws, 20_000), budgets=[0.01, 0.1, 0.5, 1.0])
    for point in found.points:
        reward, beta = exact_frontier(laws, point.budget)
        # one standard error of a mean over 30 prompts x 20,000 samples is about 2e-3
        assert point.reward.value == pytest.approx(reward, abs=6e-3)
        assert point.beta == pytest.approx(beta, rel=0.02)
        assert point.trusted
    assert found.reference.value == pytest.approx(float((p * laws.reward).sum(1).mean()), abs=6e-3)


def test_the_exact_frontier_is_the_constrained_optimum():
    """One prompt twice: the averaged problem is then the plain one."""
    log_ref, r = np.log([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 0.4])
    laws = Population(np.stack([log_ref] * 2), np.stack([r] * 2))
    for budget in (0.01, 0.3, 0.9):
        assert exact_frontier(laws, budget)[0] == pytest.approx(kl_constrained(log_ref, r, budget).reward, rel=1e-9)


def test_one_beta_is_shared():
    """Prompts whose rewards have different scales: splitting the budget evenly is worse."""
    rng = np.random.default_rng(0)
    laws = Population(np.full((2, 50), -math.log(50)), rng.normal(size=(2, 50)) * [[0.1], [3.0]])
    even = np.mean([kl_constrained(laws.log_ref[i], laws.reward[i], 0.5).reward for i in range(2)])
    shared = exact_frontier(laws, 0.5)[0]
    assert shared > even + 0.1
    found = frontier.estimate(*many_samples(laws, 50_000), budgets=[0.5])
    assert found.points[0].reward.value == pytest.approx(shared, abs=0.05)
    assert found.points[0].kl_of_prompts[2] > 5 * found.points[0].kl_of_prompts[0]


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_reward_units(scale, shift):
    prompt = np.repeat(np.arange(40), 16)
    r = np.random.default_rng(0).normal(size=640)
    one = frontier.estimate(prompt, r, budgets=[0.1, 0.5])
    other = frontier.estimate(prompt, scale * (r + shift), budgets=[0.1, 0.5])
    for a, b in zip(one.points, other.points):
        assert b.reward.value / scale - shift == pytest.approx(a.reward.value, rel=1e-6, abs=1e-6)
        assert b.reward.low / scale - shift == pytest.approx(a.reward.low, rel=1e-6, abs=1e-6)
        assert b.beta / scale == pytest.approx(a.beta, rel=1e-6)
        assert b.trusted == a.trusted


def test_the_result_does_not_depend_on_names_and_has_the_same_bytes_again():
    rng = np.random.default_rng(1)
    prompt, r = np.repeat(np.arange(30), 8), rng.random(240)
    one = frontier.estimate(prompt, r)
    assert frontier.estimate(prompt, r) == one
    assert frontier.estimate([f"prompt {i}" for i in prompt], r) == one
    json.dumps(as_json(one), allow_nan=False)


def test_budgets_beyond_the_samples_are_marked():
    prompt, r = np.repeat(np.arange(100), 8), np.random.default_rng(0).normal(size=800)
    found = frontier.estimate(prompt, r, budgets=[0.05, 2.0, 3.0])
    assert found.limit == pytest.approx(math.log(8))
    assert found.points[0].trusted
    assert not found.points[1].trusted
    assert "at most 2.08 nats" in found.points[2].reason
    assert math.isfinite(found.points[2].reward.high)
    assert "at 0.05 nats" in found.recommendation
    coins = frontier.estimate(np.repeat(np.arange(2), 4), [0, 1, 0, 1, 0, 0, 0, 1.0])
    assert coins.limit == pytest.approx((math.log(2) + math.log(4)) / 2)  # ties at the top: less than log n
    assert coins.binary
    assert any("rough" in note for note in coins.notes)


def test_pass_at_k_and_win_rate():
    rng = np.random.default_rng(0)
    success = rng.beta(1, 1, 300)
    r = (rng.random((300, 16)) < success[:, None]).astype(float)
    found = frontier.estimate(np.repeat(np.arange(300), 16), r.ravel())
    from klsim.estimators import pass_at_k

    for b in found.best_of_n:
        assert b.reward.value == pytest.approx(pass_at_k(16, r.sum(axis=1).astype(int), b.n).mean(), abs=1e-10)
        assert b.kl.high <= b.kl_bound + 1e-12
        assert b.reward.low <= b.reward.value <= b.reward.high
        assert (b.win_rate is None) == (b.n == 16)  # no U-statistic with all samples
    assert found.best_of_n[0].win_rate.value == pytest.approx(0.5)


def test_more_prompts_than_blocks():
    rng = np.random.default_rng(0)
    prompts = MAX_BLOCKS + 1234
    r = rng.normal(rng.normal(size=(prompts, 1)), 1, (prompts, 8))
    found = frontier.estimate(np.repeat(np.arange(prompts), 8), r.ravel(), budgets=[0.1], resamples=500)
    # the prompts' means vary with variance 1 + 1/8
    width = 2 * 1.96 * math.sqrt(1.125 / prompts)
    assert found.reference.high - found.reference.low == pytest.approx(width, rel=0.1)
    # normal rewards: R = m + s sqrt(2 KL)
    assert found.points[0].reward.value == pytest.approx(math.sqrt(0.2), abs=4 * width / 2)


def test_a_trained_policy_on_the_frontier_is_efficient():
    laws = population("token trees")
    some = Population(laws.log_ref[:150], laws.reward[:150])
    beta = 0.4
    tilt = some.log_ref + some.reward / beta
    tilt -= logsumexp(tilt, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    prompt, reward = many_samples(some, 64)
    a = np.stack([rng.choice(64, 64, p=p) for p in np.exp(tilt)])
    rows = {
        "policy_prompt": np.repeat(np.arange(150), 64),
        "policy_reward": np.take_along_axis(some.reward, a, 1).ravel(),
        "policy_logp": np.take_along_axis(tilt, a, 1).ravel(),
        "ref_logp": np.take_along_axis(some.log_ref, a, 1).ravel(),
    }
    p = frontier.estimate(prompt, reward, **rows).policy
    kl = float((np.exp(tilt) * (tilt - some.log_ref)).sum(axis=1).mean())
    assert p.k1.low <= kl <= p.k1.high
    assert p.k3.low <= kl <= p.k3.high
    assert p.efficiency.low <= 1 <= p.efficiency.high
    assert p.missed_reward.low <= 0 <= p.missed_reward.high
    # the same policy with every second log-probability half a nat lower: more KL for the same reward
    worse = frontier.estimate(prompt, reward, **rows | {"ref_logp": rows["ref_logp"] - 0.3}).policy
    assert worse.efficiency.high < 0.8
    assert worse.missed_reward.low > 0


def test_prompts_without_both_policies_are_left_out_aloud():
    rng = np.random.default_rng(0)
    prompt, r = np.repeat(np.arange(30), 8), rng.random(240)
    policy = {"policy_prompt": np.arange(20, 50), "policy_reward": rng.random(30)}
    logps = {"policy_logp": np.zeros(30), "ref_logp": -rng.random(30)}
    found = frontier.estimate(prompt, r, **policy, **logps)
    assert found.prompts == 10
    assert "10 of 50 prompts" in found.notes[0]
    keep = prompt >= 20
    alone = frontier.estimate(prompt[keep], r[keep], budgets=[0.1])
    assert found.best_of_n[0].reward.value == pytest.approx(alone.best_of_n[0].reward.value)
    with pytest.raises(ValueError, match="no prompt in common"):
        frontier.estimate(prompt, r, **policy | {"policy_prompt": np.arange(90, 120)}, **logps)


# heavy tails are trusted rarely, and not covered where they are: no rule on the samples sees that (coverage page)
@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "heavy-tailed"])
def test_intervals_cover(family):
    """Sixty files: 95 % intervals miss at most what the binomial allows (P < 1e-4: 12 of 60); half as wide, more."""
    laws = population(family)
    truth, _ = exact_frontier(laws, 0.2)
    missed = narrow = 0
    for seed in range(60):
        rows = simulate(laws, 32, np.random.default_rng([11, seed]))
        e = frontier.estimate(rows["prompt"], rows["reward"], budgets=[0.2], resamples=500, seed=seed).points[0]
        assert e.trusted
        missed += not e.reward.low <= truth <= e.reward.high
        narrow += abs(truth - e.reward.value) > (e.reward.high - e.reward.low) / 4
    assert missed <= 12 < narrow


def test_plot_draws_every_series():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    rows = simulate(population("gaussian"), 8, np.random.default_rng(0), 200)
    del rows["gold"]
    found = frontier.estimate(**rows)
    axes = found.plot(Figure().subplots())
    labels = axes.get_legend_handles_labels()[1]
    assert {"best of N", "trained policy", "reference"} <= set(labels)
    assert "nats" in axes.get_xlabel()
    assert axes.get_ylabel()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reward": [0.0, 1.0, math.nan, 1.0]}, r"reward\[2\]"),
        ({"reward": [0.0, 1.0, math.inf, 1.0]}, r"reward\[2\]"),
        ({"reward": [1.0, 1.0, 1.0, 1.0]}, "all 4 rewards are 1"),
        ({"reward": [0.0, 0.0, 1.0, 1.0]}, "constant within every prompt"),
        ({"reward": [[0.0, 1.0], [1.0, 1.0]]}, "one value a row"),
        ({"prompt": [1, 2, 3, 4]}, "every prompt has one sample"),
        ({"prompt": [1, 1, 1, 2]}, "1 of 2 prompts have at least 2 samples"),
        ({"prompt": [1, 1, 1, 1]}, "at least two prompts"),
        ({"prompt": [1, 1, 2]}, "one prompt a row"),
        ({"prompt": [1.0, 1.0, math.nan, 2.0]}, "NaN in row 2"),
        ({"budgets": [0.1, 0.0]}, "budgets"),
        ({"budgets": [0.1, math.nan]}, "budgets"),
        ({"level": 1.0}, "level"),
        ({"resamples": 3}, "resamples"),
        ({"seed": -1}, "seed"),
        ({"policy_reward": [1.0]}, "policy_prompt: is needed with policy_reward"),
        (
            {"policy_prompt": [1], "policy_reward": [1.0], "policy_logp": [0.0, 1.0], "ref_logp": [0.0]},
            "policy_logp: has 2 rows, policy_prompt 1",
        ),
        (
            {"policy_prompt": [1], "policy_reward": [1.0], "policy_logp": [math.nan], "ref_logp": [0.0]},
            r"policy_logp\[0\]",
        ),
    ],
)
def test_bad_input(changed, message):
    good = {"prompt": [1, 1, 2, 2], "reward": [0.0, 1.0, 0.5, 1.0]}
    with pytest.raises(ValueError, match=message):
        frontier.estimate(**good | changed)


def test_needed_kl_is_the_inverse_of_the_frontier():
    laws = population("gaussian")
    rows = simulate(laws, 32, np.random.default_rng(0))
    del rows["gold"]
    found = frontier.estimate(**rows, budgets=np.geomspace(0.01, 1.5, 60))
    budgets = [p.budget for p in found.points]
    rewards = [p.reward.value for p in found.points]
    wanted = brentq(lambda b: np.interp(b, budgets, rewards) - found.policy.reward.value, 0.01, 1.5)
    assert found.policy.needed_kl.value == pytest.approx(wanted, rel=0.01)
