"""Numbers that would mislead are refused, blank or explained: the command on files that are wrong in known ways."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from klsim import best_of_n, frontier
from klsim.cli import app

spec = importlib.util.spec_from_file_location("frontier_files", Path(__file__).parent / "files.py")
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
base, policy, write = files.base, files.policy, files.write


def run(*arguments, code=0):
    done = CliRunner().invoke(app, ["frontier", "--resamples", "300", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output if code else done.stdout


def asked(*arguments):
    return json.loads(run(*arguments, "--json"))


@pytest.fixture
def reference(tmp_path):
    return write(tmp_path / "ok.jsonl", base())


@pytest.mark.parametrize("samples", [16, 32])
def test_best_of_n_and_the_frontier_are_on_one_footing(samples):
    """Simulated coins: its KL is that of the truth, and wherever it is trusted it lies below the frontier."""
    laws = np.random.default_rng(0).beta(0.3, 4, 4000)
    log_ref = np.log(np.stack([1 - laws, np.maximum(laws, 1e-300)], axis=1))
    rewards = np.tile([0.0, 1.0], (len(laws), 1))
    kls, ordered, kept = {}, [], 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p = rng.choice(laws, 200)
        r = (rng.random((200, samples)) < p[:, None]).astype(float)
        found = frontier.estimate(np.repeat(np.arange(200), samples), r.ravel(), budgets=[0.1], resamples=200)
        for b in found.best_of_n:
            kls.setdefault(b.n, []).append(b.kl.value)
            assert not b.trusted or b.missed_reward.value >= -1e-9
            if b.kl.trusted and b.missed_reward.trusted and b.n > 1:  # without the check of the order itself
                kept += 1
                ordered.append(b.missed_reward.value >= 0)
        assert not found.best_of_n[-1].trusted  # N near n
    assert kept >= 10
    assert np.mean(ordered) >= 0.95
    for n in (2, 4, samples // 2):
        truth = best_of_n.kl(log_ref, rewards, float(n)).mean()
        error = np.std(kls[n]) / np.sqrt(len(kls[n]))
        assert np.mean(kls[n]) == pytest.approx(truth, abs=4 * error + 0.02 * truth)


def test_untrusted_n_is_not_recommended(reference):
    found = asked(reference)
    largest = found["best_of_n"][-1]
    assert largest["n"] == 16
    assert not largest["trusted"]
    assert "best-of-16" not in found["recommendation"]


def test_without_ties_the_kl_of_best_of_n_is_known():
    r = np.random.default_rng(0).normal(size=(50, 16))
    found = frontier.estimate(np.repeat(np.arange(50), 16), r.ravel(), resamples=200)
    for b in found.best_of_n:
        assert b.kl.low == b.kl.high == b.kl_bound
        assert b.kl.trusted


def test_per_token_means_are_refused(tmp_path, reference):
    rows = [{**x, "policy_logp": x["policy_logp"] / 200, "ref_logp": x["ref_logp"] / 200} for x in policy(each=32)]
    out = run(reference, "--policy", write(tmp_path / "p.jsonl", rows), code=2)
    assert "per-token means" in out
    assert "k1" in out
    assert "k3" in out


def test_swapped_columns_are_refused(tmp_path, reference):
    rows = [{**x, "policy_logp": x["ref_logp"], "ref_logp": x["policy_logp"]} for x in policy(each=32)]
    out = run(reference, "--policy", write(tmp_path / "p.jsonl", rows), code=2)
    assert "swapped, or were the samples drawn elsewhere" in out
    assert "row" in out


def test_positive_log_probabilities_are_refused(tmp_path, reference):
    turned = [{**x, "policy_logp": -x["policy_logp"], "ref_logp": -x["ref_logp"]} for x in policy()]
    out = run(reference, "--policy", write(tmp_path / "p.jsonl", turned), code=2)
    assert "p.jsonl, row 1: policy_logp" in out
    assert "sign" in out
    one = policy()
    one[9] = {**one[9], "policy_logp": 5.0}
    assert "o.jsonl, row 10: policy_logp is 5," in run(reference, "--policy", write(tmp_path / "o.jsonl", one), code=2)
    one[9] = {**one[9], "policy_logp": -4.0, "ref_logp": 796.0}  # exp(ref - policy) overflows
    assert "o.jsonl, row 10: ref_logp is 796," in run(reference, "--policy", write(tmp_path / "o.jsonl", one), code=2)


@pytest.mark.parametrize("ratio", [400.0, -300.0])
def test_one_exploded_row_is_named_and_nothing_is_trusted(tmp_path, reference, ratio):
    rows = policy()
    logp = -500.0
    rows[9] = {**rows[9], "policy_logp": logp, "ref_logp": logp - ratio}
    found = asked(reference, "--policy", write(tmp_path / "p.jsonl", rows))
    assert not found["policy"]["trusted"]
    assert found["policy"]["k1"]["value"] is None
    assert found["policy"]["efficiency"]["value"] is None
    note = next(n for n in found["notes"] if "row 10" in n)
    assert f"{ratio:g}" in note
    assert "without it" in note


def test_infinite_and_missing_log_probabilities_are_refused(tmp_path, reference):
    rows = policy()
    rows[9] = {**rows[9], "ref_logp": float("-inf")}
    assert "row 10, column 'ref_logp'" in run(reference, "--policy", write(tmp_path / "p.jsonl", rows), code=2)
    rows = [{k: v for k, v in x.items() if k != "ref_logp"} for x in policy()]
    assert "no column 'ref_logp'" in run(reference, "--policy", write(tmp_path / "m.jsonl", rows), code=2)


def test_a_good_policy_is_trusted(tmp_path, reference):
    found = asked(reference, "--policy", write(tmp_path / "p.jsonl", policy()))["policy"]
    assert found["k1"]["trusted"]
    assert found["k3"]["trusted"]
    assert found["k1"]["low"] < 0.125 < found["k1"]["high"]


def test_a_collapsed_policy_is_told_that_k3_cannot_see_it():
    """It always answers what the reference answers half of the time: k1 is right, the mean inverse ratio 1/2."""
    rng = np.random.default_rng(0)
    prompt = np.repeat(np.arange(40), 16)
    rows = {"policy_prompt": prompt, "policy_reward": np.ones(640)}
    logps = {"policy_logp": -1e-6 * rng.random(640), "ref_logp": np.log(rng.uniform(0.4, 0.6, 640))}
    found = frontier.estimate(prompt, rng.integers(0, 2, 640), **rows, **logps, resamples=300)
    assert "never show" in found.notes[-1]
    assert found.policy.k1.trusted
    assert not found.policy.k3.trusted


def test_more_efficient_than_possible_is_not_trusted():
    rng = np.random.default_rng(0)
    prompt = np.repeat(np.arange(60), 32)
    reward = (rng.random(60 * 32) < 0.3).astype(float)
    better = {"policy_prompt": prompt, "policy_reward": (rng.random(60 * 32) < 0.6).astype(float)}
    ratio = rng.normal(0.02, 0.2, 60 * 32)  # a KL of .02 nats cannot double the reward
    logps = {"policy_logp": np.full(60 * 32, -50.0), "ref_logp": -50.0 - ratio}
    found = frontier.estimate(prompt, reward, **better, **logps, resamples=300)
    assert "more efficient than any policy can be" in found.policy.reason
    assert any("more efficient" in note for note in found.notes)


def test_win_rates_are_u_statistics_or_nothing(reference):
    rates = [b["win_rate"] for b in asked(reference)["best_of_n"]]
    assert rates[-1] is None
    trusted = [r["value"] for r in rates[:-1] if r["value"] is not None]
    assert trusted == sorted(trusted)


def test_one_outlier_is_not_trusted(tmp_path):
    rows = base()
    rows[77]["reward"] = 1e12
    found = asked(write(tmp_path / "o.jsonl", rows))
    assert not any(p["trusted"] for p in found["points"])
    assert found["reference"]["value"] is None
    assert "prompts carry it" in found["points"][0]["reason"]


def test_untrusted_numbers_are_blank(reference):
    found = asked(reference)
    for p in found["points"]:
        if not p["trusted"]:
            assert p["reward"]["value"] is p["beta"] is p["ess"] is None
            assert p["reason"]
    assert all(row[1] is None or row[1] <= 1 for row in found["curve"])
    assert all(p["reward"]["high"] is None or p["reward"]["high"] <= 1 for p in found["points"])


def test_the_reference_and_best_of_one_are_one(reference):
    found = asked(reference)
    assert found["best_of_n"][0]["reward"] == found["reference"]


def test_several_conditions(tmp_path):
    rows = [{**r, "step": i % 4} for i, r in enumerate(base())]
    file = write(tmp_path / "s.jsonl", rows)
    assert asked(file, "--where", "step=1")["samples"] == 120
    assert asked(file, "--where", "step=1", "--where", "step=2")["samples"] == 240
    assert asked(file, "--where", "step=*")["samples"] == 480
    assert "--where step=0" in run(file, code=2)


def test_what_is_there_twice_is_not_counted_twice(tmp_path, reference):
    assert "is given twice" in run(reference, reference, code=2)
    twice = write(tmp_path / "dups.jsonl", base() + base())
    found = asked(twice)
    assert found["samples"] == 480
    assert any("repeat themselves 2 times" in note for note in found["notes"])
    (tmp_path / "h.csv").write_text("prompt,reward,reward\na,1,0\n")
    assert "names the column 'reward' twice" in run(tmp_path / "h.csv", code=2)


def test_models_and_steps_that_would_be_pooled_stop_the_run(tmp_path):
    rows = [{**r, "model": "ab"[i % 2]} for i, r in enumerate(base())]
    assert "--where model=a" in run(write(tmp_path / "m.jsonl", rows), code=2)
    folder = tmp_path / "dump"
    folder.mkdir()
    for step in (10, 20):
        write(
            folder / f"{step}.jsonl", [{"input": r["prompt"], "score": r["reward"], "step": step} for r in base(step)]
        )
    assert "--where step=10" in run(folder, code=2)
    assert asked(folder, "--where", "step=20")["samples"] == 480
    models = tmp_path / "models"
    models.mkdir()
    for name in ("llama", "olmo", "qwen"):
        write(models / f"{name}.jsonl", base())
    assert "--where file=llama" in run(models, code=2)
    assert asked(models, "--where", "file=olmo")["samples"] == 480
    nested = tmp_path / "run"
    for step in (1, 2):
        (nested / f"step_{step}").mkdir(parents=True)
        write(nested / f"step_{step}" / "samples.jsonl", base(step))
    assert "column 'step' goes from 1 to 2" in run(nested, code=2)
    assert asked(nested, "--where", "step=2")["samples"] == 480


def test_an_interval_beyond_the_samples_is_blank():
    """A policy whose reward needs about what four samples a prompt can show."""
    rng = np.random.default_rng(0)
    prompt = np.repeat(np.arange(100), 4)
    reward = rng.normal(size=400)
    own = {"policy_prompt": prompt, "policy_reward": rng.normal(1.1, 1, 400)}
    logps = {"policy_logp": np.full(400, -90.0), "ref_logp": -90.0 - rng.normal(0.8, 1.26, 400)}
    p = frontier.estimate(prompt, reward, **own, **logps, resamples=300).policy
    assert not p.needed_kl.trusted
    assert not p.efficiency.trusted
    assert "at least" in p.needed_kl.reason


def test_constant_rewards_end_with_the_reason(tmp_path):
    rows = [{**r, "reward": float(i // 16)} for i, r in enumerate(base())]
    assert "constant within every prompt" in run(write(tmp_path / "c.jsonl", rows), code=2)


def test_where_holds_for_both_sides(tmp_path):
    one = [{**r, "split": "ab"[i % 2]} for i, r in enumerate(base())]
    other = [{**r, "split": "ab"[i % 2]} for i, r in enumerate(policy())]
    paths = write(tmp_path / "r.jsonl", one), "--policy", write(tmp_path / "p.jsonl", other)
    assert asked(*paths, "--where", "split=a")["policy"]["samples"] == 120
    both = asked(*paths, "--where", "split=a", "--policy-where", "split=*")
    assert both["samples"] == 240
    assert both["policy"]["samples"] == 240


def test_thin_prompts_are_left_out_aloud(tmp_path):
    file = write(tmp_path / "t.jsonl", [*base(), {"prompt": "lonely", "reward": 1.0}])
    found = asked(file)
    assert found["prompts"] == 30
    assert any("1 of 31 prompts have fewer than 2 samples" in note for note in found["notes"])
    rows = base() + [{"prompt": "few", "reward": float(i % 2)} for i in range(3)]
    assert asked(write(tmp_path / "f.jsonl", rows), "--min-samples", "4")["samples_a_prompt"] == [16, 16]


def test_sizes_of_rewards(tmp_path):
    rows = base()
    huge = [{**r, "reward": 1e308 if i == 77 else -1e308 if i == 78 else r["reward"]} for i, r in enumerate(rows)]
    assert "divide the rewards" in run(write(tmp_path / "huge1.jsonl", huge), code=2)
    scaled = {"huge": 1e300, "tiny": 1e-300}
    for name, scale in scaled.items():
        out = run(write(tmp_path / f"{name}.jsonl", [{**r, "reward": r["reward"] * scale} for r in rows]))
        assert max(map(len, out.splitlines())) <= 160
        assert "e+299" in out if name == "huge" else "e-301" in out
    out = run(write(tmp_path / "offset.jsonl", [{**r, "reward": r["reward"] * 1e-3 + 1e6} for r in rows]))
    assert "1000000.0004" in out
    assert "1e+06" not in out


def test_two_prompts_of_many_samples():
    """Nothing but the number of prompts is small: what is shown is trusted or says why not."""
    r = np.random.default_rng(0).normal(size=(2, 20_000)).round(4)
    found = frontier.estimate(np.repeat([0, 1], 20_000), r.ravel(), budgets=[0.1, 0.5])
    assert all(p.trusted for p in found.points)
    assert found.points[1].reward.low < 1.0 < found.points[1].reward.high  # sqrt(2 b)
    assert any("2 prompts are rough" in note for note in found.notes)


def test_the_level_is_named_as_it_is(reference):
    assert "between 0 and 1, both excluded" in run(reference, "--level", "1", code=2)


def test_the_line_about_beta(reference):
    out = run(reference)
    assert "reward - beta KL" in out
    assert "RLOOConfig(beta=" in out
    assert "use_kl_in_reward" in out


def test_trls_option_has_the_gradient_that_the_line_promises():
    pytest.importorskip("torch")
    pytest.importorskip("trl")
    from klsim.audit import load_target, measure

    found = measure.audit(load_target("trl:rloo?beta=0.1"), expect="reward - 0.1*reverse_kl")
    assert found.met


def test_the_page_has_every_answer(tmp_path, reference):
    rows = [{**r, "gold": 1 - r["reward"]} for r in base()]
    file = write(tmp_path / "g.jsonl", rows)
    run(file, "--gold", "gold", "--prompts", "--beta", "1", "--report", tmp_path / "page", "--csv", tmp_path / "c.csv")
    page = (tmp_path / "page" / "frontier.html").read_text(encoding="utf-8")
    for title in ("What alignment could at best achieve", "Is it hacking?", "Which prompts?", "Will RL get there?"):
        assert title in page
    assert {f.stem for f in (tmp_path / "page" / "frontier").glob("*.svg")} == {
        "frontier",
        "gold",
        "forecast",
        "prompts",
    }
    assert (tmp_path / "c.csv").read_text().startswith("series,kl,reward")
