"""The questions that people ask of their rollouts, against exact values and enumeration."""

import importlib.util
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from klsim import frontier
from klsim.cli import app
from klsim.estimators import pass_at_k
from klsim.frontier.coverage import Population, population, simulate
from klsim.kernels.log_partition import best_of_n_gold_sums, tilted_mean_sums
from klsim.optima import kl_regularized

spec = importlib.util.spec_from_file_location("frontier_files", Path(__file__).parent / "files.py")
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)


def drawn(laws: Population, gold: np.ndarray, each: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    at = np.stack([rng.choice(len(p), each, p=p) for p in np.exp(laws.log_ref)])
    rows = (np.take_along_axis(x, at, 1).ravel() for x in (laws.reward, gold))
    return np.repeat(np.arange(len(at)), each), *rows


def small(prompts=120, outcomes=6):
    rng = np.random.default_rng(3)
    laws = Population(np.log(rng.dirichlet(np.ones(outcomes), prompts)), rng.normal(size=(prompts, outcomes)))
    return laws, np.asarray(laws.reward - laws.reward**2)


def test_gold_along_the_tilt_is_that_of_the_exact_optimum():
    laws, gold = small(300)
    found = frontier.gold(*drawn(laws, gold, 800), resamples=300)
    trusted = [p for p in found.tilt if p.trusted]
    # nine lie within what the samples show; of r - r^2 few prompts carry some
    assert len(trusted) >= 5
    for p in trusted:
        exact = kl_regularized(laws.log_ref, laws.reward, p.at)
        wanted = float((np.exp(exact.log_policy) * gold).sum(axis=1).mean())
        # 300 prompts x 800 samples
        assert p.gold.value == pytest.approx(wanted, abs=0.02)
        assert p.kl.value == pytest.approx(float(np.mean(exact.kl)), rel=0.03)
        assert p.proxy.value == pytest.approx(float(np.mean(exact.reward)), abs=0.02)
    assert found.tilt_turn.turns
    curve = [(p.kl.value, p.gold.value) for p in trusted]
    assert found.tilt_turn.gold.value == max(g for _, g in curve)
    assert "falls by" in found.verdict


def test_gold_that_is_the_proxy_does_not_turn():
    laws, _ = small()
    found = frontier.gold(*drawn(laws, laws.reward, 500), resamples=300)
    assert not found.tilt_turn.turns
    assert not found.best_of_n_turn.turns
    for p in found.best_of_n:
        assert p.gold.value == pytest.approx(p.proxy.value, abs=1e-9)


def test_fits_find_the_form_that_is_there():
    """Rewards are normal and gold is ``a r - b r^2``: along the tilt ``E r = d sqrt 2``, so gold is ``d (alpha - beta d)``."""
    r = np.random.default_rng(0).normal(size=(150, 400))
    a, b = 1.0, 0.3
    found = frontier.gold(np.repeat(np.arange(150), 400), r.ravel(), (a * r - b * r**2).ravel(), resamples=300)
    fit = next(f for f in found.fits if f.along == "tilt" and "log" not in f.form)
    assert fit.alpha.low < a * math.sqrt(2) < fit.alpha.high
    assert fit.beta.low < 2 * b < fit.beta.high
    wrong = next(f for f in found.fits if f.along == "tilt" and "log" in f.form)
    assert fit.residual < wrong.residual


def test_kernels_of_gold_against_enumeration():
    r, g = np.array([0.0, 1.0, 1.0, 2.0, 3.0]), np.array([5.0, 1.0, 2.0, 0.0, -4.0])
    where = (np.array([0, 5]), np.array([0]), np.array([0, 1]))
    log_factorial = np.array([math.lgamma(i + 1) for i in range(6)])
    sums = best_of_n_gold_sums(r, g, *where, np.arange(1, 6), log_factorial)[0]
    for n in range(1, 6):
        wanted = [np.mean([g[j] for j in s if r[j] == max(r[list(s)])]) for s in itertools.combinations(range(5), n)]
        # ties are broken at random over all five, which by symmetry is at random within the subset
        assert sums[n - 1] == pytest.approx(np.mean(wanted), rel=1e-12)

    def mean(keep, lam):
        w = np.exp(lam * r[keep])
        return np.sum(w * g[keep]) / np.sum(w)

    lams = np.array([0.1, 1.0, 30.0])
    out = tilted_mean_sums(r, g, *where, lams)[0]
    for k, lam in enumerate(lams):
        every = np.arange(5)
        without = np.mean([mean(np.delete(every, j), lam) for j in range(5)])
        assert out[k, 0] == pytest.approx(5 * mean(every, lam) - 4 * without, rel=1e-10)


def models(seed=0, prompts=200, each=32):
    """A base, and a second model that is better where it was good already and forgets the rest."""
    rng = np.random.default_rng(seed)
    p = np.random.default_rng(1).beta(0.3, 1, prompts)
    q = np.where(p > 0.1, np.minimum(2 * p, 1.0), p / 3)
    rows = [(rng.random((prompts, each)) < x[:, None]).astype(float) for x in (p, q)]
    return p, q, np.repeat(np.arange(prompts), each), rows


def test_two_models_and_where_their_curves_cross():
    p, q, prompt, (a, b) = models()
    found = frontier.against(prompt, a.ravel(), prompt, b.ravel(), resamples=500)
    assert found.binary
    for x in found.pass_at[::5]:
        first = pass_at_k(32, a.sum(axis=1).astype(int), x.k).mean()
        second = pass_at_k(32, b.sum(axis=1).astype(int), x.k).mean()
        assert x.first.value == pytest.approx(first, abs=1e-10)
        assert x.difference.value == pytest.approx(second - first, abs=1e-10)
    k = np.arange(1, 33)
    gap = np.mean((1 - p[:, None]) ** k - (1 - q[:, None]) ** k, axis=0)
    truth = k[np.flatnonzero(gap < 0)[0]]
    assert found.crossing.low - 1 < truth < found.crossing.high + 1
    assert found.only_first.value > found.only_second.value
    assert "cross at k" in found.verdict


def test_differences_are_paired():
    """The same prompts: the interval of the difference is narrower than those of the two means."""
    _, _, prompt, (a, _) = models()
    _, _, _, (b, _) = models(seed=5)
    found = frontier.against(prompt, a.ravel(), prompt, b.ravel(), resamples=500)
    one = found.pass_at[0]
    assert one.difference.low <= 0 <= one.difference.high
    assert one.difference.high - one.difference.low < 0.7 * (one.first.high - one.first.low)


def test_the_crossing_covers():
    """40 files: a 95 % interval misses more than 7 with probability below 1e-3."""
    missed = 0
    p, q, _, _ = models()
    k = np.arange(1, 33)
    gap = np.mean((1 - p[:, None]) ** k - (1 - q[:, None]) ** k, axis=0)
    at = np.flatnonzero(gap < 0)[0]
    share = gap[at - 1] / (gap[at - 1] - gap[at])
    truth = math.exp(math.log(k[at - 1]) + share * math.log(k[at] / k[at - 1]))
    for seed in range(40):
        _, _, prompt, (a, b) = models(seed=10 + seed)
        e = frontier.against(prompt, a.ravel(), prompt, b.ravel(), resamples=200, seed=seed).crossing
        missed += e is None or not e.low <= truth <= e.high
    assert missed <= 7


def test_prompts_by_difficulty_and_groups_without_a_gradient():
    rng = np.random.default_rng(0)
    p = np.repeat([0.0, 0.5, 1.0], [10, 60, 30])
    r = (rng.random((100, 16)) < p[:, None]).astype(float)
    found = frontier.prompts(np.repeat(np.arange(100), 16), r.ravel(), resamples=300)
    assert found.difficulty[0].prompts == 10
    assert found.difficulty[-1].prompts == 30
    by_size = {g.size: g for g in found.groups}
    truth = 0.4 + 0.6 * 2 * 0.5**4
    assert by_size[4].equal.low < truth < by_size[4].equal.high
    draws = [np.mean([len(set(row[list(s)])) == 1 for s in itertools.combinations(range(16), 2)]) for row in r[:20]]
    first = frontier.prompts(np.repeat(np.arange(20), 16), r[:20].ravel(), resamples=100)
    assert first.groups[0].equal.value == pytest.approx(np.mean(draws), rel=1e-9)


def test_forecasts_are_the_exact_optimum():
    laws, gold = small()
    prompt, reward, _ = drawn(laws, gold, 2000)
    found = frontier.forecast(prompt, reward, [2.0, 1.0, 0.7], resamples=300)
    assert [p.beta for p in found.points] == pytest.approx([2.0, 1.0, 0.7])
    for p in found.points:
        exact = kl_regularized(laws.log_ref, laws.reward, p.beta)
        assert p.kl.value == pytest.approx(float(np.mean(exact.kl)), rel=0.05)
        assert p.reward.value == pytest.approx(float(np.mean(exact.reward)), abs=0.03)


def test_a_run_as_a_path(tmp_path):
    """Checkpoints of a log, told apart by a column: KL and reward grow, each has its place below the frontier."""
    laws = population("gaussian")
    rows = simulate(laws, 32, np.random.default_rng(0), 200)
    reference = tmp_path / "ref.jsonl"
    files.write(reference, [{"prompt": f"q{p}", "reward": float(r)} for p, r in zip(rows["prompt"], rows["reward"])])
    rng = np.random.default_rng(1)
    log = []
    for step, strength in ((0, 0.0), (20, 0.3), (100, 0.6)):
        tilt = laws.log_ref + strength * laws.reward
        tilt = tilt - np.log(np.exp(tilt).sum(axis=1, keepdims=True))
        chosen = np.random.default_rng(0).integers(0, len(laws.reward), 200)  # those of `simulate`
        for i, c in enumerate(chosen):
            for a in rng.choice(200, 16, p=np.exp(tilt[c])):
                log.append(
                    {"prompt": f"q{i}", "reward": float(laws.reward[c, a]), "step": step,
                     "policy_logp": float(tilt[c, a]), "ref_logp": float(laws.log_ref[c, a])}
                )  # fmt: skip
    file = files.write(tmp_path / "log.jsonl", log)
    command = ["frontier", str(reference), "--policy", str(file), "--resamples", "300", "--json"]
    pooled = CliRunner().invoke(app, command)
    assert pooled.exit_code == 2
    assert "--where step=0" in pooled.output
    done = CliRunner().invoke(app, [*command, "--by", "step", "--beta", "2", "--report", str(tmp_path / "page")])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    path = found["path"]
    assert [p["label"] for p in path] == ["0", "20", "100"]
    assert path[0]["k1"]["value"] == 0
    assert path[1]["reward"]["value"] < path[2]["reward"]["value"]
    assert path[1]["k1"]["value"] < path[2]["k1"]["value"]
    assert path[1]["efficiency"]["low"] < 1 < path[1]["efficiency"]["high"]  # it is a tilt
    assert len(found["forecast"]["outcomes"]) == 3


def test_two_models_by_the_command(tmp_path):
    _, _, prompt, (a, b) = models(prompts=40, each=8)
    paths = [
        files.write(
            tmp_path / f"{n}.jsonl", [{"prompt": f"q{p}", "passed": bool(x)} for p, x in zip(prompt, r.ravel())]
        )
        for n, r in (("base", a), ("rl", b))
    ]
    command = ["frontier", str(paths[0]), "--against", str(paths[1]), "--resamples", "300"]
    done = CliRunner().invoke(app, [*command, "--json", "--report", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["against"]["pass_at"][0]["k"] == 1
    assert "Did RL help beyond sampling?" in (tmp_path / "frontier.html").read_text(encoding="utf-8")
    assert "second - first" in CliRunner().invoke(app, command).stdout


def test_kls_and_log_ratios_instead_of_log_probabilities(tmp_path):
    reference = files.write(tmp_path / "r.jsonl", files.base())
    rows = [{**r, "x": r["policy_logp"] - r["ref_logp"]} for r in files.policy()]
    own = files.write(tmp_path / "p.jsonl", rows)
    command = ["frontier", str(reference), "--policy", str(own), "--resamples", "300", "--json"]
    plain, ratio, kl = (
        json.loads(CliRunner().invoke(app, [*command, *more]).stdout)["policy"]
        for more in ([], ["--log-ratio", "x"], ["--kl", "x"])
    )
    assert ratio["k1"] == pytest.approx(plain["k1"])
    assert kl["k1"] == pytest.approx(plain["k1"])
    assert kl["k3"] is None
    tokens = [{**r, "policy_logp": [r["policy_logp"] / 4] * 4, "ref_logp": [r["ref_logp"] / 4] * 4} for r in rows]
    file = files.write(tmp_path / "t.jsonl", tokens)
    listed = json.loads(CliRunner().invoke(app, ["frontier", str(reference), "--policy", str(file), "--json"]).stdout)[
        "policy"
    ]
    assert listed["k1"]["value"] == pytest.approx(plain["k1"]["value"])
    assert listed["kl_per_token"]["value"] == pytest.approx(plain["k1"]["value"] / 4)


def test_results_are_frames_and_pictures():
    from matplotlib import pyplot

    laws, gold = small()
    prompt, reward, values = drawn(laws, gold, 50)
    results = [
        frontier.estimate(prompt, reward, resamples=200),
        frontier.gold(prompt, reward, values, resamples=200),
        frontier.prompts(prompt, reward, resamples=200),
        frontier.forecast(prompt, reward, [1.0], resamples=200),
        frontier.against(prompt, reward, prompt, reward + 1, resamples=200),
    ]
    for result in results:
        assert result.table().num_rows > 0
        assert "<table>" in result._repr_html_()
        assert result.plot() is not None
        json.dumps(frontier.as_json(result), allow_nan=False)
    pyplot.close("all")
    frame = pytest.importorskip("pandas") and results[0].table(pandas=True)
    assert "reward: low" in frame.columns
