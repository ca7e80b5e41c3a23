"""The enumerable masked-diffusion LM: worked values, brute force, bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from klsim import _validate
from klsim.distributions import log_normalize
from klsim.problems.masked_diffusion import (
    MaskedDiffusionLM,
    count_scheme,
    elbo,
    elbo_by_orders,
    elbo_samples,
    from_joint,
    output_law,
    time_scheme,
)

JOINT = np.log([0.45, 0.15, 0.10, 0.30])


def random_model(seed, length=3, vocab=2):
    rng = np.random.default_rng(seed)
    return MaskedDiffusionLM(log_normalize(rng.standard_normal(((vocab + 1) ** length, length, vocab))))


@pytest.mark.parametrize(
    ("rule", "temperature", "expected"),
    [
        ("left_to_right", 1.0, [0.45, 0.15, 0.1, 0.3]),
        ("random", 1.0, [0.45, 0.15, 0.1, 0.3]),
        ("entropy", 1.0, [0.45, 0.15, 0.1, 0.3]),
        ("confidence", 1.0, [0.63, 0.21, 0.04, 0.12]),
        ("left_to_right", 0.6, [0.571252, 0.091543, 0.046574, 0.290631]),
        ("random", 0.6, [0.555079, 0.095733, 0.045255, 0.303933]),
        ("confidence", 0.6, [0.752974, 0.125238, 0.014816, 0.106973]),
    ],
)
def test_worked_values(rule, temperature, expected):
    law = np.exp(output_law(from_joint(JOINT, 2, 2), rule, temperature=temperature))
    assert np.allclose(law, expected, atol=5e-7)


def test_worked_elbo():
    """L = V = 2 with inconsistent conditionals: order probabilities .27 and .42."""
    logp = np.full((9, 2, 2), np.log(0.5))
    model_state = MaskedDiffusionLM(logp).state
    for tokens, position, one in (
        ((2, 2), 0, 0.3), ((2, 2), 1, 0.6), ((0, 2), 1, 0.2), ((1, 2), 1, 0.9), ((2, 0), 0, 0.4), ((2, 1), 0, 0.7),
    ):  # fmt: skip
        logp[model_state(tokens), position] = np.log([1 - one, one])
    model = MaskedDiffusionLM(logp)
    assert np.allclose(np.exp(elbo_by_orders(model, (1, 1))), [0.27, 0.42])
    assert elbo(model, (1, 1)) == pytest.approx(-1.088417, abs=5e-7)
    assert np.allclose(np.exp(output_law(model)), [0.40, 0.16, 0.095, 0.345])


@pytest.mark.parametrize("rule", ["random", "left_to_right", "entropy", "top_prob", "confidence", (2, 0, 1)])
@pytest.mark.parametrize("block", [None, 1, 2])
def test_laws_by_simulation_of_one_step_at_a_time(rule, block):
    """Every law is a distribution; blocks of one are left to right, whatever the rule."""
    model = random_model(0)
    law = output_law(model, rule, temperature=0.7, block=block)
    assert np.isclose(np.exp(law).sum(), 1)
    if block == 1:
        assert np.allclose(law, output_law(model, "left_to_right", temperature=0.7))


def test_confidence_against_brute_force():
    """All draws at all masked positions enumerated; the most confident one is committed."""
    model = random_model(3)
    temperature = 0.8
    plain = np.exp(model.log_prob)
    tempered = np.exp(log_normalize(model.log_prob / temperature))

    def recurse(tokens):
        masked = [i for i, t in enumerate(tokens) if t == 2]
        if not masked:
            return {tuple(tokens): 1.0}
        state = model.state(tokens)
        out = {}
        for draw in itertools.product(range(2), repeat=len(masked)):
            chance = np.prod([tempered[state, i, v] for i, v in zip(masked, draw)])
            scores = [round(plain[state, i, v], 12) for i, v in zip(masked, draw)]
            best = int(np.argmax(scores))
            new = list(tokens)
            new[masked[best]] = draw[best]
            for word, p in recurse(new).items():
                out[word] = out.get(word, 0.0) + chance * p
        return out

    expected = recurse([2, 2, 2])
    law = np.exp(output_law(model, "confidence", temperature=temperature))
    assert np.allclose(law, [expected[w] for w in itertools.product(range(2), repeat=3)], atol=1e-12)


def test_one_position_and_deterministic_rows():
    model = MaskedDiffusionLM(log_normalize(np.random.default_rng(0).standard_normal((4, 1, 3))))
    assert np.allclose(output_law(model, "confidence"), model.log_prob[-1, 0])
    with np.errstate(divide="ignore"):
        sure = from_joint(np.log([1.0, 0, 0, 0]), 2, 2)
    assert np.allclose(np.exp(output_law(sure, "random")), [1, 0, 0, 0])


def test_samplers_are_unbiased():
    model, answer = random_model(5), (1, 0, 1)
    exact = float(elbo(model, answer))
    assert exact == pytest.approx(elbo_by_orders(model, answer).mean())
    for scheme in (count_scheme, lambda *a: time_scheme(*a, floor=0.02)):
        values = elbo_samples(model, answer, *scheme(3, 40_000, 1))
        error = values.std() / np.sqrt(len(values))
        # a floor of .02 leaves out masks of total weight below 2 % of the largest term
        assert abs(values.mean() - exact) < 5 * error + (0.0 if scheme is count_scheme else 0.15)
    masks, weights = count_scheme(4, 2000, 0)
    assert np.allclose(masks.sum(axis=1) * weights, 4)
    assert np.allclose(np.bincount(masks.sum(axis=1))[1:] / 2000, 0.25, atol=0.05)


def test_masks_that_do_not_fit_are_refused(monkeypatch):
    """A uniform number, 8 bytes, and a bit in a byte for every position."""
    monkeypatch.setattr(_validate, "LARGEST", 9 * 5 * 3)
    assert time_scheme(3, 5, 0)[0].shape == (5, 3)
    monkeypatch.setattr(_validate, "LARGEST", 9 * 5 * 3 - 1)
    with pytest.raises(ValueError, match="size = 5: would need"):
        time_scheme(3, 5, 0)


def test_gradients_flow_through_torch():
    theta = torch.randn(27, 3, 2, dtype=torch.float64, requires_grad=True)
    model = MaskedDiffusionLM(torch.log_softmax(theta, dim=-1))
    answer = (1, 0, 1)
    value = elbo(model, answer)
    value.backward()
    assert theta.grad.abs().sum() > 0
    plain = MaskedDiffusionLM(torch.log_softmax(theta, dim=-1).detach().numpy())
    assert float(value.detach()) == pytest.approx(float(elbo(plain, answer)))
    masks, weights = count_scheme(3, 5, 0)
    assert np.allclose(
        elbo_samples(model, answer, masks, weights).detach().numpy(), elbo_samples(plain, answer, masks, weights)
    )


def test_bad_input():
    model = random_model(0)
    with pytest.raises(ValueError, match=r"log_prob: must have shape"):
        MaskedDiffusionLM(log_normalize(np.zeros((8, 3, 2))))
    with pytest.raises(ValueError, match="probabilities sum"):
        MaskedDiffusionLM(np.zeros((27, 3, 2)))
    with pytest.raises(ValueError, match=r"tokens\[2\] = 3"):
        model.state((0, 1, 3))
    with pytest.raises(ValueError, match=r"answer\[0\] = 2"):
        elbo(model, (2, 0, 1))
    with pytest.raises(ValueError, match="answer: must have 3 tokens"):
        elbo(model, (0, 1))
    with pytest.raises(ValueError, match="permutation"):
        output_law(model, (0, 0, 1))
    with pytest.raises(ValueError, match="rule"):
        output_law(model, "nonsense")
    with pytest.raises(ValueError, match="block"):
        output_law(model, "random", block=4)
    with pytest.raises(ValueError, match="temperature"):
        output_law(model, "random", temperature=0.0)
    with pytest.raises(TypeError, match="masks"):
        elbo_samples(model, (0, 1, 1), np.ones((2, 3)), np.ones(2))
    with pytest.raises(ValueError, match="masks"):
        elbo_samples(model, (0, 1, 1), np.ones((2, 3), dtype=bool), np.ones(3))
    with pytest.raises(ValueError, match="log_joint"):
        from_joint(JOINT, 2, 3)
    with pytest.raises(ValueError, match="size"):
        count_scheme(3, 0, 0)


def test_scores_that_differ_by_more_than_a_trillionth_are_no_tie():
    """Entropies log 2 and log 2 - 4e-12: the second position is the surer one, and goes first."""
    sure = np.log([0.5 + 1.4e-6, 0.5 - 1.4e-6])
    log_prob = np.tile(np.log([0.5, 0.5]), (9, 2, 1))
    log_prob[8, 1] = sure  # everything masked
    log_prob[6, 0], log_prob[7, 0] = np.log([0.9, 0.1]), np.log([0.2, 0.8])  # the first, once the second is known
    for rule in ("entropy", "top_prob"):
        law = np.exp(output_law(MaskedDiffusionLM(log_prob), rule))
        np.testing.assert_allclose(law, [0.45, 0.1, 0.05, 0.4], atol=1e-5)
