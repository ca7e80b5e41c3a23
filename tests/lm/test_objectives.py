"""Objectives by name: the functions of klsim.objectives, with the near names in errors."""

from __future__ import annotations

import numpy as np
import pytest

from klsim import objectives
from klsim.lm.objectives import losses, named, needs
from klsim.objectives import TokenBatch

RNG = np.random.default_rng(0)
MASK = np.arange(4) < np.array([[2], [4], [3], [1]])


def batch() -> TokenBatch:
    log_p, log_q, log_t = (-RNG.exponential(1.0, (4, 4)) for _ in range(3))
    return TokenBatch(
        log_probs=log_p, ref_log_probs=log_q, teacher_log_probs=log_t, mask=MASK, rewards=np.array([0.0, 1.0, 1.0, 0.0])
    )


def test_a_named_objective_is_the_function():
    b = batch()
    got, _ = named("g_opd", lam=1.5, discount=1.0, aggregate="sequence_sum")(b)
    wanted, _ = objectives.g_opd(b, lam=1.5, discount=1.0, aggregate=objectives.sequence_sum)
    assert got == wanted
    assert named("grpo", aggregate=7)(b)[0] == objectives.grpo(b, aggregate=objectives.fixed_length(7))[0]
    assert named("grpo", clip=[0.1, 0.3])(b)[0] == objectives.grpo(b, clip=(0.1, 0.3))[0]


def test_kl_in_the_reward_and_in_the_loss():
    b = batch()
    got, _ = named("rloo", kl={"place": "reward", "beta": 0.2})(b)
    assert got == objectives.rloo(objectives.kl_in_reward(b, beta=0.2))[0]
    got, metrics = named("rloo", kl={"place": "loss", "beta": 0.2, "estimator": "k2", "aggregate": "sequence_sum"})(b)
    extra, _ = objectives.kl_in_loss(b, estimator="k2", aggregate=objectives.sequence_sum)
    assert got == objectives.rloo(b)[0] + 0.2 * extra
    assert "kl" in metrics


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"name": "grpo"}, {"rewards"}),
        ({"name": "opd"}, {"teacher_log_probs"}),
        ({"name": "g_opd"}, {"teacher_log_probs", "ref_log_probs"}),
        ({"name": "rloo", "kl": {"place": "reward", "beta": 1.0}}, {"rewards", "ref_log_probs"}),
        ({"name": "gkd"}, {"vocab_log_probs", "teacher_vocab_log_probs"}),
    ],
)
def test_needs(given, wanted):
    assert needs(named(**given)) == wanted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "gopd"}, "objective 'gopd': no such objective; near: g_opd, opd"),
        ({"name": "sft"}, "no such objective"),  # not a loss of the policy's own tokens
        ({"name": "g_opd", "lambda": 2}, "objective 'g_opd': no parameter 'lambda'; near: lam"),
        ({"name": "kdrl", "aggregate": "sum"}, "no parameter 'aggregate'"),
        ({"name": "grpo", "aggregate": "token"}, "aggregate = 'token'; near: token_mean"),
        ({"name": "rloo", "kl": {"beta": 1}}, "kl: place must be 'reward' or 'loss', got None"),
        ({"name": "rloo", "kl": {"place": "loss"}}, "kl: parameter 'beta' is missing"),
        ({"name": "rloo", "kl": {"place": "reward", "beta": 1, "estimator": "k2"}}, "kl: no parameter 'estimator'"),
        ({"name": "rloo", "kl": {"place": "loss", "beta": -1}}, "beta = -1"),
        ({"name": "rloo", "kl": 0.1}, "kl: must be a table, got 0.1"),
    ],
)
def test_errors(given, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        named(**given)


def test_every_loss_can_be_tried():
    for name in losses():
        assert needs(named(name, **({"beta": 0.1} if name == "self_objective" else {}))) is not None
