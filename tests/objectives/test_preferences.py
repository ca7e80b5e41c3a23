"""DPO, IPO, KTO, ORPO, CPO, SimPO and online DPO: by hand, their minima, their extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from klsim import objectives as o
from klsim.distributions import log_normalize
from klsim.learning import TreeProblem, expected_gradient, random_prompts
from klsim.learning.objective_checks import closed_forms
from klsim.objectives import TokenBatch
from klsim.objectives.preferences import pair_rows

# Pairs (0, 3) and (2, 1): lengths 2, 1, 1, 2; row 3 and row 2 are preferred.
LOG = np.log([[0.5, 0.4], [0.2, 0.9], [0.8, 0.9], [0.6, 0.7]])
REF = np.log([[0.25, 0.4], [0.4, 0.9], [0.4, 0.9], [0.6, 0.35]])
MASK = np.array([[1, 1], [1, 0], [1, 0], [1, 1]], dtype=bool)
GROUP = np.array([4, 1, 1, 4])
PREFERRED = np.array([False, False, True, True])
H = np.log([2.0, 0.5, 2.0, 2.0])
TOTAL = np.log([0.2, 0.2, 0.8, 0.42])
LENGTH = np.array([2, 1, 1, 2])
MARGINS = H[[3, 2]] - H[[0, 1]]  # 0 and log 4


def batch(**changes):
    fields = {"log_probs": LOG, "ref_log_probs": REF, "mask": MASK, "group": GROUP, "preferred": PREFERRED}
    return TokenBatch(**(fields | changes))


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def test_pairs():
    better, worse = pair_rows(batch())
    assert sorted(zip(better.tolist(), worse.tolist())) == [(2, 1), (3, 0)]
    with pytest.raises(ValueError, match=r"group\[0\] = 4: pairs are groups of two, this one has 3"):
        pair_rows(batch(group=[4, 4, 4, 1]))
    with pytest.raises(ValueError, match="exactly one response of a pair is preferred, group 4 has two"):
        pair_rows(batch(preferred=[True, False, True, True]))
    with pytest.raises(ValueError, match="group 1 has none"):
        pair_rows(batch(preferred=[False, False, False, True]))
    with pytest.raises(ValueError, match="preferred: this loss needs it"):
        o.dpo(batch(preferred=None))


def test_dpo():
    assert np.isclose(o.dpo(batch())[0], -log_sigmoid(0.1 * MARGINS).mean())
    smooth = -(0.9 * log_sigmoid(0.5 * MARGINS) + 0.1 * log_sigmoid(-0.5 * MARGINS)).mean()
    assert np.isclose(o.dpo(batch(), beta=0.5, label_smoothing=0.1)[0], smooth)
    metrics = o.dpo(batch(preferred=[True, False, True, False]))[1]
    assert np.isclose(metrics["margin"], math.log(4) / 2)
    assert o.dpo(batch(ref_log_probs=LOG - [[0.0, 0.0], [0, 0], [1, 0], [-1, 0]]))[1]["accuracy"] == 0.5
    with pytest.raises(ValueError, match="label_smoothing"):
        o.dpo(batch(), label_smoothing=0.6)


def test_gradient_of_dpo():
    log = torch.tensor(LOG, requires_grad=True)
    tensors = {n: torch.tensor(x) for n, x in (("ref_log_probs", REF), ("mask", MASK), ("group", GROUP))}
    o.dpo(TokenBatch(log, preferred=torch.tensor(PREFERRED), **tensors), beta=0.5)[0].backward()
    weight = 0.5 / (1 + np.exp(0.5 * MARGINS)) / 2
    expected = np.array([weight[0], weight[1], -weight[1], -weight[0]])[:, None] * MASK
    assert np.allclose(log.grad.numpy(), expected)


def test_ipo_and_its_length_normalised_form():
    assert np.isclose(o.ipo(batch(), beta=0.5)[0], ((MARGINS - 1) ** 2).mean())
    per_token = H / LENGTH
    margins = per_token[[3, 2]] - per_token[[0, 1]]
    assert np.isclose(o.ipo(batch(), beta=0.5, length_normalized=True)[0], ((margins - 1) ** 2).mean())


def test_kto():
    def sigma(x):
        return 1 / (1 + np.exp(-x))

    point = max(0.0, H.mean())
    losses = np.where(PREFERRED, 2.0 * (1 - sigma(0.3 * (H - point))), 0.5 * (1 - sigma(0.3 * (point - H))))
    found = o.kto(batch(), beta=0.3, desirable_weight=2.0, undesirable_weight=0.5)
    assert np.isclose(found[0], losses.mean())
    assert np.isclose(found[1]["reference_point"], point)
    given = np.where(PREFERRED, 1 - sigma(0.3 * (H - 1)), 1 - sigma(0.3 * (1 - H)))
    assert np.isclose(o.kto(batch(group=None), beta=0.3, reference_point=1.0)[0], given.mean())
    negative = o.kto(batch(log_probs=REF, ref_log_probs=LOG))[1]["reference_point"]
    assert negative == 0.0
    with pytest.raises(ValueError, match="reference_point"):
        o.kto(batch(), reference_point=-1.0)


def test_orpo():
    p = np.exp(TOTAL / LENGTH)
    odds = np.log(p / (1 - p))
    margins = odds[[3, 2]] - odds[[0, 1]]
    mean_nll = -(TOTAL[3] / 2 + TOTAL[2]) / 2
    assert np.isclose(o.orpo(batch(), beta=0.2)[0], mean_nll - 0.2 * log_sigmoid(margins).mean())
    token_nll = -(TOTAL[3] + TOTAL[2]) / 3
    assert np.isclose(o.orpo(batch(), aggregate=o.token_mean)[0], token_nll - 0.1 * log_sigmoid(margins).mean())


def test_cpo_and_simpo():
    margins = TOTAL[[3, 2]] - TOTAL[[0, 1]]
    likelihood = -(TOTAL[3] + TOTAL[2]) / 2
    assert np.isclose(o.cpo(batch(), beta=0.2)[0], -log_sigmoid(0.2 * margins).mean() + likelihood)
    assert np.isclose(o.cpo(batch(), alpha=0.0)[0], -log_sigmoid(0.1 * margins).mean())
    means = TOTAL / LENGTH
    margins = means[[3, 2]] - means[[0, 1]]
    assert np.isclose(o.simpo(batch())[0], -log_sigmoid(2 * margins - 0.5).mean())


def test_online_dpo():
    rewards = np.array([0.0, 1.0, 3.0, 0.0])
    online = batch(preferred=None, rewards=rewards)
    # the first pair ties (margin 0): half either way; the second prefers row 2
    assert np.isclose(o.online_dpo(online)[1]["margin"], math.log(4) / 2)  # the tie counts as none
    assert np.isclose(o.online_dpo(online)[0], -(log_sigmoid(0.0) + log_sigmoid(0.1 * math.log(4))) / 2)
    chance = 1 / (1 + math.exp(-2))
    second = chance * log_sigmoid(0.1 * math.log(4)) + (1 - chance) * log_sigmoid(-0.1 * math.log(4))
    assert np.isclose(o.online_dpo(online, labels="bradley_terry")[0], -(log_sigmoid(0.0) + second) / 2)
    tie = ((MARGINS[0] - 1) ** 2 + (MARGINS[0] + 1) ** 2) / 2
    assert np.isclose(o.online_dpo(online, beta=0.5, loss="ipo")[0], (tie + (MARGINS[1] - 1) ** 2) / 2)
    order = np.array([3, 0, 2, 1])
    shuffled = TokenBatch(LOG[order], MASK[order], ref_log_probs=REF[order], group=GROUP[order], rewards=rewards[order])
    assert np.isclose(o.online_dpo(shuffled)[0], o.online_dpo(online)[0])


def population(seed, by_ref=True):
    from dataclasses import replace

    prompts = random_prompts(1, seed, binary=False)
    return TreeProblem([replace(p, log_behaviour=p.log_ref if by_ref else p.log_teacher) for p in prompts])


def gradient(problem, **options):
    def loss(b):
        return o.online_dpo(b, beta=0.3, labels="bradley_terry", **options)

    return np.abs(expected_gradient(loss, problem).gradient).max()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("by_ref", [True, False])
def test_dpo_is_stationary_at_the_sequence_tilt_whoever_drew_the_pairs(seed, by_ref):
    problem = population(seed, by_ref)
    assert gradient(problem.with_policy(closed_forms(problem, beta=0.3)["sequence tilt"])) < 1e-13
    assert gradient(problem.with_policy(closed_forms(problem, beta=0.4)["sequence tilt"])) > 1e-5


def ipo_tilt(problem, law):
    """The conditionals of ``ref e^{P(y > law)/beta}/Z``."""
    chance = 1 / (1 + np.exp(problem.reward[None, :] - problem.reward[:, None]))
    wins = chance @ np.exp(problem.log_prob(law))
    weight = problem.log_prob("ref") + wins / 0.3
    mass = np.full(problem.tables["policy"].shape, -np.inf)
    for t in range(problem.horizon):
        at = problem.mask[:, t]
        np.logaddexp.at(mass, (problem.nodes[at, t], problem.tokens[at, t]), weight[at])
    return log_normalize(mass)


@pytest.mark.parametrize("seed", range(3))
def test_ipo_is_stationary_at_the_tilt_by_the_chance_to_win(seed):
    problem = population(seed)
    assert gradient(problem.with_policy(ipo_tilt(problem, "ref")), loss="ipo") < 1e-13
    assert gradient(problem.with_policy(closed_forms(problem, beta=0.3)["sequence tilt"]), loss="ipo") > 1e-3
    other = population(seed, by_ref=False)  # pairs of another law: wins against that law
    assert gradient(other.with_policy(ipo_tilt(other, "behaviour")), loss="ipo") < 1e-13


def test_certain_preferences_have_a_minimum_for_ipo_and_none_for_dpo():
    gaps = np.array([1.0, 10.0, 100.0])
    pair = [
        TokenBatch(np.array([[-1.0], [-1.0 - gap]]), ref_log_probs=np.full((2, 1), -1.0), preferred=[True, False])
        for gap in gaps
    ]
    assert np.all(np.diff([float(o.dpo(b, beta=0.1)[0]) for b in pair]) < 0)
    assert np.argmin([float(o.ipo(b, beta=0.05)[0]) for b in pair]) == 1  # at a margin of 1/(2 beta) = 10


LOSSES = (o.dpo, o.ipo, o.kto, o.orpo, o.cpo, o.simpo)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_log_probabilities_are_finite(loss, dtype):
    for chosen, rejected in ((0.0, -2000.0), (-2000.0, 0.0), (0.0, 0.0), (-1e-12, -1e-12)):
        log = torch.tensor([[chosen], [rejected]], dtype=dtype, requires_grad=True)
        made = TokenBatch(log, ref_log_probs=torch.full((2, 1), -1.0, dtype=dtype), preferred=[True, False])
        value = loss(made)[0]
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(log.grad).all()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_padding_and_the_order_of_the_batch_do_not_matter(loss):
    rng = np.random.default_rng(0)
    order = np.array([2, 0, 3, 1])
    wide, mask, ref = -rng.random((4, 5)), np.zeros((4, 5), dtype=bool), -rng.random((4, 5))
    wide[:, [1, 3]], mask[:, [1, 3]], ref[:, [1, 3]] = LOG, MASK, REF
    other = TokenBatch(
        wide[order], mask[order], ref_log_probs=ref[order], group=GROUP[order], preferred=PREFERRED[order]
    )
    assert np.isclose(loss(other)[0], loss(batch())[0], rtol=1e-13)
