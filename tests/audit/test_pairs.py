"""Losses on preference pairs: their worlds, what they do to a pair, and trainers against klsim's own."""

import math

import numpy as np
import pytest
import torch

from klsim.audit import Target, audit, load_target
from klsim.audit.pairs import GAP, pushes
from klsim.audit.worlds import world

BETA = 0.1


def gaps(b, weights=None):
    h = ((b.log_probs - b.ref_log_probs) * (b.weights if weights is None else weights)).sum(1)
    return h[b.preferred], h[~b.preferred]


def dpo(b):
    chosen, rejected = gaps(b)
    return -torch.nn.functional.logsigmoid(BETA * (chosen - rejected)).mean()


def run(loss, expect=None, **options):
    return audit(Target(loss.__name__, lambda: loss), expect=expect, **options)


def by_situation(loss):
    return {p.situation: (p.up, p.down) for p in pushes(loss)}


def test_the_pushes_of_dpo_are_beta_sigma_of_the_margin():
    sigma = 1 / (1 + math.exp(2 * BETA * GAP))
    found = by_situation(dpo)
    for situation, push in {
        "at the reference": BETA / 2, "ranked rightly": BETA * sigma, "ranked wrongly": BETA * (1 - sigma),
        "chosen of 3 tokens, rejected of 1": BETA / 2, "chosen of 1 token, rejected of 3": BETA / 2,
    }.items():  # fmt: skip
        assert found[situation] == pytest.approx((push, push))


def test_the_pushes_of_averaged_log_ratios_fall_with_the_length():
    found = by_situation(load_target("klsim:simpo").loss())
    up, down = found["chosen of 3 tokens, rejected of 1"]
    assert up == pytest.approx(down / 3)


def test_weights_of_tokens_are_no_push_of_a_response():
    def loss(b):
        chosen, rejected = gaps(b, b.weights * torch.arange(1, b.mask.shape[1] + 1))
        return (rejected - chosen).mean()

    assert {p.situation for p in pushes(loss) if p.left > 0.01} == {
        "chosen of 3 tokens, rejected of 1", "chosen of 1 token, rejected of 3",
    }  # fmt: skip


def test_a_loss_that_takes_pairs_only_is_held_on_pairs():
    found = run(dpo, "-dpo(beta=0.1)")
    assert found.met
    assert found.takes_pairs
    assert [m.world for m in found.expected] == ["pairs", "pairs, far", "pairs, left padding", "pairs, holes"]
    assert not found.properties.masked
    assert found.properties.coupling == ""


def forgets_the_mask(b):
    chosen, rejected = gaps(b, 1.0)
    return -torch.nn.functional.logsigmoid(BETA * (chosen - rejected)).mean()


def first_is_chosen(b):
    b.need("preferred")
    if b.preferred is None:
        raise ValueError("preferred: needs pairs")
    h = ((b.log_probs - b.ref_log_probs) * b.weights).sum(1)
    return -torch.nn.functional.logsigmoid(BETA * (h[::2] - h[1::2])).mean()


def across_pairs(b):
    chosen, rejected = gaps(b)
    return -torch.nn.functional.logsigmoid(BETA * (chosen - rejected.mean())).mean()


def test_what_a_loss_on_pairs_depends_on():
    found = run(forgets_the_mask, "-dpo(beta=0.1)", quick=True)
    assert not found.met
    assert "depends on masked positions" in found.verdict
    with pytest.raises(ValueError, match="depends on the order"):
        run(first_is_chosen, "-dpo(beta=0.1)", quick=True)
    found = run(across_pairs, "-dpo(beta=0.1)", quick=True)
    assert found.properties.coupling.startswith("mixes prompts")


@pytest.mark.parametrize("beta", [0.01, 0.1])
def test_another_curve_through_the_same_slope_is_no_dpo(beta):
    """Near the reference a hinge is a combination of DPO and IPO to as many digits as its beta is small."""

    def hinge(b):
        chosen, rejected = gaps(b)
        return (1 - beta * (chosen - rejected)).relu().mean()

    assert not audit(Target("hinge", lambda beta=beta: hinge, {"beta": beta}), quick=True).variable.exact


@pytest.mark.parametrize(
    ("trainer", "ours"),
    [
        ("trl:dpo?beta=0.3", "klsim:dpo?beta=0.3"),
        ("trl:kto?beta=0.3", "klsim:kto?beta=0.3"),
        ("trl:cpo?loss_type=sigmoid&cpo_alpha=0&beta=0.3", "klsim:cpo?alpha=0&beta=0.3"),
        ("trl:cpo?loss_type=simpo&cpo_alpha=0&beta=2&simpo_gamma=0.5", "klsim:simpo?beta=2&gamma=0.5"),
        ("trl:orpo?beta=0.3", "klsim:orpo?beta=0.3"),
        ("trl:tpo?tpo_alpha=0&beta=0.3", "klsim:cpo?alpha=0&beta=0.3"),
        ("trl:online_dpo?beta=0.3", "klsim:dpo?beta=0.3"),
        ("trl:online_dpo?loss_type=ipo&beta=0.3", "klsim:ipo?beta=0.3"),
    ],
)
def test_trls_losses_on_one_pair_are_klsims(trainer, ours):
    pytest.importorskip("trl")
    for name in ("pairs", "pairs, holes"):
        here = world(name)
        one, two = (here.gradient(load_target(text).loss()) for text in (trainer, ours))
        assert np.linalg.norm(one - two) < 1e-6 * np.linalg.norm(two)


def test_what_couples_trls_pairs():
    pytest.importorskip("trl")
    assert audit(load_target("trl:dpo?loss_type=aot"), quick=True).properties.coupling.startswith("mixes prompts")
    assert "chosen tokens" in audit(load_target("trl:orpo"), quick=True).properties.coupling
    assert "averaged" in str(audit(load_target("trl:dpo?loss_type=ipo"), quick=True).variable.coefficients)


def test_a_loss_that_fails_on_pairs_says_so():
    pytest.importorskip("trl")
    with pytest.raises(ValueError, match="its gradient is nan"):
        audit(load_target("trl:dpo?loss_type=exo_pair"), quick=True)  # the trainer itself refuses no smoothing
    with pytest.raises(ValueError, match="does not read 'nothing'"):
        load_target("trl:dpo?nothing=1")


def test_klsims_names_take_their_options():
    found = load_target("klsim:dpo?beta=0.3&label_smoothing=0.1")
    assert found.parameters == {"beta": 0.3, "label_smoothing": 0.1}
    assert load_target("klsim:grpo?std=sample").parameters == {"epsilon": 0.0}
    assert load_target("klsim:rloo + k1 in the reward").parameters == {}
    for bad in ("klsim:nothing", "klsim:grpo?std=both", "klsim:rloo + k1 in the reward?beta=1", "klsim:dpo?beta=o.1"):
        with pytest.raises(ValueError, match="klsim objectives --list"):
            load_target(bad)


def test_the_list_names_what_can_be_audited():
    from klsim.objectives.registry import LOSSES, OBJECTIVES, address, resolve

    for row in OBJECTIVES.values():
        written = address(*row.options)
        if written:
            resolve(written)
            assert row.name not in LOSSES or row.name == row.options[0], row.name
            if row.name in LOSSES:  # a row with a function's name has its defaults, or options that the table states
                assert "aggregate" not in row.options[1], row.name
