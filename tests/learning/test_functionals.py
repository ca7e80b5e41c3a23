"""The functionals against sums written out in NumPy, and their gradients by finite differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from klsim.distributions import log_normalize
from klsim.learning import TreeProblem, functional_gradient, functional_value, random_prompts
from klsim.learning.functionals import parse_term

pytest.importorskip("torch")


def problem(count=2, *, seed=6, **how):
    return TreeProblem(random_prompts(count, seed, off_policy=True, binary=False, **how))


FROZEN = ("jsd(teacher, frozen, weight=0.9)", "skew_forward_kl(teacher, frozen, alpha=0.1)",
          "skew_reverse_kl(frozen, alpha=0.3)", "k2(frozen)", "k2_ref(frozen)", "forward_kl(teacher, frozen, mode)",
          "reverse_kl(teacher, frozen, temperature=0.5)", "forward_kl(teacher, frozen, top=2)",
          "forward_kl(teacher, frozen, tail, top=2)", "reverse_kl(teacher, frozen, renormalised, top=2, of=policy)",
          "js(teacher, frozen, tail, top=1)")  # fmt: skip
OTHERS = ("inverse_length", "max_at_k(k=3)", "min_at_k(k=3)", "log_ref", "win_rate", "forward_kl(old)", "dpo(beta=0.3)", "ipo(beta=0.5)",
          "ipo(averaged, beta=0.5)", "reverse_kl(sampled)", "forward_kl(teacher, sampled)", "log_prob(sampled)",
          "sequence_mean(reverse_kl(sampled))", "sequence_mean(entropy(frozen))", "sequence_mean(win_rate)",
          "token_mean(reward)", "token_mean(forward_kl(frozen))", "reward(ended)", "jsd(weight=0.2)")  # fmt: skip


@pytest.mark.parametrize("name", [*FROZEN, *OTHERS])
def test_gradients_by_finite_differences(name):
    here = problem()
    gradient, logits, h = functional_gradient(name, here), np.array(here.tables["policy"]), 1e-5
    for index in np.ndindex(*logits.shape):
        values = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[index] += sign * h
            values.append(functional_value(name, here.with_policy(log_normalize(moved))))
        assert math.isclose((values[0] - values[1]) / (2 * h), gradient[index], abs_tol=1e-8)


def laws(here):
    return {name: np.exp(here.log_prob(name)) for name in ("policy", "ref", "behaviour")}


def kl(p, q):
    return float(np.sum(p * (np.log(p) - np.log(q))))


def test_the_largest_of_k_rewards():
    here = problem(1)
    p = laws(here)["policy"]
    brute = sum(
        math.prod(p[i] for i in rows) * max(here.reward[i] for i in rows)
        for rows in itertools.product(range(len(p)), repeat=3)
    )
    assert math.isclose(functional_value("max_at_k(k=3)", here), brute)
    worst = sum(
        math.prod(p[i] for i in rows) * min(here.reward[i] for i in rows)
        for rows in itertools.product(range(len(p)), repeat=3)
    )
    assert math.isclose(functional_value("min_at_k(k=3)", here), worst)
    assert math.isclose(functional_value("log_ref", here), float(p @ here.log_prob("ref")))
    binary = TreeProblem(random_prompts(1, 2))
    success = float(binary.success()[0])
    assert math.isclose(functional_value("pass_at_k(k=4)", binary), 1 - (1 - success) ** 4)


def test_pairs():
    here = problem(1)
    law, r, beta = laws(here), here.reward, 0.3
    h = here.log_prob("policy") - here.log_prob("ref")
    dpo = ipo = 0.0
    for i, j in itertools.product(range(len(r)), repeat=2):  # two draws; the one with more reward is chosen
        if r[i] == r[j]:
            continue
        chosen, rejected = (i, j) if r[i] > r[j] else (j, i)
        weight, gap = law["behaviour"][i] * law["behaviour"][j], h[chosen] - h[rejected]
        dpo += weight * math.log1p(math.exp(-beta * gap))
        ipo += weight * (gap - 1 / (2 * beta)) ** 2
    assert math.isclose(functional_value(f"dpo(beta={beta})", here), dpo)
    assert math.isclose(functional_value(f"ipo(beta={beta})", here), ipo)


def test_the_chance_to_beat_another_response():
    here = problem(1)
    law, r = laws(here), here.reward
    chance = sum(law["policy"][i] * law["behaviour"][j] * (np.sign(r[i] - r[j]) / 2)
                 for i, j in itertools.product(range(len(r)), repeat=2))  # fmt: skip
    assert math.isclose(functional_value("win_rate", here), chance)


def test_means_over_responses_and_tokens():
    here = problem(1)
    law = laws(here)["behaviour"]
    each = np.zeros(here.mask.shape)
    k3 = np.zeros(here.mask.shape)
    for i, t in zip(*np.nonzero(here.mask)):
        node, token = here.nodes[i, t], here.tokens[i, t]
        each[i, t] = kl(np.exp(here.tables["policy"][node]), np.exp(here.tables["ref"][node]))
        gap = here.tables["ref"][node, token] - here.tables["policy"][node, token]
        k3[i, t] = math.exp(gap) - 1 - gap
    sums = each.sum(1)
    assert math.isclose(functional_value("reverse_kl(frozen)", here), law @ sums)
    assert math.isclose(functional_value("sequence_mean(reverse_kl(frozen))", here), law @ (sums / here.length))
    assert math.isclose(functional_value("token_mean(reverse_kl(frozen))", here), (law @ sums) / (law @ here.length))
    assert math.isclose(functional_value("sequence_mean(forward_kl(sampled))", here), law @ (k3.sum(1) / here.length))
    centred = here.reward - law @ here.reward
    p = laws(here)["policy"]
    assert math.isclose(functional_value("reward(ended)", here), float(p @ (centred * here.ended)))
    assert not here.ended.all()
    assert here.ended.any()


def test_token_means_are_of_a_batch():
    prompts = random_prompts(4, 3)
    both = TreeProblem(prompts, [0, 0, 1, 1])
    one, two = TreeProblem(prompts[:2]), TreeProblem(prompts[2:])
    for name in ("token_mean(reward)", "reward", "reverse_kl(frozen)"):
        assert math.isclose(
            functional_value(name, both), functional_value(name, one) + functional_value(name, two), abs_tol=1e-15
        )


def test_divergences_at_a_prefix():
    """One token: the visits are 1, and the value is that of the two laws."""
    (prompt,) = random_prompts(1, 4, vocab=5, horizon=1, eos=None)
    here = TreeProblem([prompt])
    p, q = np.exp(here.tables["policy"][0]), np.exp(here.tables["teacher"][0])
    m = 0.9 * q + 0.1 * p
    top = np.argsort(-q)[:2]
    mine = np.argsort(-p)[:2]
    tempered = q**2 / np.sum(q**2)
    rest_p, rest_q = 1 - p[top].sum(), 1 - q[top].sum()
    wanted = {
        "jsd(teacher, frozen, weight=0.9)": 0.9 * kl(q, m) + 0.1 * kl(p, m),
        "skew_forward_kl(teacher, frozen, alpha=0.2)": kl(q, 0.2 * q + 0.8 * p),
        "skew_reverse_kl(teacher, frozen, alpha=0.2)": kl(p, 0.2 * p + 0.8 * q),
        "reverse_kl(teacher, frozen, temperature=0.5)": kl(p, tempered),
        "forward_kl(teacher, frozen, mode)": -math.log(p[q.argmax()]),
        "k2(teacher, frozen)": float(np.sum(p * np.log(p / q) ** 2) / 2),
        "k2_ref(teacher, frozen)": float(np.sum(q * np.log(p / q) ** 2) / 2),
        "forward_kl(teacher, frozen, top=2)": kl(q[top], p[top]),
        "forward_kl(teacher, frozen, tail, top=2)": kl(np.append(q[top], rest_q), np.append(p[top], rest_p)),
        "reverse_kl(teacher, frozen, renormalised, top=2, of=policy)": kl(
            p[mine] / p[mine].sum(), q[mine] / q[mine].sum()
        ),
    }
    for name, value in wanted.items():
        assert math.isclose(functional_value(name, here), value, abs_tol=1e-12), name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("jsd", "needs weight"),
        ("jsd(weight=1)", "strictly between"),
        ("dpo(beta=0)", "beta must be > 0"),
        ("dpo(beta=x)", "is no number"),
        ("max_at_k(k=0)", "k must be a whole number"),
        ("token_mean(dpo(beta=1))", "no mean over tokens"),
        ("js(teacher, frozen, top=2)", "only KLs are defined"),
        ("reverse_kl(teacher, frozen, top=9)", "top=9 of a vocabulary of 3"),
        ("reward(sampled)", "sampled is for"),
        ("log_prob", "needs the option sampled"),
        ("reverse_kl(frozen, tail)", "need top="),
        ("reverse_kl(temperature=2)", "need frozen"),
        ("reward(frozen)", "frozen is for"),
        ("sequence_mean(length)", "sequence_mean is for"),
    ],
)
def test_bad_names(name, says):
    with pytest.raises(ValueError, match=says):
        functional_value(name, problem(1))


def test_a_function_is_a_functional():
    """Its own formula: the mean of ``log pi`` of the responses, which has the gradient of minus the entropy."""

    def minus_entropy(given, table):
        return (table.exp() * table).sum()

    (prompt,) = random_prompts(1, 4, vocab=5, horizon=1, eos=None)
    here = TreeProblem([prompt])
    assert math.isclose(functional_value(minus_entropy, here), -functional_value("entropy", here))
    np.testing.assert_allclose(
        functional_gradient(minus_entropy, here), -functional_gradient("entropy", here), atol=1e-14
    )
    for wrong in (lambda given, table: 1.0, lambda given, table: table[0]):
        with pytest.raises(TypeError, match="must return a torch scalar"):
            functional_value(wrong, here)


def test_parsed_names():
    term = parse_term("token_mean(reverse_kl@1(teacher, frozen, tail, top=2, of=policy))")
    assert (term.base, term.prompt, term.mean, term.of) == ("reverse_kl", 1, "token_mean", "policy")
    assert term.flags == {"teacher", "frozen", "tail"}
    assert term.numbers == {"top": 2}
    assert term.other == "teacher"
