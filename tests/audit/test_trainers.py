"""The audit on the loss code of installed trainers: known truths that it must find by itself."""

import inspect
import re

import numpy as np
import pytest

from klsim.audit import audit, load_target
from klsim.audit.gallery import GALLERY, gallery_markdown, write_gallery
from klsim.learning import TreeProblem, expected_gradient, explain, random_prompts

pytest.importorskip("torch")
trl = pytest.importorskip("trl")

# TRL divides by the group's sample standard deviation + 1e-4: 1/sqrt(2) in mixed groups of two, half of all pairs' gap
GROUPED = -1 / (2 * (np.sqrt(0.5) + 1e-4))
FROZEN_REVERSE, FORWARD = "reverse_kl(frozen)", "forward_kl(frozen)"


def test_trl_k3_is_the_forward_kl_with_frozen_visits():
    found = audit(load_target("trl:grpo?loss_type=dr_grpo&beta=0.1&use_bias_correction_kl=false&scale_rewards=none"))
    assert found.variable.exact
    assert set(found.variable.coefficients) == {"reward", FORWARD}
    # Dr. GRPO divides by the maximal length, 3; a group of two keeps half of the gradient without leave-one-out
    assert found.variable.coefficients == pytest.approx({"reward": -1 / 6, FORWARD: 0.1 / 3}, rel=1e-6)
    assert found.variable.residual < 1e-9
    (effect,) = found.effects
    assert effect.change.coefficients == pytest.approx({FORWARD: 1 / 3}, rel=1e-6)
    assert "reverse" not in found.verdict


def test_trl_bias_correction_makes_it_the_reverse_kl_with_frozen_visits():
    found = audit(load_target("trl:grpo?loss_type=dr_grpo&beta=0.1&use_bias_correction_kl=true"))
    assert found.equal.coefficients == pytest.approx({"reward": GROUPED / 3, FROZEN_REVERSE: 0.1 / 3}, rel=1e-6)
    assert found.variable.exact
    assert set(found.variable.coefficients) == {"reward", FROZEN_REVERSE}  # not the reverse KL of sequences


def test_trl_rloo_with_its_kl_in_the_reward_is_the_reverse_kl_of_sequences():
    found = audit(load_target("trl:rloo?beta=0.1"), expect="reward - beta*reverse_kl")
    assert found.equal.coefficients == pytest.approx({"reward": -1, "reverse_kl": 0.1}, rel=1e-6)
    assert found.met
    assert not found.std_normalised


@pytest.mark.parametrize("length", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_trl_bias_correction_by_sequence_becomes_the_forward_kl_again(length):
    """The sequence's ratio weights every token's k3: 1/T of the sequence's score, not the token's own."""

    def loss(beta):
        return load_target(f"trl:grpo?loss_type=grpo&importance_sampling_level=sequence&beta={beta}").loss()

    prompts = [random_prompts(1, 710 + seed, horizon=length, vocab=2, eos=None, near=0.5) for seed in range(4)]
    problems = [TreeProblem(p) for p in prompts]
    with_kl, without = (
        [expected_gradient(loss(beta), p, group_size=2).gradient for p in problems] for beta in (1.0, 0.0)
    )
    found = explain([a - b for a, b in zip(with_kl, without)], problems, ["reverse_kl", FORWARD])
    assert found.residual < 1e-9
    assert found.coefficients == pytest.approx({"reverse_kl": length**-2, FORWARD: (length - 1) / length**2}, rel=1e-6)


@pytest.mark.slow
def test_trl_grpo_rescales_prompts_and_weights_tokens_by_length():
    found = audit(load_target("trl:grpo?loss_type=grpo"))
    assert found.std_normalised
    assert "reward_per_token" in found.variable.coefficients
    assert "1/length" in found.verdict


@pytest.mark.slow
def test_trl_distillation_at_its_ends():
    forward = audit(load_target("trl:distillation?beta=0")).equal
    reverse = audit(load_target("trl:distillation?beta=1")).equal
    assert set(forward.coefficients) == {"forward_kl(teacher, frozen)"}
    assert set(reverse.coefficients) == {"reverse_kl(teacher, frozen)"}
    assert set(audit(load_target("trl:gkd?beta=0.5")).equal.coefficients) == {"js(teacher, frozen)"}


def test_the_gallery_misses_no_loss_type_of_the_installed_trl():
    source = inspect.getsource(trl.GRPOTrainer._compute_loss)
    named = set()
    for found in re.findall(r"self\.loss_type (?:==|in) (\[[^\]]*\]|\"\w+\")", source):
        named |= set(re.findall(r"\"(\w+)\"", found))
    assert named
    for kind in named:
        assert any(t.startswith("trl:grpo") and f"loss_type={kind}" in t for t in GALLERY), kind


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("trl:ppo", "trl:ppo is not one of"),
        ("trl:grpo?bta=1", "does not read 'bta'"),
        ("trl:grpo?mask_truncated_completions=true", "does not read 'mask_truncated_completions'"),
        ("trl:grpo?loss_type=nothing", "nothing"),
        ("trl:gkd?alpha=1", "unknown option 'alpha'"),
        ("trl:rloo?beta=o.1", "beta=o.1 is no number"),
        ("trl:grpo?beta=0.1&beta=0.2", "given twice"),
    ],
)
def test_bad_options(target, says):
    with pytest.raises(ValueError, match=says):
        audit(load_target(target))


def test_pages_escape_names(tmp_path):
    from klsim.audit import Target
    from klsim.audit.measure import as_json
    from klsim.report.html import write_audits

    target = Target(
        "<script>alert(1)</script>", lambda: lambda batch: -(batch.total_rewards() * batch.log_probs.sum(1)).mean()
    )
    text = write_audits([as_json(audit(target))], tmp_path).read_text()
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_what_cannot_be_audited_is_said(tmp_path):
    found = {"verl:vanilla": "verl is not installed", "klsim:rloo": audit(load_target("klsim:rloo"))}
    text = gallery_markdown(found)
    assert "not audited: verl is not installed" in text
    write_gallery(tmp_path / "gallery.md", found)
    assert "klsim" in (tmp_path / "gallery.md").read_text().splitlines()[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "exact"),
    [("loss_type=dr_grpo", True), ("loss_type=luspo", True), ("loss_type=grpo", False), ("loss_type=dapo", False)],
)
def test_trl_beta_is_a_multiple_of_the_frozen_reverse_kl_where_tokens_are_summed(options, exact):
    (effect,) = audit(load_target(f"trl:grpo?{options}&beta=0.1")).effects
    assert set(effect.change.coefficients) == {FROZEN_REVERSE}  # with equal lengths always
    assert (effect.variable.exact and set(effect.variable.coefficients) == {FROZEN_REVERSE}) == exact


@pytest.mark.slow
def test_trl_statements_of_the_gallery():
    cispo, five = (audit(load_target(f"trl:grpo?loss_type=cispo{o}"), quick=True) for o in ("", "&epsilon_high=5"))
    small, large = (a.found["lengths"].coefficients["reward"] for a in (cispo, five))
    assert small / large == pytest.approx(0.2, rel=1e-6)  # the ratio itself is clamped at epsilon_high
    batch = audit(load_target("trl:grpo?loss_type=dapo&scale_rewards=batch"))
    assert not batch.std_normalised
    assert 0.9 < min(batch.prompt_weights) < max(batch.prompt_weights) < 1.01
    assert batch.properties.micro_batches > 0.05
    graded = audit(load_target("trl:grpo?loss_type=dr_grpo"), expect="reward", scale="any", quick=True)
    left = {m.world: m.residual for m in graded.expected}
    assert left["lengths"] < 1e-4 < 0.05 < left["graded rewards"]
    opened = audit(load_target("trl:rloo?beta=0&epsilon=1e6"), expect="reward", off_policy="exact", quick=True)
    assert opened.met
