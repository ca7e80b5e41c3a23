"""The audit on losses whose gradient is known by hand, klsim's own and broken ones."""

import math

import numpy as np
import pytest

from klsim.audit import audit, load_target, parse_expectation
from klsim.audit.identify import EXACT, combination_text, library
from klsim.audit.measure import as_json
from klsim.audit.targets import from_function
from klsim.audit.worlds import Setting, clipped_share
from klsim.objectives import rloo
from klsim.testing import assert_gradient

torch = pytest.importorskip("torch")


def policy_gradient(batch, rewards):
    return -(rewards * (batch.log_probs * batch.weights).sum(1)).mean()


def log_ratio(batch):
    return (batch.log_probs - batch.ref_log_probs) * batch.weights


def kl_in_reward(batch, beta=0.1):
    return policy_gradient(batch, batch.total_rewards() - beta * log_ratio(batch).sum(1).detach())


def k1_in_loss(batch, beta=0.1):
    return policy_gradient(batch, batch.total_rewards()) + beta * log_ratio(batch).sum(1).mean()


def k2_in_loss(batch, beta=0.1):
    return policy_gradient(batch, batch.total_rewards()) + beta * (log_ratio(batch) ** 2 / 2).sum(1).mean()


def k3_in_loss(batch, beta=0.1):
    gap = -log_ratio(batch)
    return policy_gradient(batch, batch.total_rewards()) + beta * (gap.exp() - gap - 1).sum(1).mean()


def forgotten(batch, kl_coef=0.1):
    """Computes a penalty and never adds it."""
    _ = kl_coef * log_ratio(batch).sum(1).mean()
    return policy_gradient(batch, batch.total_rewards())


def leave_one_out(batch):
    rewards = batch.total_rewards()
    same = (batch.group[:, None] == batch.group[None]).to(rewards.dtype)
    return rewards - (same @ rewards - rewards) / (same.sum(1) - 1)


def sequence_mean(batch):
    per_token = leave_one_out(batch)[:, None] * batch.log_probs * batch.weights
    return -(per_token.sum(1) / batch.weights.sum(1)).mean()


def sequence_mean_without_baseline(batch):
    return -(batch.total_rewards() * (batch.log_probs * batch.weights).sum(1) / batch.weights.sum(1)).mean()


def clamped_k3(batch, beta=0.1):
    gap = -log_ratio(batch)
    k3 = (gap.exp() - gap - 1).clamp(max=10)
    return policy_gradient(batch, batch.total_rewards()) + beta * k3.sum(1).mean()


def wrong_sign(batch, beta=0.1):
    return policy_gradient(batch, batch.total_rewards() + beta * log_ratio(batch).sum(1).detach())


@pytest.mark.parametrize(
    ("loss", "term"),
    [
        (kl_in_reward, "reverse_kl"),
        (k2_in_loss, "reverse_kl(frozen)"),
        (k3_in_loss, "forward_kl(frozen)"),
    ],
)
def test_each_estimator_of_the_kl_is_told_apart(loss, term):
    found = audit(loss_target(loss), expect=f"reward - beta*{term}")
    for world in (found.equal, found.variable):
        assert world.exact
        assert world.coefficients == pytest.approx({"reward": -1, term: 0.1}, abs=1e-9)
        assert world.residual < 1e-13
    assert found.met
    (effect,) = found.effects
    assert effect.acts
    assert effect.change.coefficients == pytest.approx({term: 1}, abs=1e-9)


def test_k1_in_the_loss_has_no_effect_on_policy_and_says_so():
    found = audit(loss_target(k1_in_loss), expect="reward - beta*reverse_kl")
    assert found.equal.coefficients == pytest.approx({"reward": -1}, abs=1e-9)
    assert not found.met
    assert "beta has no effect on-policy" in found.verdict
    assert found.effects[0].acts  # off-policy the score does not average out


def test_a_coefficient_that_is_never_applied():
    found = audit(loss_target(forgotten))
    assert not found.effects[0].acts
    assert "kl_coef has no effect" in found.verdict
    assert "on-policy" not in found.verdict.split("kl_coef")[1].split(";")[0]


def test_sequence_means_weight_responses_by_one_over_length():
    found = audit(sequence_mean)
    assert found.variable.exact
    assert found.variable.coefficients == pytest.approx({"reward_per_token": -1}, abs=1e-9)
    assert found.equal.coefficients == pytest.approx({"reward": -1 / 3}, abs=1e-9)  # three tokens
    assert "1/length" in found.verdict


def test_length_normalised_rewards_without_a_baseline_are_another_objective():
    found = audit(sequence_mean_without_baseline)
    assert found.variable.coefficients == pytest.approx({"reward_over_length": -1}, abs=1e-9)


def test_a_clamp_shows_far_from_the_reference():
    assert audit(k3_in_loss).far_as_near
    found = audit(clamped_k3)
    assert set(found.equal.coefficients) == {"reward", "forward_kl(frozen)"}
    assert not found.far_as_near
    assert "far from the reference" in found.verdict


def test_a_random_loss_is_refused():
    with pytest.raises(ValueError, match="random"):
        audit(lambda batch: batch.log_probs.sum() * torch.rand(()))
    with pytest.raises(ValueError, match=r"random \(.*gradients"):  # its value is always 0
        audit(lambda batch: (batch.log_probs - batch.log_probs.detach()).sum() * np.random.default_rng().random())


def test_a_wrong_sign_is_not_what_was_expected():
    found = audit(loss_target(wrong_sign), expect="reward - beta*reverse_kl")
    assert found.equal.coefficients["reverse_kl"] == pytest.approx(-0.1)
    assert not found.met
    assert all(m.residual > 0.05 for m in found.expected)


@pytest.mark.slow
def test_off_policy_correctness_is_measured():
    def corrected(batch):
        ratio = ((batch.log_probs - batch.old_log_probs) * batch.weights).sum(1).exp()
        return -(ratio * batch.total_rewards()).mean()

    assert audit(corrected).off_policy_as_on
    assert not audit(kl_in_reward).off_policy_as_on


@pytest.mark.slow
def test_klsim_grpo_rescales_prompts_by_the_groups_standard_deviation():
    found = audit(load_target("klsim:grpo"))
    assert found.std_normalised
    assert min(found.prompt_weights) == pytest.approx(1)  # at p = 1/2
    assert found.prompt_weights[0] > 1.04  # groups of 4
    assert "standard deviation" in found.verdict
    assert not audit(load_target("klsim:rloo")).std_normalised


@pytest.mark.slow
def test_the_variance_of_reinforce_is_above_the_best_baselines():
    with_baseline = audit(load_target("klsim:rloo")).variance
    assert with_baseline is not None
    assert with_baseline > 1

    def best(batch):  # the optimal constant baseline cannot beat itself
        return policy_gradient(batch, batch.total_rewards() - 0.5)

    assert audit(best).variance >= 1 - 1e-9
    assert audit(kl_in_reward).variance is None


@pytest.mark.slow
def test_training_ends_at_the_closed_form():
    found = audit(loss_target(kl_in_reward))
    assert found.end["sequence tilt"] < 1e-2 < found.end["token tilt"]


@pytest.mark.slow
def test_float32_losses_are_still_identified():
    def single(batch):
        total = (batch.log_probs.float() * batch.weights.float()).sum(1)
        return -(batch.total_rewards().float() * total).mean()

    found = audit(single)
    assert found.equal.exact
    assert set(found.equal.coefficients) == {"reward"}


def test_what_is_no_combination_is_not_called_one():
    def odd(batch):
        return ((batch.log_probs * batch.weights).sum(1) ** 3 * batch.total_rewards()).mean()

    found = audit(odd)
    assert not found.equal.exact
    assert "no combination" in combination_text(found.equal)
    assert found.equal.residual > 1e-2


def test_a_loss_without_gradient():
    found = audit(lambda batch: batch.log_probs.detach().sum())
    assert found.equal.coefficients == {}
    assert "descends 0" in found.verdict


def test_json_has_plain_values():
    import json

    text = json.dumps(as_json(audit(loss_target(forgotten), expect="reward")))
    assert json.loads(text)["met"] is True


def test_assert_gradient():
    assert_gradient(kl_in_reward, expect="reward - beta*reverse_kl", beta=0.3)
    with pytest.raises(AssertionError) as failure:
        assert_gradient(k3_in_loss, expect="reward - beta*reverse_kl", beta=0.3)
    message = str(failure.value)
    assert "0.3 forward_kl(frozen)" in message
    assert "beta = 0.3, per unit: 1 forward_kl(frozen)" in message
    assert "does not descend" in message
    with pytest.raises(AssertionError):
        assert_gradient(sequence_mean, expect="reward")
    assert_gradient(sequence_mean, expect="reward/2", lengths="equal")
    assert_gradient(sequence_mean, expect="reward", lengths="equal", any_scale=True)


def test_a_flat_loss_meets_nothing():
    with pytest.raises(AssertionError):
        assert_gradient(lambda batch: 0.0 * batch.log_probs.sum(), expect="reward")


@pytest.mark.parametrize(
    ("text", "coefficients"),
    [
        ("reward", {"reward": 1}),
        ("reward - beta*reverse_kl(frozen)", {"reward": 1, "reverse_kl(frozen)": -0.1}),
        ("-2*beta*forward_kl(teacher, frozen)", {"forward_kl(teacher, frozen)": -0.2}),
        ("reward + 1e-3*entropy(frozen)", {"reward": 1, "entropy(frozen)": 1e-3}),
        ("reward - reward", {"reward": 0}),
        ("(1 - 1/G)*reward", {"reward": 0.5}),
        ("reward/4 - jsd(teacher, frozen, weight=beta)", {"reward": 0.25, "jsd(teacher, frozen, weight=0.1)": -1}),
        (
            "token_mean(reward - beta*reverse_kl(frozen))",
            {"token_mean(reward)": 1, "token_mean(reverse_kl(frozen))": -0.1},
        ),
        ("reward - dpo(beta=beta)", {"reward": 1, "dpo(beta=0.1)": -1}),
        ("reward - (beta*reverse_kl - 2*-1*length)", {"reward": 1, "reverse_kl": -0.1, "length": -2}),
    ],
)
def test_expectations(text, coefficients):
    assert parse_expectation(text, {"beta": 0.1}).coefficients == pytest.approx(coefficients)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write a sum"),
        ("reward - ", "write a sum"),
        ("reward - gamma*reverse_kl", "'gamma' is no finite number and no parameter"),
        ("reward - beta*reverse_k1", "reverse_k1"),
        ("__import__('os')", "__import__"),
        ("reward + 1", "'1' is not a functional"),
        ("reward/0", "division by 0"),
        ("jsd", "needs weight"),
        ("jsd(frozen, weight=2)", "weight must lie in"),
        ("jsd(weight=0.5, frozen)", "options with = come last"),
        ("reverse_kl(top=2)", "need frozen"),
        ("reverse_kl(frozen, top=1.5)", "whole number"),
        ("sequence_mean(reverse_kl)", "sequence_mean is for"),
        ("1e999*reward", "finite"),
        ("reward)", "write a sum"),
        ("nan*reward", "finite"),
    ],
)
def test_bad_expectations(text, says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(").replace(")", r"\)")):
        parse_expectation(text, {"beta": 0.1})


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("grpo", "module:function"),
        ("klsim:grop", "no such objective"),
        ("missing.py:loss", "no file"),
        ("math:nothing", "no function 'nothing'"),
        ("no.such.module:loss", "no module"),
        ("", "module:function"),
    ],
)
def test_bad_targets(target, says):
    with pytest.raises((ValueError, ModuleNotFoundError), match=f"(?i){says}"):
        load_target(target)


def test_bad_losses():
    with pytest.raises(TypeError, match="loss: "):
        audit(lambda batch: None)
    with pytest.raises(ValueError, match=r"finite|NaN|nan"):
        audit(lambda batch: batch.log_probs.sum() * math.nan)
    with pytest.raises(ValueError, match="order"):
        audit(lambda batch: (batch.log_probs[0] * batch.weights[0]).sum())
    with pytest.raises(ValueError, match="lengths"):
        audit(sequence_mean, lengths="some")


def test_functions_from_files_with_options(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def loss(batch, scale=2.0):\n    return -scale * (batch.total_rewards() * batch.log_probs.sum(1)).mean()\n"
    )
    target = load_target(f"{file}:loss?scale=3")
    assert target.parameters == {"scale": 3}
    for query, says in (
        ("size=3", "no parameter 'size'"),
        ("scale=o.1", "scale=o.1 is no number"),
        ("scale=1&scale=2", "given twice"),
        ("scale=", "has no value"),
    ):
        with pytest.raises(ValueError, match=says):
            load_target(f"{file}:loss?{query}")


def loss_target(function):
    """A target whose numeric defaults are its parameters, as the command line makes it."""
    return from_function(function.__name__, function)


@pytest.mark.parametrize("name", ["equal lengths", "lengths", "large batch", "teacher's responses"])
def test_worlds_tell_the_library_apart(name):
    """No functional is a combination of three others up to the tolerance, so that small combinations are unique."""
    from itertools import combinations

    columns = library(name, Setting())
    matrix = np.stack([c / np.linalg.norm(c) for c in columns.values()], axis=1)
    gram = matrix.T @ matrix
    triples = np.array(list(combinations(range(matrix.shape[1]), 3)))
    for k in range(matrix.shape[1]):
        others = triples[(triples != k).all(axis=1)]
        right = gram[others, k]
        explained = np.sum(
            right * np.linalg.solve(gram[others[:, :, None], others[:, None, :]], right[..., None])[..., 0], 1
        )
        best = others[np.argmax(explained)]
        solved = np.linalg.lstsq(matrix[:, best], matrix[:, k], rcond=None)[0]
        assert np.linalg.norm(matrix[:, k] - matrix[:, best] @ solved) > 10 * EXACT, list(columns)[k]


def test_the_slightly_off_policy_world_opens_clips():
    assert clipped_share("slightly off-policy") == 0
    assert clipped_share("off-policy") > 0.5


def test_own_functionals():
    def length_squared(problem, table):
        steps = torch.where(
            torch.as_tensor(problem.free),
            table[torch.as_tensor(problem.nodes)].gather(-1, torch.as_tensor(problem.tokens)[..., None])[..., 0],
            0.0,
        )
        weight = torch.as_tensor(problem.share[problem.prompt] * problem.length**2)
        return (weight * steps.sum(1).exp()).sum()

    def loss(batch, c=0.2):
        return -(
            (leave_one_out(batch) - c * batch.weights.sum(1) ** 2) * (batch.log_probs * batch.weights).sum(1)
        ).mean()

    assert_gradient(loss, expect="reward - c*squared", terms={"squared": length_squared}, c=0.2, quick=True)
    with pytest.raises(AssertionError, match="left out"):
        assert_gradient(loss, expect="reward - 2*c*squared", terms={"squared": length_squared}, c=0.2, quick=True)


def test_parameters():
    def loss(batch, beta=0.1, k=2, unused=1.0, low=0.5):
        if low > 0.7:
            raise ValueError("low: must be < 0.7")
        top = batch.vocab_log_probs.topk(min(k, 2), -1).values.exp().sum(-1)
        return kl_in_reward(batch, beta) + low * (top * batch.weights).sum(1).mean()

    found = {e.parameter: e for e in audit(loss_target(loss)).effects}
    assert found["beta"].change.coefficients == pytest.approx({"reverse_kl": 1}, abs=1e-9)
    assert not found["unused"].acts
    assert not found["k"].problem  # 3, not 4: whole numbers are not doubled
    assert not found["low"].problem  # 1.0 is refused, 0.55 is not
    missed = audit(loss_target(loss), must_act=["unused"], quick=True)
    assert not missed.met
    assert "unused had to act" in missed.verdict
    with pytest.raises(ValueError, match="no numeric parameter 'gamma'"):
        audit(loss_target(loss), must_act=["gamma"])


def test_what_cannot_be_varied_is_said():
    def loss(batch, strict=1.0):
        if strict != 1.0:
            raise RuntimeError("strict must be 1")
        return policy_gradient(batch, batch.total_rewards())

    found = audit(loss_target(loss))
    assert "not varied: RuntimeError: strict must be 1" in found.effects[0].problem
    assert "strict was not varied" in found.verdict


def test_a_ratio_of_sequences_is_that_of_the_tokens_that_count():
    """Passed as a function of one's own it meets batches with junk in masked positions."""
    found = audit(lambda batch: rloo(batch), expect="reward")
    assert "depends on masked positions" not in found.verdict
    assert found.met
