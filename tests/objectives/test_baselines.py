"""GPG, OPO, ReMax, the optimal token baseline and REINFORCE++ on tokens by hand; padding and holes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from klsim import objectives as o
from klsim.objectives import TokenBatch
from klsim.objectives.baselines import gpg_factor, opo_baseline

LOG = np.log([[0.5, 0.4], [0.2, 0.9]])
MASK = np.array([[True, True], [True, False]])
LOGS = np.log([0.5, 0.4, 0.2])


def batch(**changes):
    fields = {"log_probs": LOG, "mask": MASK, "rewards": np.array([1.0, 0.0]), "old_log_probs": LOG - 0.3}
    return TokenBatch(**(fields | changes))


def test_gpg():
    # the paper's policy gradient has no ratio: old log-probabilities do not matter; its value is -A (pi/sg(pi) = 1)
    assert np.isclose(o.gpg(batch())[0], -(0.5 + 0.5 - 0.5) / 3)
    rewards, group = np.array([1.0, 0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2, 2])
    assert gpg_factor(rewards, group) == 3.0  # one group of three has contrast
    assert gpg_factor(rewards, group, count="nonzero") == 2.0  # verl: three of six rewards are not 0
    assert gpg_factor(np.zeros(4), np.zeros(4, dtype=int)) == 1.0
    shifted = gpg_factor(rewards - 1, group, count="nonzero")
    assert shifted == 2.0 != gpg_factor(rewards + 1, group, count="nonzero")  # verl's count moves with the offset


def test_opo():
    assert np.allclose(opo_baseline(np.array([1.0, 0.0]), np.array([2.0, 1.0]), np.array([0, 0])), 2 / 3)
    assert np.isclose(o.opo(batch())[0], -(2 * (1 / 3) + 1 * (-2 / 3)) / 2)
    with pytest.raises(ValueError, match="alone in its group"):
        o.opo(batch(group=[0, 1]))


def test_remax():
    assert np.isclose(o.remax(batch(greedy_rewards=np.array([0.25, 0.25])))[0], -(2 * 0.75 - 0.25) / 2)
    tokens = batch(rewards=np.array([[0.5, 1.0], [2.0, 9.0]]), greedy_rewards=np.array([1.0, 0.0]))
    assert np.isclose(o.remax(tokens)[0], -((1.5 - 1) + (1 - 1) + 2) / 2)  # rewards to go
    with pytest.raises(ValueError, match="greedy_rewards: this loss needs it"):
        o.remax(batch())


VOCAB = np.log([[[0.5, 0.5], [0.4, 0.6]], [[0.2, 0.8], [0.9, 0.1]]])


def test_optimal_token_baseline():
    made = batch(vocab_log_probs=VOCAB, old_log_probs=None)
    norms = [1 - 2 * 0.5 + 0.5, 1 - 2 * 0.4 + 0.52, 1 - 2 * 0.2 + 0.68]
    first = (norms[0] * 1 + norms[2] * 0) / (norms[0] + norms[2])
    found = o.optimal_token_advantages(made)
    # nobody else has a second token: no baseline there
    assert np.allclose(found, [[1 - first, 1], [-first, 0]])
    assert np.allclose(o.optimal_token_advantages(made, leave_one_out=True), [[1, 1], [-1, 0]])
    # the norm adds up along the response
    third = batch(
        log_probs=np.log([[0.5, 0.4], [0.2, 0.9]]), mask=None, vocab_log_probs=VOCAB, old_log_probs=None
    )  # fmt: skip
    w = [norms[0] + norms[1], norms[2] + 1 - 2 * 0.9 + 0.82]
    assert np.isclose(o.optimal_token_advantages(third)[0, 1], 1 - w[0] / sum(w))
    with pytest.raises(ValueError, match="vocab_log_probs: this loss needs it"):
        o.optimal_token_baseline(batch())


def padded(left: int, hole: int) -> dict[str, np.ndarray]:
    """The batch with junk before every response and a hole after its first token."""
    rng = np.random.default_rng(left + 10 * hole)
    places = [left, left + 1 + hole]
    size = left + hole + 2
    mask = np.zeros((2, size), dtype=bool)
    mask[:, places] = MASK
    log = -rng.random((2, size))
    log[:, places] = LOG
    vocab = np.log(rng.dirichlet(np.ones(2), (2, size)))
    vocab[:, places] = VOCAB
    values = rng.standard_normal((2, size))
    values[:, places] = [[0.2, 0.3], [0.1, 7.0]]
    rewards = rng.standard_normal((2, size))
    rewards[:, places] = [[0.5, 1.0], [2.0, 9.0]]
    return {"log_probs": log, "mask": mask, "vocab_log_probs": vocab, "values": values, "rewards": rewards,
            "ref_log_probs": np.where(mask, -1.0, 3.0 * log)}  # fmt: skip


@pytest.mark.parametrize(("left", "hole"), [(2, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("name", ["optimal_token_baseline", "reinforce_pp_token", "ppo", "gpg", "opo"])
def test_padding_on_the_left_and_holes_do_not_matter(name, left, hole):
    loss = getattr(o, name)
    plain, other = TokenBatch(**padded(0, 0)), TokenBatch(**padded(left, hole))
    assert np.isclose(loss(plain)[0], loss(other)[0], rtol=1e-13)


def test_reinforce_pp_on_tokens():
    made = batch(ref_log_probs=np.log([[0.25, 0.4], [0.4, 0.9]]), old_log_probs=None)
    returns = np.array([1.0, 1.0, 0.0])
    whitened = (returns - returns.mean()) / returns.std(ddof=1)
    assert np.isclose(o.reinforce_pp_token(made)[0], -whitened.mean())
    assert np.allclose(o.reinforce_pp_token_advantages(made)[MASK], whitened)
    population = o.reinforce_pp_token_advantages(made, std="population")[MASK]
    assert np.allclose(population, whitened * math.sqrt(3 / 2))
    shaped = np.array([1 - 0.1 * math.log(2), 1.0, 0.1 * math.log(2)])
    found = o.reinforce_pp_token_advantages(made, beta=0.1)[MASK]
    assert np.allclose(found, (shaped - shaped.mean()) / shaped.std(ddof=1))
    discounted = o.reinforce_pp_token_advantages(made, discount=0.5)[MASK]
    returns = np.array([0.5, 1.0, 0.0])
    assert np.allclose(discounted, (returns - returns.mean()) / returns.std(ddof=1))
    with pytest.raises(ValueError, match="ref_log_probs: this loss needs it"):
        o.reinforce_pp_token(batch(), beta=0.1)


def test_equal_lengths_and_the_population_std_make_it_reinforce_pp():
    made = TokenBatch(LOG, rewards=[1.0, 0.0])
    assert np.isclose(o.reinforce_pp_token(made, std="population")[0], o.reinforce_pp(made)[0])


def test_token_rewards_stand_at_the_last_token():
    assert batch().token_rewards().tolist() == [[0, 1], [0, 0]]
    left = TokenBatch(LOG, mask=[[False, True], [True, False]], rewards=[2.0, 3.0])
    assert left.token_rewards().tolist() == [[0, 2], [3, 0]]
    assert torch.equal(
        TokenBatch(torch.tensor(LOG), torch.tensor(MASK), rewards=torch.tensor([1.0, 2.0])).token_rewards(),
        torch.tensor([[0.0, 1.0], [2.0, 0.0]], dtype=torch.float64),
    )


def test_whitening():
    made = TokenBatch(LOG, mask=MASK)
    assert np.all(o.whitened(np.full((2, 2), 0.1), made) == 0)
    with pytest.raises(ValueError, match="needs two tokens"):
        o.whitened(np.ones((1, 1)), TokenBatch(LOG[:1, :1]))
