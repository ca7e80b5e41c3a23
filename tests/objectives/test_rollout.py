"""TIS, MIS, IcePop, decoupled PPO, off-policy mask, TOPR and DRO by hand; where DRO's minimum lies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from klsim import objectives as o
from klsim.learning import TreeProblem, expected_gradient, random_prompts
from klsim.learning.objective_checks import closed_forms
from klsim.objectives import TokenBatch

# pi/old = 2, 1/2 and 1/2; old/mu = 4, 1/2 (a response: 2) and 1/8.
PI = np.log([[0.5, 0.4], [0.1, 0.9]])
OLD = np.log([[0.25, 0.8], [0.2, 0.9]])
MU = np.log([[0.0625, 0.99], [0.9, 0.9]])
MU[0, 1], MU[1, 0] = math.log(0.8) + math.log(2), math.log(0.2) + math.log(8)
MASK = np.array([[True, True], [True, False]])


def batch(**changes):
    fields = {
        "log_probs": PI, "old_log_probs": OLD, "rollout_log_probs": MU, "mask": MASK, "advantages": np.array([1.0, -1.0]),
    }  # fmt: skip
    return TokenBatch(**(fields | changes))


def value(loss, *args, **kwargs):
    return float(loss(batch(), *args, **kwargs)[0])


def weights(**options):
    return o.rollout_weights(batch(), **options)[MASK]


def test_weights():
    assert np.allclose(weights(high=math.inf), [4, 0.5, 0.125])
    assert np.allclose(weights(), [2, 0.5, 0.125])
    assert np.allclose(weights(low=0.25, high=3.0), [3, 0.5, 0.25])
    assert np.allclose(weights(beyond="mask", low=0.25, high=3.0), [0, 0.5, 0])
    assert np.allclose(weights(level="sequence", high=math.inf), [2, 2, 0.125])
    assert np.allclose(weights(level="sequence", beyond="mask", high=1.5), [0, 0, 0.125])
    assert np.allclose(weights(level="geometric", high=math.inf), [math.sqrt(2), math.sqrt(2), 0.125])
    with pytest.raises(ValueError, match="rollout_log_probs: this loss needs it"):
        o.tis(batch(rollout_log_probs=None))
    with pytest.raises(ValueError, match="high"):
        o.tis(batch(), low=2.0, high=1.0)


def test_corrections():
    terms = np.array([1.2, 0.5, -0.8])  # clipped
    assert np.isclose(value(o.tis), -(terms * [2, 0.5, 0.125]).sum() / 3)
    assert np.isclose(value(o.tis, level="sequence"), -(terms * [2, 2, 0.125]).sum() / 3)
    assert np.isclose(value(o.mis), -(terms * [2, 2, 0.125]).sum() / 3)
    assert np.isclose(value(o.mis, high=1.0), -(terms * [0, 0, 0.125]).sum() / 3)
    assert np.isclose(value(o.icepop), -((terms[0] * 4 + terms[1] * 0.5) / 2 + 0) / 2)
    assert np.isclose(value(o.decoupled_ppo), -(terms * [4, 0.5, 0.125]).sum() / 3)
    assert np.isclose(value(o.decoupled_ppo, cap=1.0), -(terms * [1, 0.5, 0.125]).sum() / 3)
    assert np.isclose(o.mis(batch(), high=1.0)[1]["kept"], 1 / 3)


def test_without_a_mismatch_nothing_changes():
    same = batch(rollout_log_probs=OLD)
    for loss in (o.tis, o.mis, o.decoupled_ppo):
        assert np.isclose(loss(same)[0], o.bnpo(same)[0])
    assert np.isclose(o.icepop(same)[0], o.grpo(same)[0])


def test_off_policy_mask():
    # mean log(mu/pi): of the first (log 1/8 + log 4)/2 < 0, of the second log 16
    assert o.off_policy_mask(batch(), np.array([-1.0, -1.0])).tolist() == [1, 0]
    assert o.off_policy_mask(batch(), np.array([-1.0, 1.0])).tolist() == [1, 1]
    assert o.off_policy_mask(batch(), np.array([-1.0, -1.0]), threshold=3.0).tolist() == [1, 1]
    tokens = np.array([[1.0, 1.0], [-1.0, 1.0]])
    assert o.off_policy_mask(batch(), tokens).tolist() == [[1, 1], [0, 1]]
    assert np.isclose(value(o.off_policy_masked), -((1.2 + 0.5) / 2 - 0) / 2)
    assert np.isclose(o.off_policy_masked(batch(rollout_log_probs=None), threshold=1.0)[0], o.grpo(batch())[0])


def test_topr():
    logs = np.log([0.5, 0.4, 0.1])
    # sequence ratios 1 and 1/2
    assert np.isclose(value(o.topr), -(logs[0] + logs[1] - 0.5 * logs[2]) / 2)
    assert np.isclose(value(o.topr, negative=(0.0, 0.25)), -(logs[0] + logs[1] - 0.25 * logs[2]) / 2)
    assert np.isclose(
        value(o.topr, negative=(1.0, 1.0), baseline=0.5), -(0.5 * (logs[0] + logs[1]) - 1.5 * logs[2]) / 2
    )
    with pytest.raises(ValueError, match=r"positive\[1\]"):
        o.topr(batch(), positive=(2.0, 1.0))


REF = np.log([[0.25, 0.1], [0.4, 0.9]])


def dro_batch(**changes):
    return batch(advantages=None, rewards=np.array([1.0, 0.0]), ref_log_probs=REF, **changes)


def test_dro():
    h = np.array([math.log(8), math.log(0.25)])
    gain = np.array([1.0, 0.0]) - 0.1 * h
    error = gain - gain[::-1]  # the others' mean
    assert np.isclose(o.dro(dro_batch())[0], (error**2).mean() / 2)
    values = np.array([[0.3, 9.0], [0.1, 9.0]])
    assert np.isclose(o.dro(dro_batch(values=values))[0], ((gain - [0.3, 0.1]) ** 2).mean() / 2)
    logs, drift = np.log([0.5, 0.4, 0.1]), np.log([2, 0.5, 0.5])
    token = -(0.5 * logs[0] + 0.5 * logs[1] - 0.5 * logs[2] - 0.1 / 2 * (drift**2).sum()) / 2
    assert np.isclose(o.dro(dro_batch(), form="token")[0], token)


def test_dro_trains_its_values():
    tensors = {n: torch.tensor(x) for n, x in (("log_probs", PI), ("mask", MASK), ("ref_log_probs", REF))}
    values = torch.tensor([[0.3, 9.0], [0.1, 9.0]], dtype=torch.float64, requires_grad=True)
    made = TokenBatch(**tensors, rewards=torch.tensor([1.0, 0.0]).double(), values=values)
    o.dro(made)[0].backward()
    gain = np.array([1.0, 0.0]) - 0.1 * np.array([math.log(8), math.log(0.25)])
    assert np.allclose(values.grad.numpy(), [[-(gain[0] - 0.3) / 2, 0], [-(gain[1] - 0.1) / 2, 0]])


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_dro_ends_at_the_sequence_tilt_for_any_sampling_law(seed, off_policy):
    problem = TreeProblem(random_prompts(1, seed, binary=False, off_policy=off_policy))
    tilt = problem.with_policy(closed_forms(problem, beta=0.3)["sequence tilt"])
    near = problem.with_policy(closed_forms(problem, beta=0.4)["sequence tilt"])

    def size(at, **options):
        return np.abs(expected_gradient(lambda b: o.dro(b, beta=0.3, **options), at).gradient).max()

    assert size(tilt) < 1e-13
    assert size(near) > 1e-4
    assert size(tilt, form="token") > 1e-4  # the token form has another end


@pytest.mark.parametrize("gap", [-90.0, 90.0])
def test_extreme_mismatch_is_finite(gap):
    for loss in (o.tis, o.mis, o.icepop, lambda b: o.tis(b, level="sequence"), o.off_policy_masked, o.topr):
        parameter = torch.full((2, 3), -1.0, requires_grad=True)
        old = torch.full((2, 3), -1.0 - max(-gap, 0.0))
        mu = torch.full((2, 3), -1.0 - max(gap, 0.0))
        made = TokenBatch(
            parameter, old_log_probs=old if loss is o.topr else None, rollout_log_probs=mu,
            advantages=torch.tensor([1.0, -1.0]),
        )  # fmt: skip
        loss(made)[0].backward()
        assert torch.isfinite(parameter.grad).all()


def test_the_teachers_mode_is_its_most_probable_token():
    problem = TreeProblem(random_prompts(1, 3, vocab=3, horizon=2, eos=None))
    mode = np.exp(closed_forms(problem)["teacher's mode"])
    np.testing.assert_array_equal(mode.argmax(axis=1), problem.tables["teacher"].argmax(axis=1))
    np.testing.assert_allclose(mode.max(axis=1), 1.0)
