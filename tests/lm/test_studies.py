"""The studies of examples/smollm: their parts measure what they say, and a killed study ends as one that was not."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "smollm"))

import study
from studies import extrapolation, gradients, intervals, outcome, runs, wild
from studies.laws import read
from studies.sums import FewShot

from klsim.claims.certificate import jsonable
from klsim.lm import models
from klsim.objectives import rloo

NAMES = ("gradients", "outcome", "extrapolation", "wild")


def run(name: str, folder: Path) -> dict:
    return study.run(name, "tiny", folder / "figures", folder / "runs", Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def pair():
    """A policy and a reference over 18 characters."""
    tokenizer = models.character_tokenizer(FewShot().alphabet)
    make = {"architecture": "llama", "hidden": 16, "layers": 1, "heads": 2}
    return models.tiny_model(tokenizer, seed=1, **make), models.tiny_model(tokenizer, seed=2, **make), tokenizer


@pytest.fixture(scope="module")
def found(pair):
    policy, ref, tokenizer = pair
    return read(policy, ref, tokenizer, "1 + 2 =", samples=6, tokens=3, seed=0)


# -- the task -------------------------------------------------------------------------------------------------------


def test_a_problem_is_a_solved_one_and_one_to_go_on_with():
    for row in FewShot().examples(50, 0):
        solved, asked = row["prompt"].split("\n")
        a, _, b, _, c = solved.split(" ")
        assert int(a) + int(b) == int(c)
        a, _, b, _ = asked.split(" ")
        assert str(int(a) + int(b)) == row["answer"]
        assert len(row["answer"]) == 2
        assert row["solution"] == f" {row['answer']}\n"
    for row in FewShot("-", second=(2, 9)).examples(50, 0):
        a, _, b, _ = row["prompt"].split("\n")[-1].split(" ")
        assert int(a) - int(b) == int(row["answer"])
        assert 2 <= int(b) <= 9


@pytest.mark.parametrize(
    ("text", "right"),
    [(" 62\n", 1), ("62", 1), (" 62 +", 1), (" 620", 0), (" 6", 0), ("= 62", 0), ("", 0), (" -62", 0)],
)
def test_the_first_number_must_be_the_answer(text, right):
    assert FewShot().score(text, {"answer": "62"}) == right


# -- intervals ------------------------------------------------------------------------------------------------------


def test_the_length_of_a_mean_is_covered():
    rng = np.random.default_rng(0)
    covered = 0
    for k in range(200):
        centre = np.zeros(30)
        centre[0] = 0.3 * (k % 2)
        drawn = centre + rng.standard_normal((20, 30)) / 4
        _, low, high = intervals.length_of_mean(drawn)
        covered += low <= np.linalg.norm(centre) <= high
    assert covered >= 180  # 95 % of 200 are 190, six standard errors below: 172


def test_a_bootstrapped_ratio_is_near_its_truth():
    rng = np.random.default_rng(1)
    parts = np.stack([2 + rng.standard_normal(400), 4 + rng.standard_normal(400)], axis=1)
    value, low, high = intervals.of_prompts(lambda x: x[0] / x[1], parts)
    assert low < value < high
    assert abs(value - 0.5) < 0.1
    assert high - low < 0.1


@pytest.mark.parametrize(
    ("interval", "word"), [((1, 0.5, 2), "shown"), ((-1, -2, -0.5), "refuted"), ((0.1, -1, 1), "not shown")]
)
def test_verdicts(interval, word):
    assert intervals.shown(interval, 1) == word
    assert intervals.shown(tuple(-x for x in (interval[0], interval[2], interval[1])), -1) == word


def test_one_value_has_no_interval():
    assert intervals.mean(np.array([0.3])) == (0.3, -math.inf, math.inf)


# -- gradients ------------------------------------------------------------------------------------------------------


def test_laws_are_those_of_the_models(pair, found):
    policy, ref, tokenizer = pair
    prompt = tokenizer("1 + 2 =", return_tensors="pt")["input_ids"].expand(6, -1)
    with torch.no_grad():
        for model, laws in ((policy, found.log_policy), (ref, found.log_other)):
            logits = model(torch.cat([prompt, found.tokens], dim=1)).logits[:, -4:-1]
            assert torch.allclose(torch.log_softmax(logits.double(), -1), laws, atol=1e-5)


def test_gradients_in_the_weights_are_autograds(pair, found):
    policy, _, tokenizer = pair
    prompt = tokenizer("1 + 2 =", return_tensors="pt")["input_ids"].expand(6, -1)
    each = gradients.in_weights(found, policy.get_output_embeddings().weight.detach())
    for name, estimator in gradients.ESTIMATORS.items():
        policy.zero_grad()
        logits = policy(torch.cat([prompt, found.tokens], dim=1)).logits[:, -4:-1]
        laws = torch.log_softmax(logits.double(), -1)
        loss = gradients.value(estimator.loss(gradients.batch_of(laws, found.log_other, found.tokens)))
        loss.backward()
        seen = policy.model.norm.weight.grad.double().numpy()
        np.testing.assert_allclose(each[name].mean(axis=0), seen, atol=1e-5, err_msg=name)


def test_moments_over_the_next_token_are_those_of_every_token(found):
    """By hand: the loss of one token, for every token, weighted by its probability."""
    laws, other = found.log_policy[0, 0], found.log_other[0, 0]
    pi = laws.exp()
    for name, estimator in gradients.ESTIMATORS.items():
        if not estimator.single:
            continue
        rows = []
        for token in range(len(laws)):
            logits = laws.clone().requires_grad_()
            batch = gradients.batch_of(
                torch.log_softmax(logits, -1)[None, None], other[None, None], torch.tensor([[token]])
            )
            rows.append(torch.autograd.grad(gradients.value(estimator.loss(batch)), logits)[0])
        each = torch.stack(rows)
        mean = pi @ each
        spread = float((pi[:, None] * (each - mean) ** 2).sum())
        expected = gradients.moments(mean, laws, other, {}, spread)
        got = gradients.single_token(estimator.loss, laws, other, {})
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-16, err_msg=name)  # products of rounding


def test_the_functionals_have_the_gradients_of_their_values(found):
    """The reverse and the forward KL of visited prefixes, by autograd of their definitions."""
    logits = found.log_policy.clone().requires_grad_()
    laws = torch.log_softmax(logits, -1)
    made = gradients.functionals(found)
    reverse = (laws.exp() * (laws - found.log_other)).sum()
    forward = (found.log_other.exp() * (found.log_other - laws)).sum()
    for name, value in ((gradients.REVERSE, reverse), (gradients.FORWARD, forward)):
        (seen,) = torch.autograd.grad(value, logits, retain_graph=True)
        assert torch.allclose(seen, made[name], atol=1e-10), name


# -- outcome --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("s", "b"), [(0.7, 0.2), (0.3, 0.3), (0.5, 0.1)])
def test_the_kl_of_success_rates_is_unbiased_to_leading_order(s, b):
    rng = np.random.default_rng(0)
    n, m, draws = 32, 64, 20_000
    found = outcome.bernoulli_kl(rng.binomial(n, s, draws), n, rng.binomial(m, b, draws), m)
    truth = s * math.log(s / b) + (1 - s) * math.log((1 - s) / (1 - b))
    error = found.std() / math.sqrt(draws)
    # what is left is of order 1/n^2, with the cubed inverse of the smallest rate as its constant
    assert abs(found.mean() - truth) < 4 * error + 1 / (m * b * n)


def test_best_of_takes_the_best_of_every_few():
    drawn = {"reward": np.array([[0, 1, 0, 0]]), "completion": np.array([["a", "b", "c", "d"]])}
    rows = outcome.best_of([{"prompt": "p"}], drawn, 2)
    assert rows == [{"prompt": "p", "completion": "b"}, {"prompt": "p", "completion": "c"}]


# -- extrapolation --------------------------------------------------------------------------------------------------


def test_weights_turn_the_teachers_law_into_the_optimum(pair):
    """Over all completions of two tokens: ``sum_y T(y) w(y) f(y)`` is the mean of f under ``q^{1-lam} T^lam / z_s``."""
    teacher, base, tokenizer = pair
    prompt = tokenizer("1 + 2 =", return_tensors="pt")["input_ids"]
    size = len(tokenizer)
    words = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    whole = torch.cat([prompt.expand(len(words), -1), words], dim=1)
    with torch.no_grad():
        laws = [torch.log_softmax(m(whole).logits[:, -3:-1].double(), -1) for m in (teacher, base)]
    every = extrapolation.Read(words, *laws, torch.zeros(0))
    lam = 1.5
    log_w = torch.as_tensor(extrapolation.weights(every, [lam])[0])
    own = torch.log_softmax(laws[0] * lam + laws[1] * (1 - lam), -1).gather(-1, words[..., None])[..., 0].sum(1)
    drawn = laws[0].gather(-1, words[..., None])[..., 0].sum(1)
    assert torch.allclose(drawn + log_w, own, atol=1e-8)
    assert float((drawn + log_w).exp().sum()) == pytest.approx(1, abs=1e-8)


def test_equal_movement_reads_the_line_of_opd():
    part = {
        "reward": {"base": [0.0, 0.0], "opd": [0.4, 0.6], "opd-long": [0.8, 1.0], "x": [0.7, 0.7]},
        "kl": {"base": [0.0, 0.0], "opd": [1.0, 1.0], "opd-long": [2.0, 2.0], "x": [1.5, 1.5]},
    }
    assert extrapolation.equal_movement([part], "x")[0] == pytest.approx(0.0)  # .7 of OPD, too
    part["kl"]["x"] = [3.0, 3.0]
    assert extrapolation.equal_movement([part], "x")[0] == pytest.approx(0.7 - 0.9)


# -- wild -----------------------------------------------------------------------------------------------------------


def test_the_audit_tells_the_defect_from_its_correction():
    said = wild.verdicts(0.5)
    assert said["defect"] == said["no KL"] == "-1 reward"
    assert said["correction"] in ("-1 reward +0.5 reverse_kl", "+0.5 reverse_kl -1 reward")


def test_the_predictions_are_decided_by_their_intervals():
    def curves(*late: float) -> list[dict]:
        return [{"kl": [0.0, 0.0, x], "reward": [0.5, 0.5, 0.5]} for x in late]

    found = {"correction": curves(0.1, 0.12, 0.11), "defect": curves(0.5, 0.52, 0.51), "no KL": curves(0.5, 0.53, 0.51)}
    assert [x["verdict"] for x in wild.tests(found, 0.5).values()] == ["shown", "shown", "shown"]
    found["defect"] = curves(0.1, 0.11, 0.12)
    assert next(iter(wild.tests(found, 0.5).values()))["verdict"] == "not shown"


# -- whole studies ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_study_runs_to_its_figure(name, tmp_path):
    found = run(name, tmp_path)
    place = tmp_path / "figures" / "smollm" / f"{name}-tiny"
    assert json.loads(place.with_suffix(".results.json").read_text()) == jsonable(found)
    for suffix in (".txt", ".svg", ".png", ".csv"):
        assert place.with_suffix(suffix).stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_study_goes_on(name, tmp_path, monkeypatch):
    """Killed in a training after a checkpoint, and again between two stages."""
    whole = run(name, tmp_path / "whole")
    folder = tmp_path / "killed"

    class Killed(BaseException):
        pass

    original = runs.ObjectiveTrainer.training_step
    steps = 0

    def dies(self, *args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == 4:  # checkpoints come after every second step
            raise Killed
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(runs.ObjectiveTrainer, "training_step", dies)
        with pytest.raises(Killed):
            run(name, folder)
    computed = []
    stage = runs.Stages.stage

    def interrupted(self, key, compute):
        if not (self.folder / f"{key}.json").is_file():
            computed.append(key)
            if len(computed) == 2:
                raise Killed
        return stage(self, key, compute)

    with monkeypatch.context() as patched:
        patched.setattr(runs.Stages, "stage", interrupted)
        with pytest.raises(Killed):
            run(name, folder)
    assert run(name, folder) == whole


def test_a_folder_belongs_to_one_form(tmp_path):
    runs.Stages(tmp_path, "wild", wild.FORMS["tiny"])
    with pytest.raises(ValueError, match="another study or form"):
        runs.Stages(tmp_path, "wild", wild.FORMS["quick"])


def test_a_finished_stage_is_read(tmp_path):
    stages = runs.Stages(tmp_path, "wild", wild.FORMS["tiny"])
    assert stages.stage("a", lambda: [1, 2]) == [1, 2]
    assert stages.stage("a", lambda: pytest.fail("computed again")) == [1, 2]


def test_a_training_resumes_from_its_checkpoint(tmp_path, monkeypatch):
    """The curve and the weights of a run that was killed are those of one that was not."""
    form = wild.FORMS["tiny"]
    training = runs.Training(4, 2, 2, 3e-3, save_steps=2)
    logs, weights = [], []
    for name, dies_at in (("whole", None), ("killed", 3)):
        lab = runs.lab(tmp_path / name, "x", form, {"sum": FewShot()}, lambda key: None)
        rows, _ = runs.split(lab.tasks, 3, 0, 0)  # several passes
        original = runs.ObjectiveTrainer.training_step
        steps = 0

        def dies(self, *args, original=original, dies_at=dies_at, **kwargs):
            nonlocal steps
            steps += 1
            if steps == dies_at:
                raise KeyboardInterrupt
            return original(self, *args, **kwargs)

        if dies_at:
            with monkeypatch.context() as patched:
                patched.setattr(runs.ObjectiveTrainer, "training_step", dies)
                with pytest.raises(KeyboardInterrupt):
                    lab.trained("p", rloo, rows, training, seed=0)
            assert list((tmp_path / name / "training" / "p").glob("checkpoint-2"))
        with monkeypatch.context() as patched:  # and again after its last step, before its weights are there
            if dies_at:
                patched.setattr(runs.models, "save_checkpoint", lambda *args: pytest.fail("killed"))
                with pytest.raises(pytest.fail.Exception):
                    lab.trained("p", rloo, rows, training, seed=0)
        logs.append(lab.trained("p", rloo, rows, training, seed=0))
        weights.append(lab.load("p").state_dict())
    assert logs[0] == logs[1]
    assert all(torch.equal(weights[0][key], value) for key, value in weights[1].items())
