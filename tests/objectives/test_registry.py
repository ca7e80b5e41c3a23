"""The namespace of losses: names, options with their defaults, and losses built from values or text."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from klsim import objectives as o
from klsim.objectives import TokenBatch
from klsim.objectives.registry import LOSSES, OBJECTIVES, address, from_text, named, resolve

LOG = np.log([[0.5, 0.4], [0.2, 0.9]])


def batch(**changes):
    fields = {
        "log_probs": LOG, "old_log_probs": LOG - 0.5, "ref_log_probs": LOG - 0.2, "teacher_log_probs": LOG + 0.1,
        "mask": [[True, True], [True, False]], "rewards": np.array([1.0, 0.0]),
    }  # fmt: skip
    return TokenBatch(**(fields | changes))


def test_every_loss_of_the_package_is_in_the_registry_or_takes_an_array():
    import inspect

    left_out = {
        name
        for name in o.__all__
        if inspect.isfunction(getattr(o, name)) and inspect.signature(getattr(o, name)).return_annotation == "Loss"
    } - set(LOSSES)
    assert left_out == {
        "asft", "bgpo", "elbo_ratio", "elbo_two_pass", "prefix_rl", "self_objective", "surrogate", "value_loss",
    }  # fmt: skip


def test_names_options_and_defaults_are_those_of_the_functions():
    assert LOSSES["grpo"].signature == "grpo?clip=0.2,0.2&aggregate=sequence_mean&epsilon=0&std=population"
    assert LOSSES["clip_cov"].signature.endswith("rng=none")
    assert LOSSES["rl_plus"].options[0].required
    assert LOSSES["rl_plus"].signature.startswith("rl_plus?vocab_size=…&gamma=0.5")
    assert LOSSES["vla_opd"].signature == "vla_opd"
    assert LOSSES["dpo"].needs == {"preferred", "ref_log_probs"}
    assert LOSSES["tis"].needs == {"rewards", "rollout_log_probs"}
    assert not LOSSES["sft"].own_tokens
    assert LOSSES["sapo"].summary.startswith("``-aggregate[ f(rho) A ]``")


def test_the_spelled_out_address_is_the_default_loss():
    """Every default survives being written and read."""
    made = batch(
        advantages=None, group=[0, 0], preferred=[True, False], rollout_log_probs=LOG - 0.1, values=0 * LOG,
        greedy_rewards=np.zeros(2), vocab_log_probs=np.log(np.full((2, 2, 2), 0.5)), tokens=[[0, 1], [1, 0]],
        old_vocab_log_probs=np.log(np.full((2, 2, 2), 0.5)), ref_vocab_log_probs=np.log(np.full((2, 2, 2), 0.5)),
        teacher_vocab_log_probs=np.log([[[0.3, 0.7]] * 2] * 2), external=[False, True],
    )  # fmt: skip
    for name, loss in LOSSES.items():
        if name in ("rl_plus", "pass_at_k"):
            continue
        assert from_text(loss.signature)(made)[0] == loss.function(made)[0] == named(name)(made)[0], name


def test_values_and_text_build_the_same_loss():
    b = batch()
    for text, values in (
        ("grpo?clip=0.1,inf&aggregate=token_mean", {"clip": [0.1, math.inf], "aggregate": "token_mean"}),
        ("grpo?aggregate=7", {"aggregate": 7}),
        ("reinforce?ratio=token_ratio", {"ratio": "token_ratio"}),
        ("kdrl?estimator=k3&keep=wrong_group&beta=1e-2", {"estimator": "k3", "keep": "wrong_group", "beta": 0.01}),
        ("dapo?lengths_cap=4,2&dynamic_sampling=false", {"lengths_cap": (4, 2), "dynamic_sampling": False}),
        ("dr_grpo?max_length=none", {"max_length": None}),
        ("max_at_k?k=1&baseline=leave_one_out", {"k": 1, "baseline": "leave_one_out"}),
        ("rloo?kl.place=loss&kl.beta=0.2&kl.estimator=k2", {"kl": {"place": "loss", "beta": 0.2, "estimator": "k2"}}),
        ("rloo?kl.place=reward&kl.beta=0.2", {"kl": {"place": "reward", "beta": 0.2}}),
    ):
        name = text.partition("?")[0]
        assert from_text(text)(b)[0] == named(name, **values)(b)[0], text
    expected = partial(o.grpo, clip=(0.1, math.inf), aggregate=o.token_mean)(b)[0]
    assert from_text("grpo?clip=0.1,inf&aggregate=token_mean")(b)[0] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gropo", "objective 'gropo': no such objective; near: grpo"),
        ("grpo?clipp=0.2,0.2", "objective 'grpo': no parameter 'clipp'; near: clip"),
        ("vla_opd?beta=1", "objective 'vla_opd': no parameter 'beta'$"),
        ("grpo?clip=0.2", r"clip = '0.2': must be 2 numbers"),
        ("grpo?epsilon=o.1", r"epsilon = 'o.1': must be a number"),
        ("grpo?epsilon=0.1&epsilon=0.2", "option 'epsilon' is given twice"),
        ("grpo?epsilon", "'epsilon' is no option, write option=value"),
        ("grpo?", "'' is no option"),
        ("grpo?aggregate=token", "aggregate = 'token'; near: token_mean"),
        ("grpo?std=both", "std = 'both'; known: population, sample"),
        ("max_at_k?k=2.0", "k = '2.0': must be an integer"),
        ("rover?next_value=yes", "next_value = 'yes': must be true or false"),
        ("rl_plus", "parameter 'vocab_size' is missing"),
        ("rloo?kl.beta=1", "kl: place must be 'reward' or 'loss', got None"),
        ("rloo?kl.place=loss&kl.beta=-1", "beta"),
        ("rloo?kl.place=reward&kl.beta=x", "beta = 'x': must be a number"),
        ("rloo?kl.place=reward&kl.beta=1&kl.estimator=k2", "kl: no parameter 'estimator'"),
    ],
)
def test_bad_text(text, message):
    with pytest.raises(ValueError, match=message):
        from_text(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": "0.1"}, "epsilon = '0.1': must be a number"),
        ({"epsilon": True}, "epsilon = True: must be a number"),
        ({"clip": 0.2}, "clip = 0.2: must be 2 numbers"),
        ({"clip": [0.2, "0.3"]}, "must be 2 numbers"),
        ({"clip": [0.2, 0.2, 0.2]}, "must be 2 numbers"),
        ({"std": 1}, "std = 1: must be text"),
    ],
)
def test_bad_values(options, message):
    with pytest.raises(ValueError, match=message):
        named("grpo", **options)


def test_a_row_says_which_call_it_measures():
    assert OBJECTIVES["grpo"].call == "grpo()"
    assert OBJECTIVES["opd, summed"].call == "opd(aggregate=sequence_sum)"
    assert OBJECTIVES["rloo + k1 in the reward"].call == ""
    for objective in OBJECTIVES.values():
        name = objective.call.partition("(")[0]
        assert not name or name in LOSSES or name == "prefix_rl"


def test_names_come_before_rows():
    b = batch()
    assert resolve("opd")(b)[0] == o.opd(b)[0] != OBJECTIVES["opd, summed"].loss(b)[0]
    assert resolve("opd?aggregate=sequence_sum")(b)[0] == OBJECTIVES["opd, summed"].loss(b)[0]
    assert resolve("rloo + k1 in the reward") is OBJECTIVES["rloo + k1 in the reward"].loss
    with pytest.raises(ValueError, match="no such objective"):
        resolve("rloo + k1")


def test_rows_are_complete():
    for name, objective in OBJECTIVES.items():
        assert name == objective.name
        assert objective.source
        assert objective.population is not None or objective.bias
    assert replace(OBJECTIVES["grpo"], group_size=4).group_size == 4


@pytest.mark.parametrize("name", ["apo", "clip_cov", "kdrl", "pass_at_k"])
def test_a_name_is_the_loss_with_its_defaults_not_the_row_of_the_table(name):
    assert resolve(name).keywords == from_text(name).keywords != OBJECTIVES[name].loss.keywords


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("grpo", {}, "grpo"),
        ("grpo", {"clip": (0.1, math.inf), "aggregate": o.token_mean}, "grpo?clip=0.1,inf&aggregate=token_mean"),
        ("dapo", {"lengths_cap": (4, 2), "dynamic_sampling": False}, "dapo?lengths_cap=4,2&dynamic_sampling=false"),
        ("dr_grpo", {"max_length": None}, "dr_grpo?max_length=none"),
    ],
)
def test_an_address_reads_back_as_the_options(name, options, text):
    assert address(name, options) == text
    assert from_text(text)(batch())[0] == named(name, **options)(batch())[0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gropo", {}),
        ("grpo", {"clipp": (0.1, 0.2)}),
        ("grpo", {"std": "both"}),
        ("grpo", {"epsilon": 1 / 3}),  # six digits are written
        ("grpo", {"epsilon": 0.5, "aggregate": lambda values, mask: values.sum()}),
    ],
)
def test_what_no_address_says_has_none(name, options):
    assert address(name, options) == ""
